"""The deconvnet against Captum, an autograd adjoint with its ReLU rule, and transposed filters by hand.

Both the sequential example, for chains, and `project`, for any network. All but one test use float64, so
that 1e-5 is far above rounding.
"""

import copy
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torchvision
from captum.attr import Deconvolution
from torch import Tensor, nn
from torch.nn import functional as F

from convatlas import UserError
from convatlas.attribution.deconvnet import (
    Select,
    make_seed_signal,
    project,
    project_positions,
    project_stepwise,
)
from convatlas.attribution.sequential_deconvnet import Deconvnet
from convatlas.models.architectures.lenet5 import lenet5
from convatlas.models.architectures.simple_cnn import simple_cnn
from convatlas.tracing.layer_kinds import FUNCTION_KINDS, module_kind
from convatlas.tracing.record import record

LENET5 = ["conv1", "relu1", "pool1", "conv2", "relu2", "pool2"]
SIMPLE_CNN = ["conv1", "relu1", "conv2", "relu2", "conv3", "relu3", "pool1"]
BUNDLED = [("lenet5", layer) for layer in LENET5] + [("simple_cnn", layer) for layer in SIMPLE_CNN]
SELECTS: list[Select] = ["map", "peak"]

# Chains besides the bundled networks, each with the side of its input.
CHAINS: dict[str, tuple[int, list[nn.Module]]] = {
    "overlapping pools": (
        15,
        [
            *[nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(3, 2)],
            *[nn.Conv2d(3, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 1)],
        ],
    ),
    "padded pools": (
        12,
        [nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1), nn.MaxPool2d(2, 2, ceil_mode=True)],
    ),
    "uneven pools": (
        13,
        [nn.Conv2d(2, 3, 2), nn.ReLU(), nn.MaxPool2d((2, 3), (1, 2)), nn.MaxPool2d(2, 1, dilation=2)],
    ),
    "strides that leave a rest": (
        16,
        [nn.Conv2d(2, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 3, 3, stride=3, padding=1), nn.ReLU()],
    ),
    "padding, dilation": (
        11,
        [nn.Conv2d(2, 3, 3, padding=2, dilation=2), nn.ReLU(), nn.Conv2d(3, 2, 1, padding=1), nn.ReLU()],
    ),
    "uneven filters": (
        14,
        [nn.Conv2d(2, 3, (2, 5), stride=(3, 2), padding=(1, 3), dilation=(2, 1)), nn.ReLU(), nn.MaxPool2d(2)],
    ),
    "groups, depthwise": (
        9,
        [
            nn.Conv2d(2, 4, 3, groups=2),
            nn.ReLU(),
            nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=4),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, groups=8),
            nn.MaxPool2d(2),
        ],
    ),
    "no activation between": (
        10,
        [nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 3), nn.MaxPool2d(2), nn.Conv2d(3, 2, 2)],
    ),
    "an activation first": (6, [nn.ReLU(), nn.Conv2d(2, 3, 3), nn.ReLU()]),
    "linear, dropout": (
        7,
        [
            nn.Conv2d(2, 3, 3),
            nn.ReLU(),
            nn.Dropout2d(),
            nn.Flatten(),
            nn.Identity(),
            nn.Linear(75, 9),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(9, 5),
        ],
    ),
    "nested": (
        10,
        [
            nn.Sequential(nn.Conv2d(2, 3, 3), nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))),
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()),
        ],
    ),
}


