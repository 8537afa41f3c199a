"""Images a second of the pass that finds the strongest activations and the statistics, of all layers.

Against a bare forward pass over the same batches, as they lie in memory there (channels last) and as torch
has them by default; the sides take turns, and the medians over rounds are printed, with those of the ratios
within a round. Then the memory of a pass at its peak for 1,000 and for 60,000 images. Images are noise, each
another; preparing them is not timed.

    python benchmarks/dataset_pass.py [--threads 2] [--rounds 12]
"""

import argparse
import copy
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from convatlas.models.build import build_network
from convatlas.statistics.dataset_pass import DatasetPass, choose_batch_size
from convatlas.statistics.tracked_layers import find_tracked_layers
from convatlas.tracing.layers import list_layers

Made = tuple[nn.Module, tuple[int, int, int]]
A_ROUND = {"lenet5": 5120, "resnet18": 32}  # images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"{given.threads} threads; load of the last minute: {psutil.getloadavg()[0]:.1f}")
    for name in A_ROUND:
        race(name, given.rounds)
    for count in (1_000, 60_000):
        in_child(peak_memory, count)
    print(f"load of the last minute: {psutil.getloadavg()[0]:.1f}")


def made(name: str) -> Made:
    torch.manual_seed(0)
    if name == "resnet18":
        return resnet18().eval().requires_grad_(False), (3, 224, 224)
    network, preprocessing = build_network({"architecture": name}, [str(n) for n in range(10)], seed=0)
    return network.requires_grad_(False), preprocessing.shape


def prepared(name: str, batch: int | None = None) -> tuple[nn.Module, tuple[int, int, int], int, DatasetPass]:
    """A network with its input's shape, and a pass over all its layers, in batches of the size it takes."""
    network, shape = made(name)
    names = [layer["name"] for layer in list_layers(network, shape) if layer["called"]]
    size = batch or choose_batch_size(shape, torch.device("cpu"))
    return (
        network,
        shape,
        size,
        DatasetPass(network, *find_tracked_layers(network, shape, names), 9, size, 10),
    )


def race(name: str, rounds: int) -> None:
    network, shape, size, survey = prepared(name)
    plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    labels = np.arange(10_000_000) % 10
    taken: dict[str, list[float]] = {"bare": [], "bare, default": [], "statistics": []}

    @torch.no_grad()
    def forward(of: nn.Module, batches: list[Tensor]) -> None:
        for x in batches:
            of(x)

    def follow_all(batches: list[Tensor], first: int) -> None:
        with survey:
            for n, x in enumerate(batches, first):
                survey.update(n, x, np.arange(n * size, n * size + size), labels)

    many = A_ROUND[name] // size
    for n in range(rounds + 2):
        batches = [torch.randn(size, *shape) for _ in range(many)]
        last = [x.to(memory_format=torch.channels_last) for x in batches]
        sides: dict[str, Callable[[], None]] = {
            "bare": lambda last=last: forward(network, last),
            "bare, default": lambda batches=batches: forward(plain, batches),
            "statistics": lambda batches=batches, n=n: follow_all(batches, n * many),
        }
        for side, run in sides.items():
            start = time.perf_counter()
            run()
            taken[side].append(time.perf_counter() - start)
    units = survey.areas.numel()
    print(
        f"{name}, {len(survey.layers)} layers, {units:,} units, batches of {size}, {survey.image_count:,} images"
    )
    for side, seconds in taken.items():
        ratio = statistics.median(a / b for a, b in zip(taken["bare"][2:], seconds[2:], strict=True))
        rate = many * size / statistics.median(seconds[2:])
        print(f"  {side:14} {rate:9,.1f} images/s   {ratio:5.2f} of a bare forward pass")


def peak_memory(images: int) -> None:
    """Print the most memory that a pass takes, as Linux keeps it: VmHWM."""
    _, shape, size, survey = prepared("lenet5")
    labels = np.arange(images + size) % 10
    with survey:
        for n in range(-(-images // size)):
            count = min(size, images - n * size)
            survey.update(n, torch.randn(count, *shape), np.arange(n * size, n * size + count), labels)
    survey.result()
    peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
    print(f"lenet5, {images:6,} images: {peak:6.1f} MiB at the peak")


def in_child(work: Callable[[int], None], *arguments: int) -> None:
    child = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    child.start()
    child.join()


if __name__ == "__main__":
    main()
