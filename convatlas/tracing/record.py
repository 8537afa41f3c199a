"""Record the output of every layer of a network on given images, without changing the network."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convatlas import UserError
from convatlas.files import Npz, npz_writer
from convatlas.names import suggest_nearest
from convatlas.records import NonFiniteLayer
from convatlas.tracing.calls import (
    Call,
    composite_modules,
    drop_batch_axis,
    is_single_image,
    raise_on_wrong_input,
    trace,
)
from convatlas.tracing.layer_kinds import module_kind
from convatlas.tracing.layer_windows import Filters, LayerWindow, track_windows
from convatlas.tracing.replay import compare_outputs

SWITCHES_SUFFIX = "@switches"
PHASE_SUFFIX = "@phase"

Dtype = Literal["float32", "float16"]
HALF_PRECISIONS = (torch.float16, torch.bfloat16)


@dataclass
class ActivationRecord:
    """What a network computed in one forward pass, on the device of the network.

    Attributes:
        input: The input, (N, C, H, W) of a batch or (C, H, W) of one image.
        outputs: The output of each layer call by its name, in execution order: (N, ...) of a batch,
            without the batch axis of one image.
        switches: Of each max-pooling layer, the position of each maximum as a flat index into the
            plane of the pool's input, int64, in the shape of the layer's output; -1 where the maximum is a
            value of padding that the layer adds by its own code.
    """

    input: Tensor
    outputs: dict[str, Tensor] = field(default_factory=dict)
    switches: dict[str, Tensor] = field(default_factory=dict)


@torch.no_grad()
def record(
    network: nn.Module, x: Tensor, layers: Collection[str] | None = None, verify: bool = False
) -> ActivationRecord:
    """Run a network and return a copy of what each of its layers computes.

    The network runs in evaluation mode and is left as it was.

    Args:
        network: Any network.
        x: A preprocessed batch (N, C, H, W), or one image (C, H, W).
        layers: Names of the layers to record, as in layers.json or of composite modules; by default
            every layer that is called.
        verify: Apply each call of a layer again to its input and compare the outputs bit for bit, which
            takes about as long as another forward pass.

    Returns:
        The input, the outputs by layer, and the switches of max-pooling layers.

    Raises:
        UserError: The network does not take an input of this shape, or it calls no layer of a name in
            `layers`; with `verify`, a layer gives another output when it is applied again, or the network
            draws random numbers.

    Examples:
        >>> import convatlas as ca
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 6, 5, padding=2), torch.nn.MaxPool2d(2))
        >>> activations = ca.record(network, torch.zeros(1, 28, 28))
        >>> {name: tuple(output.shape) for name, output in activations.outputs.items()}
        {'0': (6, 28, 28), '1': (6, 14, 14)}
        >>> tuple(ca.record(network, torch.zeros(8, 1, 28, 28), layers=["1"]).switches["1"].shape)
        (8, 6, 14, 14)
    """
    is_image = is_single_image(network, x)
    batch = x[None] if is_image else x
    activations = ActivationRecord(x.clone())
    layer_names: list[str] = []

    def copy_output(call: Call) -> None:
        layer_names.append(call.layer)
        if layers is not None and call.layer not in layers:
            return
        activations.outputs[call.layer] = call.output.clone()
        if (switches := _find_switches(call, windows)) is not None:
            activations.switches[call.layer] = switches

    blocks = [name for name in composite_modules(network) if name in (layers or ())]
    tracking = track_windows(network, ("pool", "other"))
    with raise_on_wrong_input(batch), tracking as windows, trace(network, copy_output, blocks, verify):
        network(batch.clone())  # a layer may change its input in place
    for layer in layers or ():
        if layer not in activations.outputs:
            raise UserError(f"the network calls no layer {layer!r}; {suggest_nearest(layer, layer_names)}")
    if is_image:
        activations.outputs = {name: drop_batch_axis(t) for name, t in activations.outputs.items()}
        activations.switches = {name: drop_batch_axis(t) for name, t in activations.switches.items()}
    return activations


@torch.no_grad()
def record_to_file(
    network: nn.Module,
    image: Tensor,
    path: str | Path,
    blocks: Collection[str] = (),
    dtype: Dtype = "float32",
    compress: bool = False,
    non_finite: list[NonFiniteLayer] | None = None,
    verify: bool = False,
) -> Any:
    """Run a network on one image and write activations/<image>.npz, the same numbers as `record`.

    Each output is written when its layer is called, and is not kept: the memory needed is that of the
    forward pass and of the largest layer. Of a complex output the magnitude is written, and its phase in
    radians beside it, as <layer>@phase.

    Args:
        network: Any network.
        image: A preprocessed image, (1, C, H, W). It is always written as float32.
        path: The npz to write.
        blocks: Composite modules to record besides the layers.
        dtype: Precision of the outputs of layers. bfloat16, which NumPy does not have, and float16, which
            autocast computes in, are written as float32 unless it is float16.
        compress: Whether to compress the npz.
        non_finite: A list to which the input and the layers with NaN or infinite values are appended, in
            execution order.
        verify: As in `record`.

    Returns:
        The output of the network.

    Raises:
        UserError: A value is too large for float16, or the file cannot be written; and as in `record`.
    """
    with npz_writer(path, compress) as write:

        def write_values(layer: str, values: np.ndarray) -> None:
            write(layer, values)
            entry = count_non_finite(layer, values) if non_finite is not None else None
            if non_finite is not None and entry is not None:
                non_finite.append(entry)

        def write_output(call: Call) -> None:
            write_values(call.layer, _cast_output(to_real(call.output), dtype, call.layer))
            if call.output.is_complex():
                write(call.layer + PHASE_SUFFIX, _cast_output(call.output.angle(), dtype, call.layer))
            if (switches := _find_switches(call, windows)) is not None:
                write(call.layer + SWITCHES_SUFFIX, _to_numpy(switches.int()))

        write_values("input", _to_numpy(image))
        with (
            track_windows(network, ("pool", "other")) as windows,
            trace(network, write_output, blocks, verify),
        ):
            return network(image.clone())


@torch.no_grad()
def compare_with_record(
    network: nn.Module, image: Tensor, path: str | Path, blocks: Collection[str], dtype: Dtype
) -> None:
    """Run a network on an image again, and compare every output with its activations/<image>.npz.

    Args:
        network: The network that was recorded.
        image: The preprocessed image, (1, C, H, W).
        path: The npz, as `record_to_file` wrote it.
        blocks: As in `record_to_file`.
        dtype: As in `record_to_file`.

    Raises:
        UserError: A layer's output is not the recorded one, bit for bit, or it is not called now.
    """
    recorded = Npz(path)
    suffixes = (SWITCHES_SUFFIX, PHASE_SUFFIX)
    remaining = [name for name in recorded if name != "input" and not name.endswith(suffixes)]

    def compare(call: Call) -> None:
        if call.layer in remaining:
            remaining.remove(call.layer)
            output = torch.from_numpy(_cast_output(to_real(call.output), dtype, call.layer))
            occasion = f"when {Path(path).stem} is recorded again after all images"
            compare_outputs(
                call.layer, torch.from_numpy(recorded[call.layer]), output, occasion, image.is_cuda
            )

    with trace(network, compare, blocks):
        network(image.clone())
    if remaining:
        raise UserError(
            f"the network calls no layer {remaining[0]!r} when {Path(path).stem} is recorded again"
        )


@torch.no_grad()
def for_each_layer(
    network: nn.Module, x: Tensor, layers: Collection[str], callback: Callable[[str, Tensor], None]
) -> Any:
    """Run a network and pass the outputs of some of its layers to a function, without keeping them.

    Args:
        network: Any network.
        x: A preprocessed batch (N, C, H, W).
        layers: Names of the layers, as in layers.json or of composite modules.
        callback: Called with the name and the output (N, ...) of each layer, in execution order. The
            output is no copy: a later layer may change it in place. It is passed on as `to_real` returns it.

    Returns:
        The output of the network.
    """

    def pass_output(call: Call) -> None:
        if call.layer in layers:
            callback(call.layer, to_real(call.output))

    with trace(network, pass_output, blocks=layers):
        return network(x.clone())


def _to_numpy(tensor: Tensor) -> np.ndarray:
    """Return a tensor of a batch of one as an array without the batch axis."""
    array: np.ndarray = drop_batch_axis(tensor.detach()).cpu().numpy()
    return array


def to_real(output: Tensor) -> Tensor:
    """Return the magnitude of a complex output, one of half precision as float32, and others as they are.

    Args:
        output: The output of a layer. Layers compute in half precision under autocast.
    """
    if output.is_complex():
        return output.abs()
    return output.float() if output.dtype in HALF_PRECISIONS else output


def count_non_finite(layer: str, values: np.ndarray) -> NonFiniteLayer | None:
    """Count the values of a layer that are NaN or infinite.

    Args:
        layer: Name of the layer, or "input".
        values: Its output, of any shape and type.

    Returns:
        The counts; None where all values are finite.
    """
    finite = np.isfinite(values)
    if finite.all():
        return None
    nan_count = int(np.isnan(values).sum())
    infinite_count = values.size - int(finite.sum()) - nan_count
    return {"layer": layer, "nan": nan_count, "infinite": infinite_count, "values": values.size}


def _cast_output(output: Tensor, dtype: Dtype, layer: str) -> np.ndarray:
    """Return an output as an array of a precision, float64 and integers for float32 as they are.

    Raises UserError where float16 overflows.
    """
    if dtype == "float32":
        return _to_numpy(output)
    rounded = output.half()
    overflows = rounded.isinf() & output.isfinite()
    if output.is_floating_point() and overflows.any():
        maximum = float(output[overflows].abs().max())
        raise UserError(
            f"record.dtype: {layer} reaches {maximum:.3g}, and float16 ends at 65,504; take float32"
        )
    return _to_numpy(rounded)


def _find_switches(call: Call, windows: Mapping[nn.Module, LayerWindow | None]) -> Tensor | None:
    """Return the switches of a call of a max-pooling layer, (N, C, H, W) int64; None of another layer."""
    if call.module is not None and call.module in windows:  # it computes by its own code
        window = windows[call.module]
        switches = None if window is None else window.compute_switches()
        return switches if switches is not None and switches.shape == call.output.shape else None
    return compute_switches(call.module, call.input) if isinstance(call.module, nn.MaxPool2d) else None


def compute_switches(pool: nn.MaxPool2d, x: Tensor) -> Tensor:
    """Return the position of the maximum in each window of a max-pooling layer.

    These are the switch variables of Zeiler & Fergus (arXiv 1311.2901), section 2.1. Of equal values the
    first in raster order counts.

    Args:
        pool: The layer.
        x: Its input, (N, C, H, W).

    Returns:
        Flat indices into the planes of `x`, int64, in the shape of the layer's output.
    """
    _, switches = F.max_pool2d(
        x, pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode, return_indices=True
    )
    return switches


def collect_filters(
    network: nn.Module, computed: Mapping[str, Filters | None] | None = None
) -> dict[str, Tensor]:
    """Return copies of the weights of every convolution and linear layer, apart from complex ones.

    Args:
        network: Any network.
        computed: The filters of modules that compute them, from `trace_layers`; None leaves a module out.

    Returns:
        <module> -> its weight, (units, channels, ...) of a convolution; <module>.bias -> its bias, (units,).
    """
    modules = {p: m for p, m in network.named_modules() if module_kind(m) in ("conv", "linear")}
    filters = {path: Filters(cast(Tensor, m.weight), cast(Tensor, m.bias)) for path, m in modules.items()}
    tensors: dict[str, Tensor] = {}
    for path, layer_filters in (filters | dict(computed or {})).items():
        weight = None if layer_filters is None else layer_filters.weight
        if layer_filters is not None and weight is not None and not weight.is_complex():
            tensors[path] = weight.detach().clone()
            if layer_filters.bias is not None:
                tensors[f"{path}.bias"] = layer_filters.bias.detach().clone()
    return tensors