class RectifiedSignal(torch.autograd.Function):
    """An activation with the deconvnet's backward pass: rectify the signal, whatever the forward pass did."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: nn.Module) -> Tensor:
        with torch.no_grad():
            return activation(x.clone())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.clamp(min=0), None


class Ruled(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return RectifiedSignal.apply(x, self.activation)


def list_leaves(net: nn.Sequential, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """Return the leaves of nested nn.Sequentials by their dotted paths; no module is used twice here."""
    leaves = []
    for name, module in net.named_children():
        nested = isinstance(module, nn.Sequential)
        leaves += list_leaves(module, f"{prefix}{name}.") if nested else [(prefix + name, module)]
    return leaves


def up_to(net: nn.Sequential, layer: str) -> list[nn.Module]:
    names = [name for name, _ in list_leaves(net)]
    return [module for _, module in list_leaves(net)][: names.index(layer) + 1]


def adjoint(
    net: nn.Sequential, layer: str, x: Tensor, select: Select, units: list[int] | None = None
) -> Tensor:
    """Return the same projections by autograd: the adjoint of the chain, with the rule at its activations."""
    kind = "torch.nn.modules.activation"
    steps = [Ruled(m) if type(m).__module__ == kind else m for m in up_to(net, layer)]
    x = x.clone().requires_grad_()
    top = nn.Sequential(*steps)(x)
    start = top.detach().clamp(min=0)
    if select == "peak":
        peaks = start.flatten(2).argmax(-1) if start.ndim > 2 else torch.zeros(start.shape, dtype=torch.long)
        places = torch.arange(start[0, 0].numel())
        start = start * (places == peaks[..., None]).reshape(start.shape)
    maps = []
    for unit in range(top.shape[1]) if units is None else units:
        isolated = torch.zeros_like(start)
        isolated[:, unit] = start[:, unit]
        maps.append(torch.autograd.grad(top, x, isolated, retain_graph=True)[0])
    return torch.stack(maps, 1)


class Selected(nn.Module):
    """A head for Captum: for row i the peak of unit i, or a scalar whose gradient is the map of unit i."""

    def __init__(self, chain: list[nn.Module], select: Select) -> None:
        super().__init__()
        self.chain, self.select = nn.Sequential(*chain), select
        self.units: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        top = self.chain(x)
        units = torch.arange(len(x)) % top.shape[1] if self.units is None else self.units
        a = top[torch.arange(len(x)), units].flatten(1)
        if self.select == "peak":
            return a.max(1).values
        a = F.relu(a)  # a function, which Captum does not hook: it masks, as the rectified seed does
        return (a * a.detach()).sum(1)


def captum(net: nn.Sequential, layer: str, x: Tensor, select: Select) -> Tensor:
    """Return Captum's Deconvolution of every unit; its seeds are ones, so peaks are multiplied afterwards."""
    head = Selected(up_to(copy.deepcopy(net), layer), select)
    with torch.no_grad():
        units = head.chain(x).shape[1]
        copies = x.repeat_interleave(units, 0)
        peaks = head(copies).clamp(min=0)
    maps = Deconvolution(head).attribute(copies)
    if select == "peak":
        maps = maps * peaks[:, None, None, None]
    return maps.detach().unflatten(0, (len(x), units))


def project_each(net: nn.Module, layer: str, x: Tensor, select: Select = "map") -> Tensor:
    """Return what `project` computes for each image: (N, units, C, H, W)."""
    return torch.stack([project(net, image, layer, select=select) for image in x])


