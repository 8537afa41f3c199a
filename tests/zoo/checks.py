"""What the sweep checks of one network: layers, records, side effects, projections and receptive fields."""

import copy
import math
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from convatlas import UserError
from convatlas.attribution.deconvnet import project
from convatlas.records import Layer
from convatlas.tracing.calls import collect_tensors, drop_batch_axis, is_leaf
from convatlas.tracing.extractor import Extractor
from convatlas.tracing.layers import list_layers
from convatlas.tracing.record import record
from tests.zoo.receptive_fields import check_receptive_fields
from tests.zoo.reference import project_reference

UNITS = 2  # per layer
TOLERANCE = 1e-3  # of a projection's largest value, float32 against float64
EXACT_TOLERANCE = 1e-9  # float64 against float64
MAX_DOUBLE_PARAMETERS = 150_000_000  # larger networks are compared in float32


@dataclass
class Row:
    """The result of one network.

    Attributes:
        package: Distribution that it comes from.
        name: Its name there.
        result: "ok", "refused" by a UserError, "wrong", or "error" for any other exception.
        reason: In the product's own words, where the result is not ok.
        rectify: Whether it has activations that are not ReLUs.
        notes: What is no fault but worth knowing.
    """

    package: str
    name: str
    result: str = "ok"
    reason: str = ""
    input: str = ""
    layers: int = 0
    convolutions: int = 0
    parameters: int = 0
    rectify: bool = False
    fields: int = 0
    fields_equal: int = 0
    fields_larger: int = 0
    fields_null: int = 0
    fields_wrong: list[str] = field(default_factory=list)
    error: float = 0.0  # the largest, of a projection's largest value
    seconds: float = 0.0
    megabytes: int = 0
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Difference(Exception):  # noqa: N818
    """What the product says differs from an independent computation."""


def check_network(
    row: Row, build: Callable[[], nn.Module], shape: tuple[int, ...], until: str = "", projected: int = 3
) -> None:
    """Check one network, and write what was measured into its row.

    Args:
        row: The row.
        build: Builds the network, without a download.
        shape: Shape of one input, (C, H, W).
        until: Path of a module; layers that are called from there on are not projected.
        projected: The number of layers to project, in equal steps from the input to the output.
    """
    row.input = "×".join(map(str, shape))
    started = time.process_time()
    try:
        network = build()
        x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))
        _check(row, network, x, until, projected)
    except UserError as error:
        row.result, row.reason = "refused", str(error)
    except Difference as error:
        row.result, row.reason = "wrong", str(error)
    except Exception as error:  # any other is a row, not the end of the sweep
        row.result, row.reason = "error", f"{type(error).__name__}: {error}"
    row.seconds = time.process_time() - started
    row.megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _check(row: Row, network: nn.Module, x: Tensor, until: str, projected: int) -> None:
    network.train()
    with _unchanged(network):
        layers = list_layers(network, tuple(x.shape[1:]))
        row.layers = sum(layer["called"] for layer in layers)
        row.convolutions = sum(layer["called"] and layer["kind"] == "conv" for layer in layers)
        row.parameters = sum(parameter.numel() for parameter in network.parameters())
        _check_extractor(network)
        outputs = record(network, x).outputs
        _check_records(network, x, outputs)
    chosen = choose_layers(layers, outputs, until, projected)
    network.eval()
    _check_counts(network, x, [layer for layer in layers if layer["called"]])
    _check_projections(row, network, x, chosen)
    check_receptive_fields(row, network, x, layers)
    if row.fields_wrong:
        raise Difference("receptive fields: " + "; ".join(row.fields_wrong[:3]))


@contextmanager
def _unchanged(network: nn.Module) -> Iterator[None]:
    """Raise Difference if the block changes weights, buffers, modes, hooks, strides or torch's own state."""
    before = _describe(network)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    yield
    for part, value in _describe(network).items():
        if value != before[part]:
            raise Difference(f"{part} changed")
    for name, tensor in network.state_dict().items():
        if not torch.equal(tensor, state[name]) and not tensor.isnan().any():
            raise Difference(f"{name} changed")


