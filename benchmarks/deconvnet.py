"""Measure projections to the pixels: this project's, and Captum's Deconvolution as its documentation shows.

- 22 units x 4 images of LeNet-5, one thread: `project`, the sequential `Deconvnet`, Captum, a plain chain.
- 64 units of resnet18's layer1.1.conv2 at 224 px, two threads: `project` on the whole network, its one
  forward pass included, and a loop over Captum's Deconvolution on a network truncated at that layer,
  which runs it again for each unit. Its ReLUs are separate modules, not in place, as Captum needs.

The methods take turns; the medians of each, and of the ratios within a round, are printed.

    python benchmarks/deconvnet.py [--smallest]
"""

import argparse
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

Method = Callable[[], list[Tensor]]
LENET_UNITS = {"pool1": 6, "pool2": 16}
RESNET_UNITS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smallest", action="store_true", help="small images, one round: a few seconds")
    smallest = parser.parse_args().smallest
    warnings.simplefilter("ignore")  # Captum warns about its hooks at every call
    torch.manual_seed(0)
    print_load()
    print("22 units x 4 images of LeNet-5, one thread")
    torch.set_num_threads(1)
    lenet = lenet5().eval().requires_grad_(False)
    compare(make_lenet_methods(lenet, torch.randn(4, 1, 28, 28)), rounds=1 if smallest else 20)
    size, units = (32, 2) if smallest else (224, RESNET_UNITS)
    print(f"{units} units of resnet18's layer1.1.conv2 at {size} px, two threads")
    torch.set_num_threads(2)
    resnet = resnet18().eval().requires_grad_(False)
    compare(make_resnet_methods(resnet, torch.randn(3, size, size), units), rounds=1 if smallest else 15)
    print_load()


def print_load() -> None:
    print(f"load average of the last minute: {psutil.getloadavg()[0]:.1f}")


def compare(methods: dict[str, Method], rounds: int) -> None:
    """Print the largest difference between the results of the methods, and how long each takes."""
    first, *_ = methods
    expected = methods[first]()
    for name, method in methods.items():
        pairs = zip(method(), expected, strict=True)
        difference = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
        print(f"    {name}: largest difference {difference:.1e}")
    times: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(rounds):
        for name, method in methods.items():
            start = time.perf_counter()
            method()
            times[name].append(1000 * (time.perf_counter() - start))
    for name, durations in times.items():
        ratio = statistics.median(a / b for a, b in zip(durations, times[first], strict=True))
        print(f"    {name:12} {statistics.median(durations):8.2f} ms   {ratio:5.2f} x {first}")


class SquaredSum(nn.Module):
    """Sums a unit's rectified map times itself as a constant: the gradient is seeded with the activations."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        a = self.network(x).relu()
        return (a * a.detach()).sum((2, 3))


def make_lenet_methods(network: nn.Sequential, images: Tensor) -> dict[str, Method]:
    names = list(dict(network.named_children()))
    deconvnets = [Deconvnet(network, layer) for layer in LENET_UNITS]
    heads = {layer: Deconvolution(SquaredSum(network[: names.index(layer) + 1])) for layer in LENET_UNITS}

    def run_project() -> list[Tensor]:
        return [project(network, images, layer) for layer in LENET_UNITS]

    def run_sequential() -> list[Tensor]:
        return [deconvnet(images) for deconvnet in deconvnets]

    def run_captum() -> list[Tensor]:
        return [
            torch.stack(
                [
                    torch.cat([heads[layer].attribute(image[None], target=unit) for unit in range(count)])
                    for image in images
                ]
            )
            for layer, count in LENET_UNITS.items()
        ]

    @torch.no_grad()
    def run_plain_chain() -> list[Tensor]:
        """One forward pass, then unpool, rectify, filter with one seed per unit, all other channels zero."""
        conv1, conv2 = network.conv1, network.conv2
        p1, s1 = F.max_pool2d(conv1(images).relu(), 2, return_indices=True)
        p2, s2 = F.max_pool2d(conv2(p1).relu(), 2, return_indices=True)
        return [
            send_down(make_seed_signal(p1, "map"), [(s1, conv1)]),
            send_down(make_seed_signal(p2, "map"), [(s2, conv2), (s1, conv1)]),
        ]

    def send_down(seeds: Tensor, steps: list[tuple[Tensor, nn.Conv2d]]) -> Tensor:
        n, units = seeds.shape[:2]
        signal = torch.diag_embed(seeds.permute(0, 2, 3, 1)).permute(0, 3, 4, 1, 2).flatten(0, 1)
        for switches, conv in steps:
            unpooled = F.max_unpool2d(signal, switches.repeat_interleave(units, 0), 2).relu()
            signal = F.conv_transpose2d(unpooled, conv.weight, padding=conv.padding)
        return signal.unflatten(0, (n, units))

    return {
        "project": run_project,
        "Deconvnet": run_sequential,
        "plain chain": run_plain_chain,
        "Captum": run_captum,
    }


class Block(nn.Module):
    """A residual block of resnet18 without down-sampling, each of its ReLUs a separate module."""

    def __init__(self, block: BasicBlock) -> None:
        super().__init__()
        self.block, self.relu1, self.relu2 = block, nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.relu1(self.block.bn1(self.block.conv1(x)))
        return self.relu2(self.block.bn2(self.block.conv2(hidden)) + x)


def make_resnet_methods(network: nn.Module, image: Tensor, units: int) -> dict[str, Method]:
    network_copy = copy.deepcopy(network)
    last = network_copy.layer1[1]
    truncated = nn.Sequential(
        *[network_copy.conv1, network_copy.bn1, nn.ReLU(), network_copy.maxpool],
        *[Block(network_copy.layer1[0]), last.conv1, last.bn1, nn.ReLU(), last.conv2],
    )
    head = Deconvolution(SquaredSum(truncated))

    def run_captum() -> list[Tensor]:
        return [torch.cat([head.attribute(image[None], target=unit) for unit in range(units)])]

    return {
        "project": lambda: [project(network, image, "layer1.1.conv2", range(units))],
        "Captum": run_captum,
    }


if __name__ == "__main__":
    main()
