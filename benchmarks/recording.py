"""Measure recording every layer call of resnet50 at 224 px: a forward pass, in memory, and written to a file.
Both also verified.

The methods take turns, and the medians of each and of the ratios within a round are printed. Then the
memory of each method at its peak, beyond the network's, in a process of its own.

    python benchmarks/recording.py [folder to write in] [--smallest]
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
from torchvision.models import resnet18, resnet50

from convatlas.tracing.record import record, record_to_file

WARM_UP_ROUNDS = 2
METHODS = ("forward", "record", "record, verified", "stream", "stream, verified")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="where the npz is written (default: a temporary folder)")
    parser.add_argument("--smallest", action="store_true", help="resnet18 at 64 px, one round: seconds")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "a.npz"
        print_load()
        measure_time(path, rounds=1 if args.smallest else 15, smallest=args.smallest)
        for method in METHODS[-1:] if args.smallest else METHODS:
            run_in_child(print_peak_memory, method, path, args.smallest)
        print_load()


def print_load() -> None:
    print(f"load average of the last minute: {psutil.getloadavg()[0]:.1f}")


def make_methods(path: Path, smallest: bool) -> dict[str, Callable[[], object]]:
    torch.manual_seed(0)
    network: nn.Module = (resnet18() if smallest else resnet50()).eval()
    size = 64 if smallest else 224
    image: Tensor = torch.randn(1, 3, size, size)

    @torch.no_grad()
    def forward() -> Tensor:
        return network(image)

    return {
        "forward": forward,
        "record": lambda: record(network, image),
        "record, verified": lambda: record(network, image, verify=True),
        "stream": lambda: record_to_file(network, image, path),
        "stream, verified": lambda: record_to_file(network, image, path, verify=True),
    }


def measure_time(path: Path, rounds: int, smallest: bool) -> None:
    methods = make_methods(path, smallest)
    times: dict[str, list[float]] = {method: [] for method in METHODS}
    for n in range(rounds + WARM_UP_ROUNDS):
        for method, run in methods.items():
            start = time.perf_counter()
            run()
            if n >= WARM_UP_ROUNDS:
                times[method].append(1000 * (time.perf_counter() - start))
    for method, durations in times.items():
        ratio = statistics.median(a / b for a, b in zip(durations, times["forward"], strict=True))
        print(f"{method:16} {statistics.median(durations):7.1f} ms   {ratio:5.2f} x a forward pass")
    print(f"{'file':16} {path.stat().st_size / 2**20:7.1f} MiB")


def print_peak_memory(method: str, path: Path, smallest: bool) -> None:
    """Print the peak memory of a method's first run, as Linux records it: VmHWM, reset before the run."""
    run = make_methods(path, smallest)[method]
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    run()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = 1024 * int(status.partition("VmHWM:")[2].split()[0])
    print(f"{method:16} {(peak - before) / 2**20:7.1f} MiB at the peak, beyond the network")


def run_in_child(function: Callable[[str, Path, bool], None], *args: object) -> None:
    child = multiprocessing.get_context("spawn").Process(target=function, args=args)
    child.start()
    child.join()
    if child.exitcode:
        raise SystemExit(child.exitcode)


if __name__ == "__main__":
    main()
