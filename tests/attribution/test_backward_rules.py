"""The deconvnet's rules, against autograd of the same functions written with constants detached.

In float64, on tensors so small that every unit is looked at. Beyond the paper's layers, the adjoint decides,
with whatever depends on the image held fixed: statistics, denominators, attention's weights.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from convatlas import UserError
from convatlas.attribution.backward_rules import BACKWARD_RULES, node_type
from convatlas.attribution.deconvnet import make_seed_signal, project, project_positions, project_stepwise
from convatlas.attribution.gradient_rules import attach_gradient_rules

Step = Callable[[Tensor], Tensor]
ORDER = torch.tensor([2, 0, 3, 1])
FOURIER_FILTER = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(3)).to(torch.complex128) * 1j
X = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(1)).double()


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    """Fail on nondeterministic operations."""
    torch.set_deterministic_debug_mode("error")
    yield
    torch.set_deterministic_debug_mode("default")


class Between(nn.Module):
    """A convolution, the tested function, and a last layer: signals of both signs arrive at the function."""

    def __init__(self, step: Step, after: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before, self.step, self.after = nn.Conv2d(4, 4, 3, padding=1), step, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.step(self.before(x)))


def project_both_ways(step: Step, written: Step, rectify: bool = False) -> tuple[Tensor, Tensor]:
    """The projections of every unit after `step`, and autograd's of it `written` out."""
    with torch.no_grad():
        shape = step(torch.zeros(1, 4, 6, 8).double()).shape
    torch.manual_seed(0)
    after = nn.Conv2d(shape[1], 3, 1) if len(shape) == 4 else nn.Linear(shape[-1], 3)
    nn.init.constant_(after.bias, 2.0)  # so that the units are active
    net = Between(step, after).double().eval()
    projections, expected = [], []
    for select in ("map", "peak"):
        projections.append(project(net, X, "after", select=select, rectify=rectify))
        x = X[None].clone().requires_grad_()
        top = net.after(written(net.before(x)))
        torch.testing.assert_close(top, net(X[None]))  # both compute the same output
        start = make_seed_signal(top.detach(), select)
        for unit in range(top.shape[1]):
            isolated = torch.zeros_like(start)
            isolated[:, unit] = start[:, unit]
            expected.append(torch.autograd.grad(top, x, isolated, retain_graph=True)[0])
    assert torch.cat(projections).any()
    return torch.cat(projections), torch.cat(expected)


def assert_same(pair: tuple[Tensor, Tensor]) -> None:
    torch.testing.assert_close(*pair, rtol=1e-10, atol=1e-12)


def put(x: Tensor) -> Tensor:
    """Write some channels to others in place."""
    y = torch.zeros_like(x)
    y[:, [0, 3]] = x[:, [1, 2]]
    return y


# Functions whose adjoint autograd computes.