def assert_projections(projections: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    """Check that each projection differs by at most a share of its largest value; a zero one not at all."""
    assert projections.shape == expected.shape
    assert projections.dtype == expected.dtype
    scale = expected.abs().amax((-3, -2, -1))
    error = (projections - expected).abs().amax((-3, -2, -1))
    assert (error <= tolerance * scale).all(), (error / scale).max()


def randomise(net: nn.Sequential, dead: int = 0) -> nn.Sequential:
    """Return a network in float64 and evaluation mode with seeded weights and `dead` dead units per conv."""
    torch.manual_seed(0)
    for module in net.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
        if isinstance(module, nn.Conv2d):
            module.bias.data[:dead] = -1e6
    return net.double().eval()


def images(n: int, channels: int, side: int) -> Tensor:
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(1)).double()


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    """Use one thread: on tensors this small several threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def nets() -> dict[str, tuple[nn.Sequential, Tensor]]:
    """Return the bundled networks, with two dead units in each convolution, and two images for each."""
    built = {"lenet5": (lenet5(), 28), "simple_cnn": (simple_cnn(), 50)}
    return {name: (randomise(net, dead=2), images(2, 1, side)) for name, (net, side) in built.items()}


@pytest.fixture
def lenet() -> nn.Sequential:
    return randomise(lenet5())


def make_chain(name: str) -> tuple[nn.Sequential, Tensor]:
    side, modules = CHAINS[name]
    return randomise(nn.Sequential(*copy.deepcopy(modules))), images(2, 2, side)


# The bundled networks, every conv, ReLU and pool layer, all units.


@pytest.mark.parametrize("select", SELECTS)
@pytest.mark.parametrize(("name", "layer"), BUNDLED)
def test_equals_the_autograd_adjoint(nets: dict, name: str, layer: str, select: Select) -> None:
    net, x = nets[name]
    expected = adjoint(net, layer, x, select)
    assert_projections(Deconvnet(net, layer)(x, select=select), expected)
    assert_projections(project_each(net, layer, x, select), expected)


@pytest.mark.parametrize("select", SELECTS)
@pytest.mark.parametrize(("name", "layer"), BUNDLED)
@pytest.mark.filterwarnings("ignore:Setting backward hooks", "ignore:Input Tensor")
def test_equals_captum(nets: dict, name: str, layer: str, select: Select) -> None:
    net, x = nets[name]
    assert_projections(Deconvnet(net, layer)(x, select=select), captum(net, layer, x, select))


@pytest.mark.parametrize("select", SELECTS)
@pytest.mark.parametrize(("name", "layer"), BUNDLED)
def test_dead_units_are_exactly_zero_and_no_others(nets: dict, name: str, layer: str, select: Select) -> None:
    net, x = nets[name]
    projections = Deconvnet(net, layer)(x, select=select)
    dead = nn.Sequential(*up_to(net, layer))(x).flatten(2).amax(-1) <= 0
    assert dead[:, :2].all()
    assert torch.equal(~projections.flatten(2).any(-1), dead)
    assert torch.equal(~project_each(net, layer, x, select).flatten(2).any(-1), dead)


@pytest.mark.parametrize("select", SELECTS)
@pytest.mark.parametrize(
    ("name", "conv", "relu"), [("lenet5", "conv2", "relu2"), ("simple_cnn", "conv3", "relu3")]
)
def test_a_convolution_projects_as_its_relu(
    nets: dict, name: str, conv: str, relu: str, select: Select
) -> None:
    net, x = nets[name]
    assert torch.equal(Deconvnet(net, conv)(x, select=select), Deconvnet(net, relu)(x, select=select))


@pytest.mark.parametrize("layer", ["flatten", "fc1", "relu3", "fc2", "relu4", "fc3"])
@pytest.mark.parametrize("select", SELECTS)
def test_flatten_and_linear_layers_equal_the_adjoint(
    lenet: nn.Sequential, layer: str, select: Select
) -> None:
    x, units = images(2, 1, 28), [0, 7, 3]
    projections = Deconvnet(lenet, layer)(x, units, select)
    assert_projections(projections, adjoint(lenet, layer, x, select, units))


def test_projections_of_pool2_by_hand(lenet: nn.Sequential) -> None:
    """Unpool into the switches, rectify, filter with the transposed filters; nothing after the pixels."""
    x = images(1, 1, 28)
    one = F.relu(F.conv2d(x, lenet.conv1.weight, lenet.conv1.bias, padding=2))
    pooled, first = F.max_pool2d(one, 2, return_indices=True)
    two = F.relu(F.conv2d(pooled, lenet.conv2.weight, lenet.conv2.bias))
    top, second = F.max_pool2d(two, 2, return_indices=True)
    signal = top * torch.eye(16).double()[:, :, None, None]  # one row per unit, zeros in all other channels
    signal = F.relu(F.max_unpool2d(signal, second.expand(16, -1, -1, -1), 2))
    signal = F.conv_transpose2d(signal, lenet.conv2.weight)
    signal = F.relu(F.max_unpool2d(signal, first.expand(16, -1, -1, -1), 2))
    signal = F.conv_transpose2d(signal, lenet.conv1.weight, padding=2)
    projections = Deconvnet(lenet, "pool2")(x)
    assert_projections(projections, signal[None])
    assert (projections < 0).any()
    assert (projections > 0).any()


def test_float32_is_within_1e_5_of_float64() -> None:
    net, x = randomise(lenet5()), images(2, 1, 28)
    exact = [Deconvnet(net, "pool2")(x, select=select) for select in SELECTS]
    projections = [Deconvnet(net.float(), "pool2")(x.float(), select=select) for select in SELECTS]
    for rounded, expected in zip(projections, exact, strict=True):
        assert rounded.dtype == torch.float32
        assert_projections(rounded.double(), expected, 1e-5)


def test_lenet5_has_22_reconstructions_of_28_by_28(lenet: nn.Sequential) -> None:
    shapes = [Deconvnet(lenet, layer)(images(4, 1, 28)).shape for layer in ("pool1", "pool2")]
    assert shapes == [(4, 6, 1, 28, 28), (4, 16, 1, 28, 28)]


# Other chains.


@pytest.mark.parametrize("select", SELECTS)
@pytest.mark.parametrize("name", CHAINS)
def test_every_layer_of_other_chains_equals_the_adjoint(name: str, select: Select) -> None:
    net, x = make_chain(name)
    for layer, _ in list_leaves(net):
        expected = adjoint(net, layer, x, select)
        assert_projections(Deconvnet(net, layer)(x, select=select), expected)
        assert_projections(project_each(net, layer, x, select), expected)


@pytest.mark.parametrize("side", [11, 12, 13, 14, 15])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (5, 3, 0), (1, 4, 0), (2, 3, 1)])
def test_sizes_that_leave_a_remainder_are_restored(side: int, kernel: int, stride: int, padding: int) -> None:
    net = randomise(nn.Sequential(nn.Conv2d(2, 3, kernel, stride, padding), nn.ReLU()))
    x = images(1, 2, side)
    assert_projections(Deconvnet(net, "1")(x), adjoint(net, "1", x, "map"))
    assert_projections(project_each(net, "1", x), adjoint(net, "1", x, "map"))


def test_overlapping_switches_add_up() -> None:
    net, x = nn.Sequential(nn.Identity(), nn.MaxPool2d(3, 2)), torch.zeros(1, 1, 5, 5).double()
    x[0, 0, 2, 2] = 7.0  # in all four windows
    expected = torch.zeros_like(x)
    expected[0, 0, 2, 2] = 28.0
    assert torch.equal(Deconvnet(net, "1")(x)[0], expected)
    assert torch.equal(project(net, x[0], "1"), expected)


def test_the_peak_of_one_convolution_is_its_filter_times_the_activation() -> None:
    net = randomise(nn.Sequential(nn.Conv2d(2, 3, (3, 4)), nn.ReLU()))
    x = images(1, 2, 9)
    projections = Deconvnet(net, "0")(x, select="peak")[0]
    for unit, plane in enumerate(net(x)[0]):
        row, column = divmod(int(plane.argmax()), plane.shape[1])
        expected = torch.zeros(2, 9, 9).double()
        expected[:, row : row + 3, column : column + 4] = net[0].weight[unit] * plane.max()
        torch.testing.assert_close(projections[unit], expected)


def test_a_relu_used_twice_rectifies_twice() -> None:
    relu = nn.ReLU()
    shared = randomise(nn.Sequential(nn.Conv2d(1, 4, 3), relu, nn.Conv2d(4, 4, 3), relu, nn.Conv2d(4, 2, 3)))
    separate = copy.deepcopy(shared)
    separate[3] = nn.ReLU()
    x = images(2, 1, 12)
    assert_projections(Deconvnet(shared, "4")(x), adjoint(separate, "4", x, "map"))


def test_a_later_call_of_a_layer_can_be_chosen() -> None:
    relu = nn.ReLU()
    net = randomise(nn.Sequential(nn.Conv2d(1, 4, 3), relu, nn.Conv2d(4, 4, 3), relu))
    separate = copy.deepcopy(net)
    separate[3] = nn.ReLU()
    x = images(2, 1, 12)
    assert_projections(Deconvnet(net, "1:2")(x), adjoint(separate, "3", x, "map"))


# Units and images.


@pytest.mark.parametrize("layer", ["conv2", "pool2", "fc2"])
def test_units_are_returned_in_the_order_given(lenet: nn.Sequential, layer: str) -> None:
    x = images(2, 1, 28)
    projections = Deconvnet(lenet, layer)(x)
    assert_projections(Deconvnet(lenet, layer)(x, [5, 0, 5]), projections[:, [5, 0, 5]])


def test_units_of_a_grouped_convolution() -> None:
    net, x = make_chain("groups, depthwise")
    for layer, _ in list_leaves(net):
        assert_projections(Deconvnet(net, layer)(x, [3, 1]), Deconvnet(net, layer)(x)[:, [3, 1]])


@pytest.mark.parametrize("select", SELECTS)
@pytest.mark.parametrize("layer", ["relu1", "pool2", "fc1"])
def test_a_batch_equals_its_images_one_at_a_time(lenet: nn.Sequential, layer: str, select: Select) -> None:
    x = images(3, 1, 28)
    deconvnet = Deconvnet(lenet, layer)
    single = torch.cat([deconvnet(image[None], select=select) for image in x])
    assert_projections(deconvnet(x, select=select), single)


def test_the_seed_is_the_rectified_activation() -> None:
    a = torch.tensor([[[[-2.0, 3.0], [3.0, 1.0]], [[-1.0, -4.0], [-1.0, 0.0]]]])
    assert make_seed_signal(a, "map").tolist() == [[[[0, 3], [3, 1]], [[0, 0], [0, 0]]]]
    assert make_seed_signal(a, "peak").tolist() == [[[[0, 3], [0, 0]], [[0, 0], [0, 0]]]]
    assert make_seed_signal(torch.tensor([[2.0, -1.0]]), "peak").tolist() == [[2, 0]]
    with pytest.raises(ValueError, match="top"):
        make_seed_signal(a, "top")


def test_weights_are_shared_and_unchanged(lenet: nn.Sequential) -> None:
    before = {name: tensor.clone() for name, tensor in lenet.state_dict().items()}
    deconvnet = Deconvnet(lenet, "fc2")
    x = images(1, 1, 28)
    deconvnet(x)
    deconvnet(x, select="peak")
    deconvnet.train()
    assert not lenet.training
    for name, tensor in lenet.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    with torch.no_grad():
        lenet.conv1.weight.mul_(-2).add_(0.1)
    assert torch.equal(deconvnet(x), Deconvnet(lenet, "fc2")(x))


@pytest.mark.parametrize("layer", ["conv1", "pool2", "fc2"])
def test_no_gradient_is_kept(lenet: nn.Sequential, layer: str) -> None:
    x = images(1, 1, 28).requires_grad_()
    assert not Deconvnet(lenet, layer)(x).requires_grad
    assert not project(lenet, x[0], layer).requires_grad
    assert x.grad is None
    assert all(parameter.grad is None for parameter in lenet.parameters())


# Errors of the sequential deconvnet.


def test_an_unknown_layer_is_an_error_that_lists_the_layers(lenet: nn.Sequential) -> None:
    with pytest.raises(UserError, match=r"no layer 'pool3'.*conv1, relu1, pool1"):
        Deconvnet(lenet, "pool3")


NO_RELU = [
    nn.LeakyReLU(),
    nn.Hardtanh(),
    nn.SiLU(),
    nn.GELU(),
    nn.Hardswish(),
    nn.ELU(),
    nn.Tanh(),
    nn.Sigmoid(),
]


@pytest.mark.parametrize("activation", NO_RELU, ids=lambda module: type(module).__name__)
def test_another_activation_is_refused_by_name_unless_rectified(activation: nn.Module) -> None:
    steps = OrderedDict(conv=nn.Conv2d(1, 3, 3), bend=activation, last=nn.Conv2d(3, 2, 3))
    net, x = randomise(nn.Sequential(steps)), images(2, 1, 9)
    with pytest.raises(UserError, match=f"layer 'bend' is a {type(activation).__name__}"):
        Deconvnet(net, "last")(x)
    with pytest.raises(UserError, match=r"these activations are none: bend \(\w+\); .*rectify"):
        project(net, x[0], "last")
    Deconvnet(net, "conv")(x)  # no activation on the way
    project(net, x[0], "conv")
    for layer in ("bend", "last"):
        for select in SELECTS:
            for image, expected in zip(x, adjoint(net, layer, x, select), strict=True):
                projections = project(net, image, layer, select=select, rectify=True)
                assert_projections(projections, expected)


def test_relu6_is_a_rectifier() -> None:
    steps = OrderedDict(conv=nn.Conv2d(1, 3, 3), relu6=nn.ReLU6(), last=nn.Conv2d(3, 2, 3))
    net, x = randomise(nn.Sequential(steps)), 50 * images(2, 1, 9)
    assert net[:2](x).max() == 6
    assert module_kind(net.relu6) == FUNCTION_KINDS["hardtanh"] == "activation"
    for layer in ("relu6", "last"):
        for select in SELECTS:
            expected = adjoint(net, layer, x, select)
            assert_projections(project_each(net, layer, x, select), expected)
            assert_projections(Deconvnet(net, layer)(x, select=select), expected)


class Composite(nn.Module):
    """A block with a ReLU that is no module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))


