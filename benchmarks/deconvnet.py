"""22 units x 4 images of LeNet-5 down to the pixels: this deconvnet, Captum call by call, and a plain chain.

The sides take turns, and the medians of each and of the ratios within a round are printed.

    python benchmarks/deconvnet.py
"""

import statistics
import time
import warnings
from collections.abc import Callable

import torch
from captum.attr import Deconvolution
from torch import Tensor, nn
from torch.nn import functional as F

from convatlas.activations import record
from convatlas.architectures.lenet5 import lenet5
from convatlas.deconvnet import Deconvnet, seed

ROUNDS = 30
UNITS = {"pool1": 6, "pool2": 16}


def ours(network: nn.Sequential) -> Callable[[Tensor], list[Tensor]]:
    """One forward pass, then every unit of every image at once."""
    deconvnets = [Deconvnet(network, layer) for layer in UNITS]

    def project(x: Tensor) -> list[Tensor]:
        found = record(network, x)
        return [deconvnet(found) for deconvnet in deconvnets]

    return project


def dense(network: nn.Sequential) -> Callable[[Tensor], list[Tensor]]:
    """One forward pass, then unpool, rectify, filter with one seed a unit, all other channels zero."""
    conv1, conv2 = network.conv1, network.conv2

    @torch.no_grad()
    def project(x: Tensor) -> list[Tensor]:
        a1 = conv1(x).relu()
        p1, s1 = F.max_pool2d(a1, 2, return_indices=True)
        p2, s2 = F.max_pool2d(conv2(p1).relu(), 2, return_indices=True)
        return [down(seed(p1, "map"), [(s1, conv1)]), down(seed(p2, "map"), [(s2, conv2), (s1, conv1)])]

    def down(top: Tensor, path: list[tuple[Tensor, nn.Conv2d]]) -> Tensor:
        n, units = top.shape[:2]
        signal = torch.diag_embed(top.permute(0, 2, 3, 1)).permute(0, 3, 4, 1, 2).flatten(0, 1)
        for switches, conv in path:
            up = F.max_unpool2d(signal, switches.repeat_interleave(units, 0), 2).relu()
            signal = F.conv_transpose2d(up, conv.weight, padding=conv.padding)
        return signal.unflatten(0, (n, units))

    return project


def captum(network: nn.Sequential) -> Callable[[Tensor], list[Tensor]]:
    """Captum's Deconvolution, one call a unit and image, as its documentation shows."""

    class Whole(nn.Module):
        """Sums a unit's map times itself, held fixed, so that each place is seeded with its activation."""

        def __init__(self, layer: str) -> None:
            super().__init__()
            stop = list(dict(network.named_children())).index(layer) + 1
            self.below = network[:stop]

        def forward(self, x: Tensor) -> Tensor:
            a = self.below(x).relu()
            return (a * a.detach()).sum((2, 3))

    methods = {layer: Deconvolution(Whole(layer)) for layer in UNITS}

    def project(x: Tensor) -> list[Tensor]:
        return [
            torch.stack(
                [
                    torch.cat([methods[layer].attribute(image[None], target=unit) for unit in range(count)])
                    for image in x
                ]
            )
            for layer, count in UNITS.items()
        ]

    return project


def main() -> None:
    warnings.simplefilter("ignore")  # Captum warns of its hooks at every call
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = lenet5().eval().requires_grad_(False)
    images = torch.randn(4, 1, 28, 28)
    sides = {"convatlas": ours(network), "dense chain": dense(network), "Captum": captum(network)}
    results = {name: side(images) for name, side in sides.items()}
    for name, tensors in results.items():
        pairs = zip(tensors, results["convatlas"], strict=True)
        worst = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
        print(f"{name}: largest difference from convatlas {worst:.1e}")
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            start = time.perf_counter()
            side(images)
            times[name].append(1000 * (time.perf_counter() - start))
    for name, taken in times.items():
        ratio = statistics.median(a / b for a, b in zip(taken, times["convatlas"], strict=True))
        print(f"{name:12} {statistics.median(taken):7.2f} ms   {ratio:5.2f} x convatlas")


if __name__ == "__main__":
    main()