ADJOINT: dict[str, Step] = {
    "average pool": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "average pool, borders not counted": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "adaptive average pool": lambda x: F.adaptive_avg_pool2d(x, (4, 5)),
    "global average": lambda x: x.mean((2, 3), keepdim=True),
    "overlapping maximum pool": lambda x: F.max_pool2d(x, 3, 2, 1),
    "adaptive maximum pool": lambda x: F.adaptive_max_pool2d(x, (4, 5)),
    "bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "bilinear, antialiased": lambda x: F.interpolate(x, size=(4, 5), mode="bilinear", antialias=True),
    "bicubic": lambda x: F.interpolate(x, scale_factor=1.5, mode="bicubic", align_corners=True),
    "nearest": lambda x: F.interpolate(x, size=(9, 9)),
    "transposed convolution": nn.ConvTranspose2d(4, 5, 3, 2, 1, output_padding=1).double(),
    "dilated, grouped": nn.Conv2d(4, 6, 3, padding=2, dilation=2, groups=2, stride=2).double(),
    "reflected border": nn.Conv2d(4, 3, 3, padding=1, padding_mode="reflect").double(),
    "replicated border": nn.Conv2d(4, 3, 3, padding=1, padding_mode="replicate").double(),
    "the same size": nn.Conv2d(4, 3, 4, padding="same").double(),
    "concatenation": lambda x: torch.cat([x, x.roll(1, 2), 2 * x[:, :2]], 1),
    "sum and difference": lambda x: x + x.flip(1) - 0.5 * x.roll(2, 3),
    "product of two signals": lambda x: x * x.roll(1, 3) + x,
    "gate": lambda x: x * x.mean((2, 3), keepdim=True),
    "pixel shuffle": nn.PixelShuffle(2),
    "pixel unshuffle": nn.PixelUnshuffle(2),
    "channel shuffle": lambda x: x.view(1, 2, 2, 6, 8).transpose(1, 2).reshape(1, 4, 6, 8),
    "halves": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "padding": lambda x: F.pad(x, (1, 2, 3, 4)),
    "squeeze": lambda x: x[:, :, :1].squeeze(2).unsqueeze(3),
    "einsum": lambda x: torch.einsum("nchw,dc->ndhw", x, torch.arange(8.0).double().view(2, 4)),
    "matrix product": lambda x: x @ x.mT,
    "tokens": lambda x: x.flatten(2).transpose(1, 2).contiguous(),
    "division by a number": lambda x: x / 3,
    "fused product": lambda x: torch.addcmul(x, x, x.roll(1, 3), value=2),
    "interpolation of two signals": lambda x: torch.lerp(x, x.flip(1), x.roll(1, 2)),
    "cumulative sum": lambda x: x.cumsum(1),
    "scattered": lambda x: (
        torch.zeros_like(x).scatter(1, ORDER.view(1, 4, 1, 1).expand_as(x), x)
        + x.scatter_add(2, torch.zeros_like(x, dtype=torch.int64), x.roll(1, 3))
    ),
    "written to indices": lambda x: x.index_add(1, ORDER, 2 * x) + x.index_copy(1, ORDER[:2], x[:, 2:]),
    "written to a part": lambda x: x.select_scatter(x[:, 0], 1, 2) + x.slice_scatter(-x[:, :2], 1, 1, 3),
    "written to places": lambda x: torch.zeros_like(x).index_put((torch.tensor([0]), ORDER), x[0]) + put(x),
    "Fourier filter": lambda x: torch.fft.irfft2(torch.fft.rfft2(x) * FOURIER_FILTER, s=(6, 8)),
    "regions": lambda x: torchvision.ops.roi_align(x, [torch.tensor([[1.0, 0, 5, 4]]).double()], 3),
    "turned": lambda x: torch.rot90(x, 1, (2, 3)),
    "square": lambda x: x**2 + x,
    "cube": lambda x: x.pow(3.0),
    "maximum over channels": lambda x: x.max(1, keepdim=True).values,
    "minimum over rows": lambda x: x.min(2, keepdim=True)[0],
    "largest two": lambda x: x.topk(2, 1).values,
    "sorted": lambda x: x.sort(1).values,
    "batch norm": nn.BatchNorm2d(4).double().eval(),
    "dropout": nn.Dropout().eval(),
}


@pytest.mark.parametrize("name", ADJOINT)
def test_the_adjoint_decides(name: str) -> None:
    step = ADJOINT[name]
    if isinstance(step, nn.BatchNorm2d):
        randomise(step).running_var.uniform_(0.5, 2)
    assert_same(project_both_ways(step, step))


def test_equal_extrema_count_once_the_first_as_in_pooling() -> None:
    """Half of the equal values are constant: autograd's adjoint shares the signal among all."""

    def twice(x: Tensor) -> Tensor:
        return torch.cat([x, x.detach()], 3)

    def both(x: Tensor) -> Tensor:
        return torch.cat([twice(x).amax((2, 3), keepdim=True), twice(x).amin((-1, -2), keepdim=True)], 1)

    def pooled(x: Tensor) -> Tensor:
        return torch.cat([F.adaptive_max_pool2d(twice(x), 1), -F.adaptive_max_pool2d(-twice(x), 1)], 1)

    assert_same(project_both_ways(both, pooled))
    across = project_both_ways(lambda x: x.amax((1, 3)), lambda x: x.transpose(1, 2).flatten(2).max(2).values)
    assert_same(across)
    total = project_both_ways(lambda x: x * twice(x).max(), lambda x: x * twice(x).flatten().max(0).values)
    assert_same(total)