class Residual(nn.Sequential):
    """A subclass of nn.Sequential that is no chain."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Functional(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


@pytest.mark.parametrize("net", [Composite(), nn.Sequential(Composite())], ids=["network", "submodule"])
def test_a_network_that_is_no_chain_is_refused(net: nn.Module) -> None:
    with pytest.raises(UserError, match=r"chain of layers.*not from Composite"):
        Deconvnet(net, "0.conv")


@pytest.mark.parametrize("inside", [False, True], ids=["network", "submodule"])
def test_a_sequential_with_a_forward_pass_of_its_own_is_no_chain(inside: bool) -> None:
    block = Residual(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU())
    with pytest.raises(UserError, match="Residual"):
        Deconvnet(nn.Sequential(block) if inside else block, "0.1" if inside else "1")


@pytest.mark.parametrize(
    "module",
    [
        nn.BatchNorm2d(3),
        nn.AvgPool2d(2),
        nn.AdaptiveMaxPool2d(2),
        nn.Upsample(scale_factor=2),
        nn.ConvTranspose2d(3, 2, 2),
        nn.Conv2d(3, 2, 3, padding="same"),
        nn.Conv2d(3, 2, 3, padding=1, padding_mode="reflect"),
        nn.Flatten(2),
        Functional(),
    ],
    ids=repr,
)
def test_a_layer_of_another_kind_is_an_error_that_names_it(module: nn.Module) -> None:
    net = nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 3, 3), odd=module)).eval()
    with pytest.raises(UserError, match=f"layer 'odd' is a {type(module).__name__}.*project takes any"):
        Deconvnet(net, "odd")(images(1, 1, 9).float())
    assert project(net, images(1, 1, 9)[0].float(), "odd").shape[1:] == (1, 9, 9)


def test_layers_above_the_chosen_one_do_not_matter(lenet: nn.Sequential) -> None:
    with pytest.raises(UserError, match="'log_softmax' is a LogSoftmax"):
        Deconvnet(lenet, "log_softmax")(images(1, 1, 28))
    assert Deconvnet(lenet, "fc3")(images(1, 1, 28)).shape == (1, 10, 1, 28, 28)


@pytest.mark.parametrize("units", [[6], [-1], [0, 99]])
def test_units_that_do_not_exist_are_named(lenet: nn.Sequential, units: list[int]) -> None:
    with pytest.raises(UserError, match=r"conv1 has no units .* it has 6"):
        Deconvnet(lenet, "conv1")(images(1, 1, 28), units)
    with pytest.raises(UserError, match=r"conv1 has no units .* it has 6"):
        project(lenet, images(1, 1, 28)[0], "conv1", units)


def test_no_units_give_no_projections(lenet: nn.Sequential) -> None:
    assert Deconvnet(lenet, "pool2")(images(2, 1, 28), []).shape == (2, 0, 1, 28, 28)
    assert project(lenet, images(1, 1, 28)[0], "pool2", []).shape == (0, 1, 28, 28)


# Any network.


class Modular(nn.Module):
    """A residual block of torchvision with a ReLU module per call, none in place, as Captum needs them."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.convs = [getattr(block, f"conv{n}") for n in (1, 2, 3) if hasattr(block, f"conv{n}")]
        self.bns = [getattr(block, f"bn{n}") for n in range(1, len(self.convs) + 1)]
        self.relus = nn.ModuleList(nn.ReLU() for _ in self.convs)

    def forward(self, x: Tensor) -> Tensor:
        short = x if self.block.downsample is None else self.block.downsample(x)
        *first, (conv, bn, last) = zip(self.convs, self.bns, self.relus, strict=True)
        for c, b, relu in first:
            x = relu(b(c(x)))
        return last(bn(conv(x)) + short)


