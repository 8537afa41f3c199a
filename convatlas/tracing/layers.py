"""List the layers of a network in execution order, with their shapes, inputs and receptive fields."""

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from torch import nn

from convatlas.records import Layer
from convatlas.tracing import kernel_taps
from convatlas.tracing.calls import (
    is_leaf,
    raise_on_wrong_input,
    trace,
)
from convatlas.tracing.layer_lister import LayerLister
from convatlas.tracing.layer_windows import Filters, LayerWindow, track_windows
from convatlas.tracing.window_geometry import AxisWindow, get_axis_windows


@torch.no_grad()
def list_layers(
    network: nn.Module,
    shape: tuple[int, ...],
    downsample_name: str = "downsample",
    blocks: Collection[str] = (),
) -> list[Layer]:
    """Run a network once and return its layers in execution order.

    `inputs` of a layer names the layers whose outputs it was computed from, each once, in order; "input" is
    the network's own input. A composite module is never an input: the layer in it that computed its output
    is. `within` has the class of each module on the way to the layer, from the outermost.

    The `role` of a convolution is what the network declares: its attribute `roles`, where it is a dict, maps
    patterns of dotted paths (`"pyramid.*"`, as in fnmatch; the path of a module stands for all in it) to
    roles, and the first match counts. Without it the role is "downsample" or "main". `notes` states where
    taps of a convolution never meet its input.

    `receptive_field` is [height, width] in pixels of the input that one value can depend on, borders not
    counted; that of the value in row i and column j starts at `receptive_start` + (i, j) × `receptive_step`.
    It follows from the operations that ran, inside layers and functions too. Where fields differ from value
    to value, as after upsampling, it is the smallest window that holds each. `receptive_start` and
    `receptive_step` are None where every value depends on all of an axis, and where rows and columns are not
    the last axes of the output. All are None where they are not known.

    A layer that computes by code of its own, as one that pads its input in `forward()`, has the kernel,
    stride, padding, dilation and groups of the one convolution or pooling that ran in it; padding is
    [near, far] per axis where the sides differ.

    Args:
        network: Any network; it runs in evaluation mode and is left as it was.
        shape: Shape of one input, (C, H, W).
        downsample_name: Name of the submodules that down-sample shortcuts.
        blocks: Paths of composite modules to list as layers too.

    Returns:
        The entries of layers.json. Modules that the forward pass never calls come last, with `called` False
        and without shapes.

    Raises:
        UserError: The network does not take an input of this shape.

    Examples:
        >>> import convatlas as ca
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 6, 5), torch.nn.ReLU(), torch.nn.MaxPool2d(2))
        >>> for layer in ca.layers(network, (1, 28, 28)):
        ...     print(layer["name"], layer["kind"], layer["output_shape"], layer["receptive_field"])
        0 conv [6, 24, 24] [5, 5]
        1 activation [6, 24, 24] [5, 5]
        2 pool [6, 12, 12] [6, 6]
    """
    return trace_layers(network, shape, downsample_name, blocks).layers


class TracedNetwork(NamedTuple):
    """The layers of a network, and filters that its modules' attributes do not tell.

    Attributes:
        layers: The entries of layers.json.
        filters: The weight and the bias, by the path of the module, of each convolution and linear layer that
            computes by its own code, or that a composite module calls as a function. None where they differ
            from call to call or from image to image, or where the code does more than one product.
    """

    layers: list[Layer]
    filters: dict[str, Filters | None]


@torch.no_grad()
def trace_layers(
    network: nn.Module,
    shape: tuple[int, ...],
    downsample_name: str = "downsample",
    blocks: Collection[str] = (),
) -> TracedNetwork:
    """Run a network once and return its layers, as `list_layers`, with the filters that it computed.

    Args:
        network: As in `list_layers`.
        shape: As in `list_layers`.
        downsample_name: As in `list_layers`.
        blocks: As in `list_layers`.

    Raises:
        UserError: As in `list_layers`.
    """
    first_parameter = next(network.parameters(), torch.empty(0))
    dtype = first_parameter.dtype if first_parameter.is_floating_point() else torch.float32
    x = torch.zeros(1, *shape, device=first_parameter.device, dtype=dtype)
    with track_windows(network) as windows:
        lister = LayerLister(network, x, blocks, windows)
        tracking = lister.tracker.track(network, blocks), lister.operations
        with raise_on_wrong_input(x), tracking[0], tracking[1], trace(network, lister.add, blocks):
            network(x)
    layers = lister.layers
    layers += lister.list_uncalled_modules()
    layers += lister.list_unused_parameters()
    convolutions = [layer for layer in layers if layer["kind"] == "conv"]
    for ordinal, layer in enumerate(convolutions, 1):
        layer["ordinal"] = ordinal
        layer["role"] = _convolution_role(network, layer["module"], downsample_name)
    for layer in layers:
        layer["within"] = _parent_types(network, layer)
    _add_tap_notes(network, layers, lister.windows, shape[1:])
    return TracedNetwork(layers, lister.collect_filters())


def _convolution_role(network: nn.Module, path: str, downsample_name: str) -> str:
    """Return the role of a convolution, as the network declares it or by its path."""
    roles = getattr(network, "roles", None)
    for pattern, role in roles.items() if isinstance(roles, dict) else ():
        if fnmatchcase(path, pattern) or path.startswith(f"{pattern}."):
            return str(role)
    return "downsample" if downsample_name in path.split(".") else "main"


def _parent_types(network: nn.Module, layer: Layer) -> list[str]:
    """Return the classes of the modules that contain or call a layer, below the network itself."""
    parts = layer["module"].split(".") if layer["module"] else []
    if is_leaf(network.get_submodule(layer["module"])) or layer["name"].split(":")[0] == layer["module"]:
        parts = parts[:-1]
    paths = [".".join(parts[: n + 1]) for n in range(len(parts))]
    return [type(network.get_submodule(path)).__name__ for path in paths]


def _add_tap_notes(
    network: nn.Module, layers: list[Layer], windows: Mapping[str, LayerWindow], input_size: Sequence[int]
) -> None:
    """Add a note to each convolution with taps that never meet its input."""
    fixed_size: set[str] = set()  # layers whose size does not grow with the network's input
    for layer in layers:
        has_fixed_input = bool(layer["inputs"]) and fixed_size.issuperset(layer["inputs"])
        is_size_fixing = layer["kind"] == "linear" or "daptive" in layer["type"] or layer["type"] == "mean"
        if has_fixed_input or is_size_fixing:
            fixed_size.add(layer["name"])
        axes = _find_axis_windows(network, layer, windows) if layer["called"] else None
        if axes is not None and layer["kind"] == "conv":
            is_comparable = not has_fixed_input and len(axes) == len(input_size)
            network_size = input_size if is_comparable else None
            note = kernel_taps.describe_inactive_taps(axes, layer["input_shape"][-len(axes) :], network_size)
            if note:
                layer["notes"].append(note)


def _find_axis_windows(
    network: nn.Module, layer: Layer, windows: Mapping[str, LayerWindow]
) -> list[AxisWindow] | None:
    """Return the window of a convolution along each axis; None where the padding is not known to be zeros."""
    if layer["name"] in windows:
        return windows[layer["name"]].axis_windows()
    module = network.get_submodule(layer["module"])
    if not isinstance(module, nn.modules.conv._ConvNd) or layer["kernel"] is None:
        return None
    return get_axis_windows(module) if not module.transposed and module.padding_mode == "zeros" else None