def test_a_layer_that_only_constants_tie_to_the_image_is_refused() -> None:
    net = Between(lambda x: 1 / x.mean((2, 3), keepdim=True), nn.Conv2d(4, 3, 1)).double().eval()
    with pytest.raises(UserError, match=r"after depends on the image only through .* constants"):
        project(net, X, "after")


# Functions with a part that is constant.


def randomise(module: nn.Module) -> Any:
    """Return a module with random parameters, in float64."""
    generator = torch.Generator().manual_seed(2)
    for parameter in module.parameters():
        nn.init.normal_(parameter, generator=generator)
    return module.double().eval()


def normalised(x: Tensor, axes: tuple[int, ...], eps: float = 1e-5) -> Tensor:
    """Subtract the mean and divide by the standard deviation, both constants."""
    deviation = (x.var(axes, unbiased=False, keepdim=True) + eps).sqrt()
    return (x - x.mean(axes, keepdim=True).detach()) / deviation.detach()


def channels(values: Tensor) -> Tensor:
    return values[:, None, None]


def group_norm(module: nn.GroupNorm) -> Step:
    def written(x: Tensor) -> Tensor:
        grouped = normalised(x.unflatten(1, (module.num_groups, -1)), (2, 3, 4)).flatten(1, 2)
        return grouped * channels(module.weight) + channels(module.bias) if module.affine else grouped

    return written


def scale_affine(module: Any, axes: tuple[int, ...]) -> Step:
    return lambda x: normalised(x, axes) * channels(module.weight) + channels(module.bias)


def attended(x: Tensor) -> Tensor:
    q, k, v = x.flatten(2).mT.split((1, 1, 2), 2)
    weights = ((q @ k.mT) / q.shape[-1] ** 0.5).softmax(-1)
    return (weights.detach() @ v).transpose(1, 2).unflatten(2, (6, 8))


def attention(x: Tensor) -> Tensor:
    """Attend to values wider than the keys, which torch does not fuse."""
    q, k, v = x.flatten(2).mT.split((1, 1, 2), 2)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).unflatten(2, (6, 8))


def rms(x: Tensor) -> Tensor:
    return x * (x.pow(2).mean((1, 2, 3), keepdim=True) + 1e-5).rsqrt().detach()


def response_norm(x: Tensor) -> Tensor:
    """Global response normalisation, as in ConvNeXt-V2."""
    norm = x.norm(p=2, dim=(2, 3), keepdim=True)
    return x + x * (norm / (norm.mean(1, keepdim=True) + 1e-6))


def shifted_grid(x: Tensor) -> Tensor:
    """Return the places that a spatial transformer reads from, which depend on the image."""
    shift = x.mean((1, 2, 3)).tanh()
    theta = torch.eye(2, 3).double() + F.pad(shift[:, None, None], (2, 0, 0, 1))
    return F.affine_grid(theta, list(x.shape), align_corners=False)


def offsets(x: Tensor) -> Tensor:
    return x.repeat(1, 5, 1, 1)[:, :18]


