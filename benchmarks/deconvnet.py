"""Projections to the pixels: this project's, beside Captum's Deconvolution called as its documentation shows.

- 22 units x 4 images of LeNet-5, one thread: `project`, the taught `Deconvnet`, Captum, a plain chain.
- 64 units of resnet18's layer1.1.conv2 at 224 px, two threads: `project` on the whole network, its one
  forward pass included, and a loop over Captum's Deconvolution on a network truncated at that layer,
  which runs it anew for each unit. Its ReLUs are modules of their own, not in place, as Captum needs.

The sides take turns; the medians of each, and of the ratios within a round, are printed.

    python benchmarks/deconvnet.py
"""

import copy
import statistics
import time
import warnings
from collections.abc import Callable

import psutil
import torch
from captum.attr import Deconvolution
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18
from torchvision.models.resnet import BasicBlock

from convatlas.attribution.deconvnet import make_seed_signal, project
from convatlas.attribution.sequential_deconvnet import Deconvnet
from convatlas.models.architectures.lenet5 import lenet5

Side = Callable[[], list[Tensor]]
UNITS = {"pool1": 6, "pool2": 16}


def main() -> None:
    warnings.simplefilter("ignore")  # Captum warns of its hooks at every call
    torch.manual_seed(0)
    print(f"load of the last minute: {psutil.getloadavg()[0]:.1f}")
    print("22 units x 4 images of LeNet-5, one thread")
    torch.set_num_threads(1)
    compared(lenet_sides(lenet5().eval().requires_grad_(False), torch.randn(4, 1, 28, 28)), rounds=20)
    print("64 units of resnet18's layer1.1.conv2 at 224 px, two threads")
    torch.set_num_threads(2)
    compared(resnet_sides(resnet18().eval().requires_grad_(False), torch.randn(3, 224, 224)), rounds=15)
    print(f"load of the last minute: {psutil.getloadavg()[0]:.1f}")


def compared(sides: dict[str, Side], rounds: int) -> None:
    """Print how far the sides' results lie apart, and how long each takes, turn about."""
    first, *_ = sides
    expected = sides[first]()
    for name, side in sides.items():
        pairs = zip(side(), expected, strict=True)
        worst = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
        print(f"    {name}: largest difference {worst:.1e}")
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            times[name].append(1000 * (time.perf_counter() - start))
    for name, taken in times.items():
        ratio = statistics.median(a / b for a, b in zip(taken, times[first], strict=True))
        print(f"    {name:12} {statistics.median(taken):8.2f} ms   {ratio:5.2f} x {first}")


class Rectified(nn.Module):
    """Sums a unit's map times itself, held fixed, so that each place is seeded with its activation."""

    def __init__(self, below: nn.Module) -> None:
        super().__init__()
        self.below = below

    def forward(self, x: Tensor) -> Tensor:
        a = self.below(x).relu()
        return (a * a.detach()).sum((2, 3))


def lenet_sides(network: nn.Sequential, images: Tensor) -> dict[str, Side]:
    names = list(dict(network.named_children()))
    deconvnets = [Deconvnet(network, layer) for layer in UNITS]
    methods = {layer: Deconvolution(Rectified(network[: names.index(layer) + 1])) for layer in UNITS}

    def projected() -> list[Tensor]:
        return [torch.stack([project(network, image, layer) for image in images]) for layer in UNITS]

    def taught() -> list[Tensor]:
        return [deconvnet(images) for deconvnet in deconvnets]

    def captum() -> list[Tensor]:
        return [
            torch.stack(
                [
                    torch.cat([methods[layer].attribute(image[None], target=unit) for unit in range(count)])
                    for image in images
                ]
            )
            for layer, count in UNITS.items()
        ]

    @torch.no_grad()
    def dense() -> list[Tensor]:
        """One forward pass, then unpool, rectify, filter with one seed a unit, all other channels zero."""
        conv1, conv2 = network.conv1, network.conv2
        p1, s1 = F.max_pool2d(conv1(images).relu(), 2, return_indices=True)
        p2, s2 = F.max_pool2d(conv2(p1).relu(), 2, return_indices=True)
        return [
            down(make_seed_signal(p1, "map"), [(s1, conv1)]),
            down(make_seed_signal(p2, "map"), [(s2, conv2), (s1, conv1)]),
        ]

    def down(top: Tensor, path: list[tuple[Tensor, nn.Conv2d]]) -> Tensor:
        n, units = top.shape[:2]
        signal = torch.diag_embed(top.permute(0, 2, 3, 1)).permute(0, 3, 4, 1, 2).flatten(0, 1)
        for switches, conv in path:
            up = F.max_unpool2d(signal, switches.repeat_interleave(units, 0), 2).relu()
            signal = F.conv_transpose2d(up, conv.weight, padding=conv.padding)
        return signal.unflatten(0, (n, units))

    return {"project": projected, "Deconvnet": taught, "dense chain": dense, "Captum": captum}


class Block(nn.Module):
    """A residual block of resnet18 without a shortcut, each of its ReLUs a module of its own."""

    def __init__(self, block: BasicBlock) -> None:
        super().__init__()
        self.block, self.relu1, self.relu2 = block, nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        middle = self.relu1(self.block.bn1(self.block.conv1(x)))
        return self.relu2(self.block.bn2(self.block.conv2(middle)) + x)


def resnet_sides(network: nn.Module, image: Tensor) -> dict[str, Side]:
    plain = copy.deepcopy(network)
    last = plain.layer1[1]
    truncated = nn.Sequential(
        *[plain.conv1, plain.bn1, nn.ReLU(), plain.maxpool, Block(plain.layer1[0])],
        *[last.conv1, last.bn1, nn.ReLU(), last.conv2],
    )
    method = Deconvolution(Rectified(truncated))

    def captum() -> list[Tensor]:
        return [torch.cat([method.attribute(image[None], target=unit) for unit in range(64)])]

    return {"project": lambda: [project(network, image, "layer1.1.conv2")], "Captum": captum}


if __name__ == "__main__":
    main()