def modular(net: nn.Module) -> nn.Module:
    """Return a copy of a torchvision ResNet or VGG that Captum takes, with the same weights."""
    net = copy.deepcopy(net)
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, torchvision.models.resnet.BasicBlock | torchvision.models.resnet.Bottleneck):
                setattr(parent, name, Modular(child))
            elif isinstance(child, nn.ReLU):
                setattr(parent, name, nn.ReLU())
    return net


class UpTo(nn.Module):
    """Runs some modules of a network, one after the other."""

    def __init__(self, net: nn.Module, steps: list[str]) -> None:
        super().__init__()
        self.steps = nn.Sequential(*(net.get_submodule(step) for step in steps))

    def forward(self, x: Tensor) -> Tensor:
        return self.steps(x)


STEM = ["conv1", "bn1", "relu", "maxpool"]
BLOCKS = {
    "resnet18": ["layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0"],
    "resnet50": ["layer1.0", "layer1.1", "layer1.2", "layer2.0", "layer2.1"],
}
FEATURES = [f"features.{n}" for n in range(29)]
CAPTUM: list[tuple[str, str, list[str]]] = [
    *[("resnet18", step, STEM[: n + 1]) for n, step in enumerate(STEM)],
    *[
        (net, f"{block}.relu:{2 + (net == 'resnet50')}", STEM + every[: n + 1])
        for net, every in BLOCKS.items()
        for n, block in enumerate(every)
        if n % 2 == 0
    ],
    *[("vgg11_bn", f"features.{n}", FEATURES[: n + 1]) for n in (3, 6, 16, 28)],
]