def _describe(network: nn.Module) -> dict[str, Any]:
    """Return everything about a network that a run must leave as it was, apart from its values."""
    modules, tensors = list(network.modules()), [*network.parameters(), *network.buffers()]
    return {
        "modes": [module.training for module in modules],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules],
        "attributes": [sorted(vars(module)) for module in modules],
        "memory layout": [(t.stride(), t.data_ptr(), t.dtype) for t in tensors],
        "gradients": [(t.requires_grad, t.grad is None, t.grad_fn is None) for t in tensors],
        "torch's modes": (torch.is_grad_enabled(), torch.backends.mkldnn.flags, torch.get_default_dtype()),
        "random numbers": torch.get_rng_state().sum().item(),
    }


def _check_extractor(network: nn.Module) -> None:
    """Compare the extractor's counts with the modules that have torch's classes among their own."""
    extractor = Extractor(network)
    classes = [
        {base.__name__ for base in type(m).__mro__ if "torch.nn" in base.__module__}
        for m in network.modules()
    ]
    counts = {
        "_ConvNd": len(extractor.conv_layers) + len(extractor.downsample_layers),
        "Linear": sum(not isinstance(module, nn.Bilinear) for module in extractor.linear_layers.values()),
    }
    for name, count in counts.items():
        expected = sum(name in bases for bases in classes)
        if count != expected:
            raise Difference(f"the extractor has {count} of {expected} modules {name}")


def _check_counts(network: nn.Module, x: Tensor, layers: list[Layer]) -> None:
    """Compare the convolutions among the layers with those that torch ran, without constant filters."""
    constants = {buffer.untyped_storage().data_ptr() for buffer in network.buffers()}
    counter = _ConvolutionCounter(constants)
    with torch.no_grad(), counter:
        network(x.clone())
    convolutions = sum(layer["kind"] == "conv" for layer in layers)
    if convolutions != counter.count:
        raise Difference(f"{convolutions} convolutions are listed, and {counter.count} ran")


class _ConvolutionCounter(TorchDispatchMode):
    """Counts the convolutions below autograd, apart from those with constant filters, as of a blur."""

    def __init__(self, constants: set[int]) -> None:
        super().__init__()
        self.constants, self.count = constants, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "convolution" in func._schema.name and args[1].untyped_storage().data_ptr() not in self.constants:
            self.count += 1
        return func(*args, **(kwargs or {}))


def _check_records(network: nn.Module, x: Tensor, outputs: dict[str, Tensor]) -> None:
    """Compare the records with what plain hooks on the leaf modules see, bit for bit."""
    hooks = _LeafHooks(network)
    modes = [(module, module.training) for module in network.modules()]
    try:
        with torch.no_grad():
            network.eval()(x.clone())
    finally:
        hooks.remove()
        for module, training in modes:
            module.training = training
    names = {name for name in outputs if {name, name.rpartition(":")[0]} & hooks.calls.keys()}
    for name in sorted(names):
        if name not in hooks.outputs:
            raise Difference(f"{name} is recorded, but no module computed it")
        if not torch.equal(outputs[name].nan_to_num(), hooks.outputs[name].nan_to_num()):
            raise Difference(f"the record of {name} differs from a forward hook's")


class _LeafHooks:
    """Hooks that store a copy of every output of a leaf module under the name of its call."""

    def __init__(self, network: nn.Module) -> None:
        self.outputs: dict[str, Tensor] = {}
        self.calls: Counter[str] = Counter()
        self.inputs: list[set[int]] = []
        self.handles = []
        for path, module in network.named_modules():
            if path and is_leaf(module):
                self.handles.append(module.register_forward_pre_hook(self._enter))
                self.handles.append(module.register_forward_hook(partial(self._leave, path)))

    def _enter(self, module: nn.Module, args: Any) -> None:
        self.inputs.append({id(tensor) for tensor in collect_tensors(args)})  # before it appends to a list

    def _leave(self, path: str, module: nn.Module, args: Any, output: Any) -> None:
        self.calls[path] += 1
        inputs, tensors = self.inputs.pop(), collect_tensors(output)
        new = [tensor for tensor in tensors if id(tensor) not in inputs] or list(tensors)
        if new:
            count = self.calls[path]
            self.outputs[path if count == 1 else f"{path}:{count}"] = new[0].detach().clone()

    def remove(self) -> None:
        """Remove all hooks."""
        for handle in self.handles:
            handle.remove()