DEFORMED = torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(4)).double()
RMS_EPS = torch.finfo(torch.float64).eps
GROUPS = [randomise(nn.GroupNorm(2, 4)), nn.GroupNorm(4, 4, affine=False), randomise(nn.GroupNorm(1, 4))]
LAYER = randomise(nn.LayerNorm((4, 6, 8)))
LAST = randomise(nn.LayerNorm(8))
INSTANCE = randomise(nn.InstanceNorm2d(4, affine=True))
OWN = randomise(nn.BatchNorm2d(4, track_running_stats=False))
RMS = randomise(nn.RMSNorm(8))
FIXED: dict[str, tuple[Step, Step]] = {
    "group norm": (GROUPS[0], group_norm(GROUPS[0])),
    "group norm, no gain": (GROUPS[1], group_norm(GROUPS[1])),
    "group norm, one group": (GROUPS[2], group_norm(GROUPS[2])),
    "layer norm": (LAYER, lambda x: normalised(x, (1, 2, 3)) * LAYER.weight + LAYER.bias),
    "layer norm of rows": (LAST, lambda x: normalised(x, (3,)) * LAST.weight + LAST.bias),
    "layer norm of channels": (
        lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2),
        lambda x: normalised(x, (1,)),
    ),
    "instance norm": (INSTANCE, scale_affine(INSTANCE, (2, 3))),
    "batch norm of its own statistics": (OWN, scale_affine(OWN, (0, 2, 3))),
    "root mean square norm": (
        RMS,
        lambda x: x * RMS.weight / (x.pow(2).mean(3, keepdim=True) + RMS_EPS).sqrt().detach(),
    ),
    "one over a root": (lambda x: x * (x.pow(2).mean((1, 2, 3), keepdim=True) + 1e-5).rsqrt(), rms),
    "division by a norm": (lambda x: x / (x.norm() + 1), lambda x: x / (x.norm() + 1).detach()),
    "normalised": (
        lambda x: F.normalize(x, dim=1),
        lambda x: x / x.norm(dim=1, keepdim=True).detach(),
    ),
    "global response norm": (response_norm, lambda x: x * (response_norm(x) / x).detach()),
    "product with a norm": (
        lambda x: x * x.norm(p=1, dim=(2, 3), keepdim=True),
        lambda x: x * x.abs().sum((2, 3), keepdim=True).detach(),
    ),
    "local response norm": (
        nn.LocalResponseNorm(3),
        lambda x: x * (F.local_response_norm(x, 3) / x).detach(),
    ),
    "attention": (attention, attended),
    "fused quotient": (
        lambda x: torch.addcdiv(x, x.flip(1), x.square().mean() + 1),
        lambda x: x + x.flip(1) / (x.square().mean() + 1).detach(),
    ),
    "spatial transformer": (
        lambda x: F.grid_sample(x, shifted_grid(x), align_corners=False),
        lambda x: F.grid_sample(x, shifted_grid(x).detach(), align_corners=False),
    ),
    "deformable convolution": (
        lambda x: torchvision.ops.deform_conv2d(x, offsets(x), DEFORMED, padding=1),
        lambda x: torchvision.ops.deform_conv2d(x, offsets(x).detach(), DEFORMED, padding=1),
    ),
    "softmax of weights alone": (
        lambda x: x * torch.ones(4, 1, 1).double().softmax(0),
        lambda x: x / 4,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FIXED)
def test_other_quantities_that_depend_on_the_image_are_constants(name: str) -> None:
    assert_same(project_both_ways(*FIXED[name]))


class OwnBatchNorm(nn.BatchNorm2d):
    """A subclass, of which nothing is known."""


class FunctionalBatchNorm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        running = (self.running_mean, self.running_var, self.weight, self.bias)
        return F.batch_norm(x, *running, training=False, eps=self.eps)


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, OwnBatchNorm, FunctionalBatchNorm])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("double", [False, True])
def test_batch_norm_equals_its_formula_for_a_channels_last_signal(
    kind: type[nn.BatchNorm2d], affine: bool, double: bool
) -> None:
    """One image on the CPU, its values contiguous: torch 2.15's own adjoint is reported to be wrong there."""
    norm = randomise(kind(4, eps=0.1, affine=affine))
    norm.running_var.copy_(torch.tensor([0.1, 0.5, 2, 30]))
    last = nn.Conv2d(4, 3, 3).to(memory_format=torch.channels_last)
    net = nn.Sequential(nn.Conv2d(4, 4, 3), norm, last).to(torch.float64 if double else torch.float32).eval()
    x = X if double else X.float()
    projections = project(net, x, "2")
    factor = (norm.running_var.double() + 0.1) ** -0.5
    factor = (factor * norm.weight.double() if affine else factor).detach()
    top = net(x[None]).detach().double().relu()
    for unit in range(3):
        signal = F.conv_transpose2d(top[:, [unit]], last.weight[[unit]].double())
        expected = F.conv_transpose2d(signal * channels(factor), net[0].weight.double())[0]
        torch.testing.assert_close(projections[unit].double(), expected, rtol=1e-4, atol=1e-5)


