"""Measure the speed and memory of a pass over a data set that tracks all layers.

The pass is compared with a bare forward pass over the same batches, in channels last and in the contiguous
format. The sides take turns; printed are medians over rounds, and the median of the ratios within a round.
Then the peak memory of a pass over few and over many images is printed. Images are noise, and their
generation is not timed.

    python benchmarks/dataset_pass.py [--threads 2] [--rounds 12] [--images 60000] [--smallest]
"""

import argparse
import copy
import multiprocessing
import statistics
import time
from collections.abc import Callable
from functools import partial
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

Shape = tuple[int, int, int]
IMAGES_PER_ROUND = {"lenet5": 5120, "resnet18": 32}
WARM_UP_ROUNDS = 2
LABELS = np.arange(10_000_000) % 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch")
    parser.add_argument("--rounds", type=int, default=12, help="rounds that are measured")
    parser.add_argument("--images", type=int, default=60_000, help="images of the larger memory measurement")
    parser.add_argument("--smallest", action="store_true", help="lenet5, one round, few images: seconds")
    args = parser.parse_args()
    names, rounds, counts = list(IMAGES_PER_ROUND), args.rounds, (1_000, args.images)
    if args.smallest:
        names, rounds, counts = ["lenet5"], 1, (100,)
    torch.set_num_threads(args.threads)
    print(f"{args.threads} threads; load of the last minute: {psutil.getloadavg()[0]:.1f}")
    for name in names:
        compare_speed(name, rounds)
    for count in counts:
        run_in_process(print_peak_memory, count)
    print(f"load of the last minute: {psutil.getloadavg()[0]:.1f}")


def build(name: str) -> tuple[nn.Module, Shape]:
    """Return a network of random weights and the shape of its input."""
    torch.manual_seed(0)
    if name == "resnet18":
        return resnet18().eval().requires_grad_(False), (3, 224, 224)
    network, preprocessing = build_network({"architecture": name}, [str(n) for n in range(10)], seed=0)
    return network.requires_grad_(False), preprocessing.shape


def build_pass(name: str) -> tuple[nn.Module, Shape, DatasetPass]:
    """Return a network, the shape of its input, and a pass that tracks all its layers."""
    network, shape = build(name)
    names = [layer["name"] for layer in list_layers(network, shape) if layer["called"]]
    batch_size = choose_batch_size(shape, torch.device("cpu"))
    layers, memory_format = find_tracked_layers(network, shape, names)
    return network, shape, DatasetPass(network, layers, memory_format, 9, batch_size, 10)


@torch.no_grad()
def run_forward(network: nn.Module, batches: list[Tensor]) -> None:
    """Run a network on batches."""
    for x in batches:
        network(x)


def run_pass(dataset_pass: DatasetPass, batches: list[Tensor], first: int) -> None:
    """Pass batches, the first of which has the number `first`."""
    size = dataset_pass.batch_size
    with dataset_pass:
        for index, x in enumerate(batches, first):
            dataset_pass.update(index, x, np.arange(index * size, (index + 1) * size), LABELS)


def compare_speed(name: str, rounds: int) -> None:
    """Print images per second of a pass and of bare forward passes."""
    network, shape, dataset_pass = build_pass(name)
    contiguous = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    size = dataset_pass.batch_size
    batch_count = IMAGES_PER_ROUND[name] // size
    seconds: dict[str, list[float]] = {}
    for n in range(rounds + WARM_UP_ROUNDS):
        batches = [torch.randn(size, *shape) for _ in range(batch_count)]
        channels_last = [x.to(memory_format=torch.channels_last) for x in batches]
        sides: dict[str, Callable[[], None]] = {
            "channels last": partial(run_forward, network, channels_last),
            "contiguous": partial(run_forward, contiguous, batches),
            "pass": partial(run_pass, dataset_pass, batches, n * batch_count),
        }
        for side, run in sides.items():
            start = time.perf_counter()
            run()
            if n >= WARM_UP_ROUNDS:
                seconds.setdefault(side, []).append(time.perf_counter() - start)
    print(
        f"{name}, {len(dataset_pass.layers)} layers, {len(dataset_pass.areas):,} units, batches of {size}, "
        f"{dataset_pass.image_count:,} images"
    )
    for side, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds["channels last"], values, strict=True))
        rate = batch_count * size / statistics.median(values)
        print(f"  {side:14} {rate:9,.1f} images/s   {ratio:5.2f} of a bare forward pass")


def print_peak_memory(images: int) -> None:
    """Print the peak memory of this process after a pass: VmHWM of Linux."""
    _, shape, dataset_pass = build_pass("lenet5")
    size = dataset_pass.batch_size
    with dataset_pass:
        for index in range(-(-images // size)):
            count = min(size, images - index * size)
            numbers = np.arange(index * size, index * size + count)
            dataset_pass.update(index, torch.randn(count, *shape), numbers, LABELS)
    dataset_pass.result()
    peak = int(Path("/proc/self/status").read_text(encoding="utf-8").partition("VmHWM:")[2].split()[0]) / 1024
    print(f"lenet5, {images:6,} images: {peak:6.1f} MiB at the peak")


def run_in_process(function: Callable[[int], None], *args: int) -> None:
    """Run a function in a process of its own."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=args)
    process.start()
    process.join()


if __name__ == "__main__":
    main()