def choose_layers(
    layers: list[Layer], outputs: dict[str, Tensor], until: str, count: int
) -> dict[str, list[int]]:
    """Return the layers to project, in equal steps up to the last, with their most active units.

    Those that the image does not reach, as networks compute them of positions, are left out.
    """
    reached = {"input"}
    for layer in layers:
        if reached & set(layer["inputs"]):
            reached.add(layer["name"])
    called = [layer for layer in layers if layer["name"] in reached & outputs.keys()]
    if until:
        stop = next((n for n, layer in enumerate(called) if layer["module"].startswith(until)), len(called))
        called = called[:stop]
    called = [layer for layer in called if outputs[layer["name"]].ndim]
    maps = [layer for layer in called if outputs[layer["name"]].ndim == 4] or called
    chosen = [maps[len(maps) * n // count] for n in range(1, count)]
    chosen.append(maps[-1] if until else called[-1])
    units = {}
    for layer in chosen:
        output = drop_batch_axis(outputs[layer["name"]])
        strengths = output.flatten(1).amax(1) if output.ndim > 1 else output
        units[layer["name"]] = strengths.topk(min(UNITS, len(strengths))).indices.tolist()
    return units


def _check_projections(row: Row, network: nn.Module, x: Tensor, chosen: dict[str, list[int]]) -> None:
    """Compare `project` with the reference, in float32 and, where that differs or overflows, in float64."""
    projections, overflow = {}, None
    for (layer, units), select in product(chosen.items(), ("map", "peak")):
        try:
            projections[layer, select] = _project(row, network, x, layer, units, select)
        except UserError as error:
            if "beyond float32" not in str(error):
                raise
            overflow = overflow or error
            projections[layer, select] = torch.full((len(units), *x.shape[1:]), torch.inf)
    is_large = row.parameters > MAX_DOUBLE_PARAMETERS
    if overflow and is_large:
        raise overflow
    exact, exact_x = (network, x) if is_large else (copy.deepcopy(network).double(), x.double())
    exact.requires_grad_(False)
    expected = project_reference(exact, exact_x, list(chosen), list(chosen.values()))
    for (layer, select), projection in projections.items():
        error = _relative_error(projection, expected[layer, select])
        if error > TOLERANCE and not is_large:
            again = project(exact, exact_x[0], layer, chosen[layer], select, row.rectify)
            if _relative_error(again, expected[layer, select]) > EXACT_TOLERANCE:
                raise Difference(f"the {select} of {layer} differs by {error:.1e} of its maximum")
            fault = "overflows" if math.isinf(error) else f"rounds by {error:.0e}"
            row.notes.append(f"{layer}, {select}: float32 {fault}")
            continue
        if error > TOLERANCE:
            raise Difference(f"the {select} of {layer} differs by {error:.1e} of its maximum")
        row.error = max(row.error, error)
    if not any(projection.any() for projection in expected.values()):
        row.notes.append("every projection is zero")
    if overflow:
        raise overflow


def _project(row: Row, network: nn.Module, x: Tensor, layer: str, units: list[int], select: Any) -> Tensor:
    """Project, and rectify at activations that are not ReLUs from where the product asks for that on."""
    try:
        with _unchanged_modes(network):
            return project(network, x[0], layer, units, select, row.rectify)
    except UserError as error:
        if row.rectify or "views.deconv.rectify" not in str(error):
            raise
    row.rectify = True
    return project(network, x[0], layer, units, select, True)


@contextmanager
def _unchanged_modes(network: nn.Module) -> Iterator[None]:
    before = _describe(network)
    yield
    for part, value in _describe(network).items():
        if value != before[part]:
            raise Difference(f"project changed {part}")


def _relative_error(projection: Tensor, expected: Tensor) -> float:
    """Return the largest difference as a share of the largest value of all."""
    scale = float(expected.abs().max()) or 1.0
    error = float((projection.double() - expected.double()).abs().max()) / scale
    return math.inf if math.isnan(error) else error