def test_batch_norm_in_evaluation_mode_takes_nothing_from_the_gradient_of_autograd() -> None:
    norm = randomise(nn.BatchNorm2d(4))
    norm.running_var.uniform_(0.5, 2)
    x = X[None].clone().requires_grad_()
    node = norm(x).grad_fn
    signal = torch.randn(1, 6, 8, 4).double().permute(0, 3, 1, 2)
    rule = BACKWARD_RULES[node_type(node)]
    passed = rule(node, (torch.full_like(x, torch.nan), None, None), (signal, None, None))
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(passed[0], signal * channels(factor))
    assert passed[1:] == (None, None)


def test_self_attention_passes_the_signal_to_the_values() -> None:
    module = randomise(nn.MultiheadAttention(4, 2, batch_first=True))

    def step(x: Tensor) -> Tensor:
        tokens = x.flatten(2).mT
        return module(tokens, tokens, tokens, need_weights=False)[0]

    def written(x: Tensor) -> Tensor:
        tokens = x.flatten(2).mT
        q, k, v = (tokens @ module.in_proj_weight.mT + module.in_proj_bias).chunk(3, 2)
        heads = []
        for part in (slice(0, 2), slice(2, 4)):
            weights = (q[..., part] @ k[..., part].mT / 2**0.5).softmax(-1)
            heads.append(weights.detach() @ v[..., part])
        return module.out_proj(torch.cat(heads, 2))

    assert_same(project_both_ways(step, written))


# Activations.

RELUS: list[Step] = [
    F.relu,
    torch.relu_,
    lambda x: x.clamp(min=0),
    lambda x: torch.clamp_min(x, 0),
    lambda x: x.clip(0),
    lambda x: F.threshold(x, 0, 0),
    lambda x: F.relu(x.view(1, 2, 2, 6, 8)).flatten(1, 2),
]