@pytest.fixture(scope="module")
def published() -> dict[str, nn.Module]:
    """Return torchvision's networks in float64, with random batch-norm statistics."""
    nets = {}
    for name in ("resnet18", "resnet50", "vgg11_bn"):
        torch.manual_seed(0)
        net = torchvision.models.get_model(name, weights=None).double()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.normal_(module.bias, 0, 0.2)
        nets[name] = net.eval()
    return nets


@pytest.mark.parametrize(("name", "layer", "steps"), CAPTUM, ids=[f"{n}-{layer}" for n, layer, _ in CAPTUM])
@pytest.mark.filterwarnings("ignore:Setting backward hooks", "ignore:Input Tensor")
def test_torchvision_networks_equal_captum(
    published: dict[str, nn.Module], name: str, layer: str, steps: list[str]
) -> None:
    """Blocks, shortcuts with strides, batch norm, an overlapping pool; ReLUs reused and in place in ours."""
    net, x = published[name], images(1, 3, 64)
    units = [0, 5, 30]
    for select in SELECTS:
        head = Selected([UpTo(modular(net), steps)], select)
        expected = []
        for unit in units:
            head.units = torch.tensor([unit])
            with torch.no_grad():
                peak = head(x).clamp(min=0)
            down = Deconvolution(head).attribute(x)
            expected.append(down * peak if select == "peak" else down)
        projections = project(net, x[0], layer, units, select)
        assert_projections(projections, torch.cat(expected).detach())
        assert projections.any()


class Mixed(nn.Module):
    """Functional, in-place and reused ReLUs, a sum, a concatenation, an overlapping pool, batch norm."""

    def __init__(self, plain: bool) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.conv3, self.bn, self.relu = (
            nn.Conv2d(8, 3, 3, stride=2),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
        )
        self.plain = plain

    def forward(self, x: Tensor) -> Tensor:
        rule = Ruled(nn.ReLU())
        if self.plain:
            a = rule(self.conv1(x))
            b = rule(self.bn(self.conv2(a)) + a)
            c = F.max_pool2d(torch.cat([a, b], 1), 3, 2)
            return rule(self.conv3(rule(c)))
        a = F.relu(self.conv1(x), inplace=True)
        b = self.bn(self.conv2(a))
        b += a
        c = F.max_pool2d(torch.cat([a, self.relu(b)], 1), 3, 2)
        return self.relu(self.conv3(c.clamp(min=0)))


