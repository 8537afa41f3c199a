"""What a scheduler's graph of the pass over a data set costs: dry runs with ever more shards.

One network, ResNet-152 over images of one's own, divided into so many jobs that are still to do. Nothing is
run: what is measured is Snakemake, which builds the graph, and prints it.

    python benchmarks/job_graph.py [--shards 100 1000 10000] [--limit 900]
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
TARGET = "results/resnet152/statistics.npz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--limit", type=int, default=900, help="seconds that a dry run may take")
    given = parser.parse_args()
    print(f"load of the last minute: {psutil.getloadavg()[0]:.1f}")
    print("  shards    jobs      wall       CPU    memory    a shard, CPU")
    for shards in given.shards:
        dry_run(shards, given.limit)
    print(f"load of the last minute: {psutil.getloadavg()[0]:.1f}")


def dry_run(shards: int, limit: int) -> None:
    """Print what one takes: seconds of the clock and of the processor, and the most memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for linked in ("Snakefile", "config.yaml", "workflow", "scripts", "convatlas"):
            (folder / linked).symlink_to(ROOT / linked)
        (folder / "shards.json").write_text(json.dumps(config(folder / "images", shards)))
        asked = ["--configfile", "shards.json", "--dry-run", "--quiet", "rules", "--cores", "1"]
        with (folder / "printed").open("w") as printed:
            start = time.perf_counter()
            child = subprocess.Popen(
                [sys.executable, "-m", "snakemake", TARGET, *asked],
                **{"cwd": folder, "stdout": printed, "stderr": subprocess.STDOUT},
                env=os.environ | {"PYTHONPATH": str(folder)},
            )
            signal.signal(signal.SIGALRM, lambda *_: child.kill())
            signal.alarm(limit)
            _, status, used = os.wait4(child.pid, 0)
            signal.alarm(0)
        text = (folder / "printed").read_text()
        wall, cpu = time.perf_counter() - start, used.ru_utime + used.ru_stime
        if status:
            print(f"  {shards:6,}   ended with {status} after {wall:.0f} s: {text[-300:].strip()}")
            return
        jobs = next(line.split()[-1] for line in text.splitlines() if line.startswith("total"))
        print(
            f"  {shards:6,}  {int(jobs):6,}  {wall:6.1f} s  {cpu:6.1f} s  {used.ru_maxrss / 1024:4.0f} MiB"
            f"  {1000 * cpu / shards:6.1f} ms",
            flush=True,
        )


def config(images: Path, shards: int) -> dict[str, object]:
    """One network over a folder of images, its pass divided."""
    for split in ("train", "test"):
        (images / split / "class").mkdir(parents=True, exist_ok=True)
    network = {"architecture": "torchvision/resnet152", "weights": "IMAGENET1K_V2", "dataset": "photographs"}
    return {
        "datasets": {"photographs": {"format": "images", "source": str(images)}},
        "networks": {"resnet152": network | {"shards": shards}},
        "only": ["resnet152"],
    }


if __name__ == "__main__":
    main()