class Rule(torch.autograd.Function):
    """Any activation whose backward pass rectifies the signal."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: Step) -> Tensor:
        with torch.no_grad():
            return activation(x.clone())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.relu(), None


@pytest.mark.parametrize("relu", RELUS)
def test_relus_under_any_name_rectify_the_signal(relu: Step) -> None:
    assert_same(project_both_ways(relu, lambda x: Rule.apply(x, F.relu)))


CLAMPS: list[Step] = [  # the maximum is below many values
    lambda x: F.relu6(20 * x) / 20,
    lambda x: F.relu6(20 * x, inplace=True) / 20,
    lambda x: nn.ReLU6(inplace=True)(20 * x) / 20,
    nn.Hardtanh(0.0, 0.1),
    lambda x: F.hardtanh(x, 0, 0.3),
    lambda x: x.clamp(0, 0.2),
    lambda x: torch.clip(x, 0.0, 0.2),
]


@pytest.mark.parametrize("clamp", CLAMPS)
def test_rectifiers_with_a_maximum_rectify_the_signal_above_it_too(clamp: Step) -> None:
    assert_same(project_both_ways(clamp, lambda x: Rule.apply(x, clamp)))


OTHERS: list[Step] = [
    lambda x: F.hardtanh(x, -1, 6),
    F.leaky_relu,
    F.elu,
    F.selu,
    F.celu,
    F.gelu,
    F.silu,
    F.mish,
    F.hardtanh,
    F.hardswish,
    F.hardsigmoid,
    F.softplus,
    F.softshrink,
    F.hardshrink,
    F.logsigmoid,
    torch.sigmoid,
    torch.tanh,
    torch.exp,
    torch.abs,
    lambda x: x.softmax(1),
    lambda x: x.log_softmax(1),
    lambda x: x.clamp(0.1),
    lambda x: x.clamp(-0.1, 6),
    lambda x: x.clamp(0.1, 6),
    lambda x: x.clamp(max=0),
    lambda x: F.threshold(x, 0.5, 0),
    lambda x: F.prelu(x, torch.full((4,), 0.2).double()),
]


@pytest.mark.parametrize("activation", OTHERS)
def test_other_activations_stop_unless_rectified(activation: Step) -> None:
    with pytest.raises(UserError, match=r"defined for ReLUs.*rectify: true"):
        project_both_ways(activation, activation)
    assert_same(project_both_ways(activation, lambda x: Rule.apply(x, activation), rectify=True))


def test_no_rule_is_needed_below_a_constant() -> None:
    """Activations in a denominator or in attention weights meet no signal."""
    assert_same(project_both_ways(lambda x: x / (1 + x.sigmoid()), lambda x: x / (1 + x.sigmoid()).detach()))


# Writes into a part of a tensor, and the same functions written out of place.


def relu(x: Tensor) -> Tensor:
    return Rule.apply(x, F.relu)


def write(function: Callable[[Tensor], Any]) -> Step:
    """Return a step that copies its input, lets `function` write into the copy, and returns the copy."""

    def step(x: Tensor) -> Tensor:
        y = x.clone()
        function(y)
        return y

    return step


def add_to_half(y: Tensor) -> None:
    y[:, :2] += 3 * y[:, 2:]


def divide_half(y: Tensor) -> None:
    y[:, :2] /= 1 + y[:, 2:].sigmoid()


def copy_rows(x: Tensor) -> Tensor:
    y = x.new_zeros(x.shape)
    y[:, :, ::2] = x[:, :, 1::2]
    y[:, :, 1::2] = F.relu_(x[:, :, ::2] - 0.1)
    return y


def copied_rows(x: Tensor) -> Tensor:
    return torch.stack([x[:, :, 1::2], relu(x[:, :, ::2] - 0.1)], 3).flatten(2, 3)


def rectify_twice(y: Tensor) -> None:
    y[:, :3].relu_()
    y *= -1
    y[:, 1:].relu_()


def rectified_twice(x: Tensor) -> Tensor:
    y = -torch.cat([relu(x[:, :3]), x[:, 3:]], 1)
    return torch.cat([y[:, :1], relu(y[:, 1:])], 1)


def add_input(x: Tensor) -> Tensor:
    y = F.relu(x - 0.1)
    y += x  # the output that the ReLU has saved
    return y


CIRCULAR = randomise(nn.Conv2d(4, 3, 3, padding=(1, 2), padding_mode="circular"))
WRITES: dict[str, tuple[Step, Step]] = {
    "in-place ReLU after instance norm": (
        lambda x: F.relu(INSTANCE(x), inplace=True),
        lambda x: relu(scale_affine(INSTANCE, (2, 3))(x)),
    ),
    "in-place ReLU6 after instance norm": (
        lambda x: F.relu6(F.instance_norm(x, eps=1e-5)[..., 1:], inplace=True),
        lambda x: Rule.apply(normalised(x, (2, 3))[..., 1:], F.relu6),
    ),
    "ReLU on half of the channels": (
        write(lambda y: F.relu_(y[:, :2])),
        lambda x: torch.cat([relu(x[:, :2]), x[:, 2:]], 1),
    ),
    "clamp of every other column, transposed": (
        write(lambda y: y.transpose(1, 3)[:, ::2].clamp_(0, 6)),
        lambda x: torch.stack([Rule.apply(x[..., ::2], F.relu6), x[..., 1::2]], 4).flatten(3),
    ),
    "clamp_min of one channel": (
        write(lambda y: y[:, 3].clamp_min_(0)),
        lambda x: torch.cat([x[:, :3], relu(x[:, 3:])], 1),
    ),
    "threshold of a row": (
        write(lambda y: F.threshold_(y[:, :, 2], 0, 0)),
        lambda x: torch.cat([x[:, :, :2], relu(x[:, :, 2:3]), x[:, :, 3:]], 2),
    ),
    "channels last": (
        lambda x: write(lambda y: F.relu_(y[:, :2]))(x.contiguous(memory_format=torch.channels_last)),
        lambda x: torch.cat([relu(x[:, :2]), x[:, 2:]], 1),
    ),
    "two ReLUs that overlap": (write(rectify_twice), rectified_twice),
    "sum": (write(add_to_half), lambda x: torch.cat([x[:, :2] + 3 * x[:, 2:], x[:, 2:]], 1)),
    "quotient": (
        write(divide_half),
        lambda x: torch.cat([x[:, :2] / (1 + x[:, 2:].sigmoid()).detach(), x[:, 2:]], 1),
    ),
    "number": (
        write(lambda y: y[:, 0].fill_(2)),
        lambda x: torch.cat([torch.full_like(x[:, :1], 2), x[:, 1:]], 1),
    ),
    "zeros, scaled": (
        write(lambda y: (y[:, 0].zero_(), y[:, 1].mul_(-3))),
        lambda x: x * channels(torch.tensor([0.0, -3, 1, 1]).double()),
    ),
    "rows": (copy_rows, copied_rows),
    "circular border": (
        CIRCULAR,
        lambda x: F.conv2d(
            x[:, :, [5, *range(6), 0]][..., [6, 7, *range(8), 0, 1]], CIRCULAR.weight, CIRCULAR.bias
        ),
    ),
    "sum with the output of a ReLU": (add_input, lambda x: relu(x - 0.1) + x),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITES)
def test_writes_equal_the_same_network_out_of_place(name: str) -> None:
    assert_same(project_both_ways(*WRITES[name]))


@pytest.mark.parametrize("activation", [F.elu_, lambda x: x.clamp_(-1, 1), lambda x: x.clamp_(max=0)])
def test_other_activations_in_a_part_of_a_tensor_stop_unless_rectified(activation: Step) -> None:
    step = write(lambda y: activation(y[:, :2]))

    def written(x: Tensor) -> Tensor:
        return torch.cat([Rule.apply(x[:, :2], activation), x[:, 2:]], 1)

    with pytest.raises(UserError, match=r"defined for ReLUs.*rectify: true"):
        project_both_ways(step, written)
    assert_same(project_both_ways(step, written, rectify=True))


def test_a_write_that_is_not_known_is_refused() -> None:
    class Hidden(torch.autograd.Function):
        """An operation in place that calls a ReLU, and has another backward pass."""

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.mark_dirty(x)
            return x.relu_()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad.exp()

    for step in (write(lambda y: Hidden.apply(y[:, :2])), write(lambda y: y[:, :2].rsqrt_())):
        with pytest.raises(UserError, match=r"no adjoint.*write y = torch.cat\("):
            project_both_ways(step, step)


def test_a_write_into_a_chunk_is_refused_with_what_to_write_instead() -> None:
    class Halves(nn.Module):
        def __init__(self, chunk: Callable[[Tensor], Any]) -> None:
            super().__init__()
            self.chunk, self.relu = chunk, nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            first, second = self.chunk(x)
            return torch.cat([self.relu(first), second], 1)

    step = Halves(lambda x: x.chunk(2, 1))
    with pytest.raises(UserError, match=r"after the layer 'before' .*chunk.*slices such as x\["):
        project(Between(step, nn.Conv2d(4, 3, 1)).double(), X, "after")

    def written(x: Tensor) -> Tensor:
        return torch.cat([relu(x[:, :2]), x[:, 2:]], 1)

    assert_same(project_both_ways(Halves(lambda x: (x[:, :2], x[:, 2:])), written))
    assert_same(project_both_ways(Halves(lambda x: [part.clone() for part in x.chunk(2, 1)]), written))


def test_steps_and_positions_below_an_in_place_relu_after_instance_norm() -> None:
    torch.manual_seed(0)
    norm = nn.InstanceNorm2d(4)
    inplace = nn.Sequential(nn.Conv2d(4, 4, 3), norm, nn.ReLU(inplace=True), nn.Conv2d(4, 3, 3)).double()
    plain = nn.Sequential(inplace[0], norm, nn.ReLU(), inplace[3])
    steps, expected = (project_stepwise(net, X, "3", 1) for net in (inplace, plain))
    assert torch.equal(steps[-1].signal, expected[-1].signal)
    by_layer = {step.layer: step.signal for step in expected}
    assert all(torch.equal(step.signal, by_layer[step.layer]) for step in steps)
    assert {"3", "2", "0"} <= {step.layer for step in steps}
    units, positions = torch.tensor([2]), torch.tensor([[1, 2]])
    one, other = (project_positions(net, X[None], "3", units, positions) for net in (inplace, plain))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])


# Operations without an adjoint: the message says what to write instead, which has one.


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 3 * grad * ctx.saved_tensors[0] ** 2


ADVISED: dict[str, tuple[Step, str, Step]] = {
    "power": (lambda x: x.abs() ** 1.5, "x ** 2", lambda x: x**2),
    "deviation": (lambda x: x * x.std(), ".detach()", lambda x: x * x.std().detach()),
    "custom function": (Cube.apply, "instead of Cube.apply (a custom autograd.F", lambda x: x * x * x),
    "written by a mask": (
        lambda x: x.index_put((x > 0,), 2 * x[x > 0]),
        "write y = torch.where(mask",
        lambda x: x.index_put((torch.tensor(0), ORDER), 2 * x[0]),
    ),
    "cumulative product": (lambda x: x.cumprod(1), "sums, products and convolutions", lambda x: x),
}  # fmt: skip


@pytest.mark.parametrize("name", ADVISED)
def test_the_message_says_what_to_write_instead(name: str) -> None:
    step, advice, instead = ADVISED[name]
    with pytest.raises(
        UserError, match=rf"no adjoint of \w+ \(\w+\),.*In the network, .*{re.escape(advice)}"
    ):
        project_both_ways(step, step)
    assert_same(project_both_ways(instead, instead))


CONVOLUTIONS: list[tuple[type[nn.Module], dict[str, Any]]] = [
    (nn.Conv2d, {"kernel_size": 3, "padding": 1}),
    (nn.Conv2d, {"kernel_size": (3, 2), "padding": (2, 0), "dilation": (2, 1)}),
    (nn.Conv2d, {"kernel_size": 1, "padding": 2}),  # padding wider than the filter
    (nn.Conv2d, {"kernel_size": 3, "stride": 2, "padding": 1}),
    (nn.Conv2d, {"kernel_size": 3, "groups": 2}),
    (nn.ConvTranspose2d, {"kernel_size": 3, "padding": 1}),
    (nn.Conv1d, {"kernel_size": 4, "padding": 2}),
    (nn.Conv3d, {"kernel_size": (1, 3, 2)}),
]


@pytest.mark.parametrize(("kind", "arguments"), CONVOLUTIONS)
def test_projecting_from_a_convolution_is_its_gradient(kind: Any, arguments: dict[str, Any]) -> None:
    """The gradient of half the sum of the squares of a unit's rectified map, in the order of the units."""
    axes = int(kind.__name__[-2])
    torch.manual_seed(0)
    conv = kind(4, 6, **arguments).double()
    x = torch.randn(4, *[7, 8, 5][:axes], dtype=torch.float64, requires_grad=True)
    maps = conv(x[None])[0].relu()
    units = [4, 0, 4]
    expected = [torch.autograd.grad(maps[unit].square().sum() / 2, x, retain_graph=True)[0] for unit in units]
    torch.testing.assert_close(project(nn.Sequential(conv), x, "0", units), torch.stack(expected))


