"""Recording every layer call of resnet50 at 224 px: a forward pass, held in memory, streamed to a file.

The sides take turns, and the medians of each and of the ratios within a round are printed. Then the
memory of each side at its peak, beyond the network's, in a process of its own.

    python benchmarks/recording.py [folder to write in]
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from convatlas.tracing.record import record, record_to_file

ROUNDS = 15
SIDES = ("forward", "record", "stream")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="where the npz is written (default: a temporary folder)")
    with tempfile.TemporaryDirectory(dir=parser.parse_args().folder) as folder:
        path = Path(folder) / "a.npz"
        print(f"load of the last minute: {psutil.getloadavg()[0]:.1f}")
        timed(path)
        for side in SIDES:
            in_child(peak_memory, side, path)
        print(f"load of the last minute: {psutil.getloadavg()[0]:.1f}")


def sides(path: Path) -> dict[str, Callable[[], object]]:
    torch.manual_seed(0)
    network: nn.Module = resnet50().eval()
    image: Tensor = torch.randn(1, 3, 224, 224)

    @torch.no_grad()
    def forward() -> Tensor:
        return network(image)

    return {
        "forward": forward,
        "record": lambda: record(network, image),
        "stream": lambda: record_to_file(network, image, path),
    }


def timed(path: Path) -> None:
    of = sides(path)
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    for n in range(ROUNDS + 2):
        for side, run in of.items():
            start = time.perf_counter()
            run()
            if n >= 2:  # to warm up
                times[side].append(1000 * (time.perf_counter() - start))
    for side, taken in times.items():
        ratio = statistics.median(a / b for a, b in zip(taken, times["forward"], strict=True))
        print(f"{side:8} {statistics.median(taken):7.1f} ms   {ratio:5.2f} x a forward pass")
    print(f"{'file':8} {path.stat().st_size / 2**20:7.1f} MiB")


def peak_memory(side: str, path: Path) -> None:
    """Print the most memory that the side's first run takes, as Linux keeps it: VmHWM, reset before."""
    run = sides(path)[side]
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")
    run()
    status = Path("/proc/self/status").read_text()
    peak = 1024 * int(status.partition("VmHWM:")[2].split()[0])
    print(f"{side:8} {(peak - before) / 2**20:7.1f} MiB at the peak, beyond the network")


def in_child(work: Callable[[str, Path], None], *arguments: object) -> None:
    child = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    child.start()
    child.join()


if __name__ == "__main__":
    main()