@pytest.mark.parametrize("select", SELECTS)
def test_relus_of_every_kind_follow_the_rule(select: Select) -> None:
    torch.manual_seed(0)
    net, x = Mixed(plain=False).double().eval(), images(1, 2, 13)
    plain = Mixed(plain=True).double().eval()
    plain.load_state_dict(net.state_dict())
    expected = adjoint(nn.Sequential(plain), "0", x, select)
    assert_projections(project_each(net, "relu:3", x, select), expected)


def test_the_forward_pass_runs_once_and_no_further_than_the_layer(lenet: nn.Sequential) -> None:
    ran: list[str] = []
    for name, module in lenet.named_children():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    project(lenet, images(1, 1, 28)[0], "conv2")
    assert ran == ["conv1", "relu1", "pool1", "conv2"]


def test_project_leaves_the_network_as_it_was() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Dropout()).double()
    net[3].eval()
    net[0].bias.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    x = images(1, 1, 9)[0]
    copied = x.clone()
    for layer, fault in (("2", None), ("9", UserError)):
        if fault is None:
            with torch.no_grad():
                project(net, x, layer)
        else:
            with pytest.raises(fault):
                project(net, x, layer)
        assert [module.training for module in net.modules()] == [True, True, True, True, False]
        assert [p.requires_grad for p in net.parameters()] == [True, False, True, True]
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert torch._C._get_mkldnn_enabled()
    assert torch.equal(x, copied)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_many_units_at_once_equal_one_at_a_time() -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Conv2d(1, 40, 3), nn.ReLU(), nn.Conv2d(40, 37, 3)).double(), images(1, 1, 9)[0]
    projections = project(net, x, "2")
    assert projections.shape == (37, 1, 9, 9)
    units = [36, 0, 16, 15, 15]
    assert_projections(project(net, x, "2", units), projections[units])
    assert_projections(torch.cat([project(net, x, "2", [unit]) for unit in units]), projections[units])


def test_a_block_can_be_projected_by_its_name() -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(Composite(), nn.Sequential(Composite())).double(), images(1, 3, 9)[0]
    assert torch.equal(project(net, x, "1.0"), project(net, x, "1.0/relu"))
    assert torch.equal(project(net, x, "1"), project(net, x, "1.0/relu"))


def test_the_peak_is_the_first_in_raster_order() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False)).double()
    nn.init.ones_(net[0].weight)
    x = torch.tensor([[[0.0, 2.0], [2.0, 1.0]]]).double()
    assert project(net, x, "0", select="peak").tolist() == [[[[0, 2], [0, 0]]]]


@pytest.mark.parametrize("select", SELECTS)
@pytest.mark.parametrize("layer", ["conv1", "pool2", "fc1"])
def test_a_batch_is_projected_image_by_image(lenet: nn.Sequential, layer: str, select: Select) -> None:
    x = images(3, 1, 28)
    projections = project(lenet, x, layer, [2, 0], select)
    assert projections.shape == (3, 2, 1, 28, 28)
    for image, expected in zip(x, projections, strict=True):
        assert torch.equal(project(lenet, image, layer, [2, 0], select), expected)