def test_a_unit_that_is_nowhere_positive_projects_to_zeros() -> None:
    net = nn.Sequential(nn.Conv2d(4, 3, 3), nn.GroupNorm(3, 3)).double()
    nn.init.constant_(net[1].bias, -1e9)
    for select in ("map", "peak"):
        assert not project(net, X, "1", select=select).any()


@pytest.mark.parametrize("x", [X.float(), X.bfloat16()])
def test_other_precisions_and_a_network_within_no_grad(x: Tensor) -> None:
    net = nn.Sequential(nn.Conv2d(4, 3, 3), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(3, 2, 1)).to(x.dtype)
    with torch.no_grad():
        projections = project(net, x, "3")
    assert projections.dtype == x.dtype
    exact = project(net.double(), x.double(), "3")
    torch.testing.assert_close(projections.double(), exact, rtol=0.1, atol=0.05 * float(exact.abs().max()))


def test_onednn_is_on_again_after_a_backward_pass_that_fails() -> None:
    x = torch.rand(1, 3, 8, 8, requires_grad=True)
    convolved = F.conv2d(x, torch.rand(4, 3, 3, 3))
    node = convolved.grad_fn
    assert node is not None
    enabled = torch.backends.mkldnn.enabled
    with pytest.raises(RuntimeError), attach_gradient_rules(node, {}):
        node.register_prehook(lambda grad_output: (grad_output[0][:, :1],))  # of the wrong shape
        torch.autograd.grad(convolved.sum(), x)
    assert torch.backends.mkldnn.enabled == enabled
