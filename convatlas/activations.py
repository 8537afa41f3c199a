"""Records what every layer makes of an image, without changing the network."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convatlas.extractor import Call, kind, watch
from convatlas.files import read_npz, write_npz

SWITCHES = "@switches"


@dataclass
class Record:
    """A forward pass: the input (N, C, H, W), each layer's output (N, ...), in execution order.

    `switches` holds, for each max-pooling layer, the place of every maximum: (N, C, H, W) flat
    indices into the pool's input plane.
    """

    input: Tensor
    outputs: dict[str, Tensor] = field(default_factory=dict)
    switches: dict[str, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device) -> "Record":
        """The same record on another device."""
        return Record(
            self.input.to(device),
            {name: output.to(device) for name, output in self.outputs.items()},
            {name: places.to(device) for name, places in self.switches.items()},
        )

    def image(self, n: int) -> dict[str, np.ndarray]:
        """The n-th image's arrays, named as in activations/<image>.npz, without the batch axis."""
        arrays = {"input": self.input[n].cpu().numpy()}
        for layer, output in self.outputs.items():
            arrays[layer] = output[n].cpu().numpy()
            if layer in self.switches:
                arrays[layer + SWITCHES] = self.switches[layer][n].cpu().numpy().astype(np.int32)
        return arrays


@torch.no_grad()
def record(network: nn.Module, images: Tensor) -> Record:
    """Run preprocessed `images` (N, C, H, W) through the network and copy what every layer makes."""
    found = Record(images.clone())

    def see(call: Call) -> None:
        found.outputs[call.layer] = call.output.clone()
        if isinstance(call.module, nn.MaxPool2d):
            found.switches[call.layer] = switches(call.module, call.input)

    with watch(network, see):
        network(images.clone())  # which a layer may work on in place
    return found


def switches(pool: nn.MaxPool2d, x: Tensor) -> Tensor:
    """Give the place of each window's maximum: (N, C, H, W) flat indices into the planes of `x`.

    The locations that Zeiler & Fergus (2013), section 2.1, record in switch variables; of equal
    values the first in raster order.
    """
    _, places = F.max_pool2d(
        x, pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode, return_indices=True
    )
    return places


def filters(network: nn.Module) -> dict[str, Tensor]:
    """Copy the weight and, as `<module>.bias`, the bias of every convolution and linear layer."""
    found = {}
    for path, module in network.named_modules():
        if kind(module) in ("conv", "linear"):
            found[path] = module.weight.detach().clone()
            if module.bias is not None:
                found[f"{path}.bias"] = module.bias.detach().clone()
    return found


def write(path: str | Path, found: Record, n: int) -> None:
    """Write the n-th image of a record as activations/<image>.npz."""
    write_npz(path, found.image(n))


def read(paths: Sequence[str | Path]) -> Record:
    """Read activations/<image>.npz of several images back as one record."""
    images = [read_npz(path) for path in paths]
    found = Record(torch.empty(0))
    for name in images[0]:
        stacked = torch.from_numpy(np.stack([image[name] for image in images]))
        if name == "input":
            found.input = stacked
        elif name.endswith(SWITCHES):
            found.switches[name.removesuffix(SWITCHES)] = stacked.long()
        else:
            found.outputs[name] = stacked
    return found
