"""Records what every layer makes of an image, without changing the network."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convatlas import UserError
from convatlas.files import npz_writer
from convatlas.tracing.calls import Call, module_kind, trace

SWITCHES_SUFFIX = "@switches"


@dataclass
class ActivationRecord:
    """A forward pass: the input (N, C, H, W), each layer's output (N, ...), in execution order.

    `switches` holds, for each max-pooling layer, the place of every maximum: (N, C, H, W) flat
    indices into the pool's input plane.
    """

    input: Tensor
    outputs: dict[str, Tensor] = field(default_factory=dict)
    switches: dict[str, Tensor] = field(default_factory=dict)


@torch.no_grad()
def record(network: nn.Module, images: Tensor, blocks: Collection[str] = ()) -> ActivationRecord:
    """Run preprocessed `images` (N, C, H, W) through the network and copy what every layer makes.

    Composite modules named in `blocks` are layers too.
    """
    found = ActivationRecord(images.clone())

    def see(call: Call) -> None:
        found.outputs[call.layer] = call.output.clone()
        if isinstance(call.module, nn.MaxPool2d):
            found.switches[call.layer] = compute_switches(call.module, call.input)

    with trace(network, see, blocks):
        network(images.clone())  # which a layer may work on in place
    return found


@torch.no_grad()
def record_to_file(
    network: nn.Module,
    image: Tensor,
    path: str | Path,
    blocks: Collection[str] = (),
    dtype: str = "float32",
    compress: bool = False,
) -> Tensor:
    """Run one image (1, C, H, W) and write activations/<image>.npz while it runs: the same as `record`.

    Each layer is written when it is called and not kept, so that memory is the forward pass's and the
    largest layer's. The input stays float32. Gives the network's output.
    Raises UserError where a value is too large for `dtype` float16.
    """
    with npz_writer(path, compress) as write:
        write("input", _to_numpy(image))

        def see(call: Call) -> None:
            write(call.layer, _cast_output(call.output, dtype, call.layer))
            if isinstance(call.module, nn.MaxPool2d):
                write(
                    call.layer + SWITCHES_SUFFIX, _to_numpy(compute_switches(call.module, call.input).int())
                )

        with trace(network, see, blocks):
            return network(image.clone())


@torch.no_grad()
def for_each_layer(
    network: nn.Module, image: Tensor, layers: Collection[str], callback: Callable[[str, np.ndarray], None]
) -> None:
    """Run one image (1, C, H, W) and show what each of `layers` makes to `see`, without keeping it."""

    def shown(call: Call) -> None:
        if call.layer in layers:
            callback(call.layer, _to_numpy(call.output))

    with trace(network, shown, blocks=layers):
        network(image.clone())


def _to_numpy(tensor: Tensor) -> np.ndarray:
    """A tensor as an array, without the batch axis where it has one."""
    tensor = tensor.detach()
    return (tensor[0] if tensor.ndim and tensor.shape[0] == 1 else tensor).cpu().numpy()


def _cast_output(output: Tensor, dtype: str, layer: str) -> np.ndarray:
    if dtype == "float32":
        return _to_numpy(output)
    halved = output.half()
    if output.is_floating_point() and halved.isinf().any() and not output.isinf().any():
        most = float(output.abs().max())
        raise UserError(f"record.dtype: {layer} reaches {most:.3g}, and float16 ends at 65,504; take float32")
    return _to_numpy(halved)


def compute_switches(pool: nn.MaxPool2d, x: Tensor) -> Tensor:
    """Give the place of each window's maximum: (N, C, H, W) flat indices into the planes of `x`.

    The locations that Zeiler & Fergus (2013), section 2.1, record in switch variables; of equal
    values the first in raster order.
    """
    _, places = F.max_pool2d(
        x, pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode, return_indices=True
    )
    return places


def collect_filters(network: nn.Module) -> dict[str, Tensor]:
    """Copy the weight and, as `<module>.bias`, the bias of every convolution and linear layer."""
    found = {}
    for path, module in network.named_modules():
        if module_kind(module) in ("conv", "linear"):
            found[path] = module.weight.detach().clone()
            if module.bias is not None:
                found[f"{path}.bias"] = module.bias.detach().clone()
    return found