class FoldPatches(nn.Module):
    """Folds the quarters of an image into the batch axis, as MobileViT folds patches into it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.mix, self.top = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 5, 1), nn.Linear(5, 2)
        self.flat = nn.Flatten(0)

    def forward(self, x: Tensor) -> Tensor:
        quarters = torch.cat([part for half in self.conv(x).chunk(2, 2) for part in half.chunk(2, 3)])
        return self.flat(self.top(self.mix(quarters).flatten(2).mT))


@pytest.mark.parametrize("layer", ["mix", "top", "flat"])
@pytest.mark.parametrize("select", SELECTS)
def test_the_units_are_those_of_the_record_where_patches_are_folded_into_the_batch_axis(
    layer: str, select: Select
) -> None:
    torch.manual_seed(0)
    network, image = FoldPatches().double(), images(1, 1, 10)[0]
    planes = record(network, image).outputs[layer]
    projections = project(network, image, layer, select=select)
    assert len(projections) == len(planes)
    for unit, plane in enumerate(planes.relu()):
        seed = plane if select == "map" else plane * (plane == plane.max())

        def weigh_unit(x: Tensor, unit: int = unit, seed: Tensor = seed) -> Tensor:
            outputs: list[Tensor] = []
            handle = network.get_submodule(layer).register_forward_hook(lambda m, i, o: outputs.append(o))
            network(x[None])
            handle.remove()
            return (outputs[0][unit] * seed).sum()

        expected = torch.autograd.functional.vjp(weigh_unit, image)[1]
        torch.testing.assert_close(projections[unit], expected)
    top, *_, bottom = project_stepwise(network, image, layer, 1, select)
    assert top.signal.shape == planes.shape
    assert torch.equal(bottom.signal, projections[1])


# Errors of project.


@pytest.mark.parametrize("shape", [(3, 28, 28), (1, 20, 20), (2, 3, 28, 28), (28, 28)])
def test_an_input_that_the_network_does_not_take_is_one_clear_error(
    lenet: nn.Sequential, shape: tuple[int, ...]
) -> None:
    with pytest.raises(UserError, match=r"the network does not take an input of shape \(1, "):
        project(lenet, torch.zeros(shape).double(), "fc1")


def test_an_empty_input_and_a_single_number_of_a_unit_are_errors(lenet: nn.Sequential) -> None:
    with pytest.raises(UserError, match=r"x has the shape \(0, 1, 28, 28\); give one image"):
        project(lenet, images(0, 1, 28), "conv1")
    with pytest.raises(UserError, match=r"such as \[3\], not 3"):
        project(lenet, images(1, 1, 28)[0], "conv1", 3)  # type: ignore[arg-type]


def test_positions_of_a_layer_without_a_batch_axis_are_an_error() -> None:
    ones = torch.ones(2, dtype=torch.int64)
    with pytest.raises(UserError, match=r"'mix' has no batch axis: its output for 2 images .*\(8, 5, 4, 4\)"):
        project_positions(FoldPatches().double(), images(2, 1, 10), "mix", ones, ones[:, None].expand(2, 2))


@pytest.mark.parametrize("select", ["top", "", None])
def test_an_unknown_selection_is_refused(lenet: nn.Sequential, select: Any) -> None:
    with pytest.raises(ValueError, match="'map' or 'peak'"):
        project(lenet, images(1, 1, 28)[0], "conv1", select=select)


def test_project_names_the_nearest_layers(lenet: nn.Sequential) -> None:
    with pytest.raises(UserError, match=r"no layer 'pool3' to project from; did you mean 'pool[12]'\?"):
        project(lenet, images(1, 1, 28)[0], "pool3")


class Learned(nn.Module):
    """Adds a learned image to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.learned, self.conv = nn.Parameter(torch.ones(1, 1, 9, 9)), nn.Conv2d(1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(self.learned.to(x.dtype))


@pytest.mark.parametrize("detach", [False, True])
def test_a_layer_that_does_not_depend_on_the_image_is_refused(detach: bool) -> None:
    class Detached(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach()

    net = nn.Sequential(Detached()) if detach else Learned().double()
    with pytest.raises(UserError, match="does not depend on the image"):
        project(net, images(1, 1, 9)[0], "0" if detach else "conv")


def test_a_step_without_an_adjoint_is_refused_by_name() -> None:
    class Unknown(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return RectifiedSignal.apply(x, nn.Tanh())

    net = nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 3, 3), odd=Unknown(), last=nn.Conv2d(3, 2, 3))).double()
    x = images(1, 1, 9)[0]
    for rectify in (False, True):
        with pytest.raises(UserError, match=r"no adjoint of odd \(RectifiedSignalBackward\)"):
            project(net, x, "last", rectify=rectify)
    assert project(net, x, "conv").shape == (3, 1, 9, 9)


def test_activations_are_listed_from_the_pixels_up() -> None:
    steps = [step for _ in range(8) for step in (nn.Conv2d(1, 1, 1), nn.Tanh())]
    with pytest.raises(UserError, match=r"none: 1 \(Tanh\), 3 \(Tanh\), .*11 \(Tanh\) and 2 more; "):
        project(nn.Sequential(*steps).double(), images(1, 1, 9)[0], "15")


def test_a_projection_beyond_float32_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Conv2d(1, 1, 1, bias=False))
    for layer in network:
        nn.init.constant_(layer.weight, 1e15)
    image = torch.full((1, 4, 4), 1e-10)  # 1e20 at the top, and 1e35, then 1e50 on the way down
    assert project(network, image, "0").isfinite().all()
    with pytest.raises(UserError, match="projection of the layer '1' is not finite"):
        project(network, image, "1")


def test_projections_through_weights_with_nan_are_no_error() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 1, 3))
    for parameter in network.parameters():
        nn.init.ones_(parameter)
    network[0].weight.data[1, 0, 0, 0] = torch.nan
    network[2].weight.data[:, 1] = 0
    assert project(network, torch.ones(1, 8, 8), "2").isnan().any()
    network[0].weight.data[1] = -1  # inactive, and its NaN on the way down alone
    network[0].weight.data[0, 0, 0, 0] = torch.nan
    assert project(network, torch.ones(1, 8, 8), "1", units=[1]).shape == (1, 1, 8, 8)
