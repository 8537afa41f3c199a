"""Measure what Snakemake's graph of a pass over a data set costs: dry runs with more and more shards.

The config has one network, ResNet-152 over a folder of images, with all shards still to do. No job runs:
Snakemake builds the graph and prints a summary. Printed are the wall time, CPU time and peak memory.

    python benchmarks/job_graph.py [--shards 100 1000 10000] [--limit 900] [--smallest]
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
LINKED = ("Snakefile", "config.yaml", "workflow", "scripts", "convatlas")  # into the folder of a dry run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, nargs="+", default=[100, 1_000, 10_000], help="their numbers")
    parser.add_argument("--limit", type=int, default=900, help="seconds after which a dry run is stopped")
    parser.add_argument("--smallest", action="store_true", help="ten shards: a few seconds")
    args = parser.parse_args()
    print(f"load of the last minute: {psutil.getloadavg()[0]:.1f}")
    print("  shards    jobs      wall       CPU    memory    CPU per shard")
    for shards in [10] if args.smallest else args.shards:
        measure_dry_run(shards, args.limit)
    print(f"load of the last minute: {psutil.getloadavg()[0]:.1f}")


def measure_dry_run(shards: int, limit: int) -> None:
    """Print the wall time, CPU time and peak memory of a dry run; stop it after `limit` seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in LINKED:
            (folder / path).symlink_to(ROOT / path)
        (folder / "shards.json").write_text(json.dumps(make_config(folder / "images", shards)))
        options = ["--configfile", "shards.json", "--dry-run", "--quiet", "rules", "--cores", "1"]
        with (folder / "output.txt").open("w") as output:
            start = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, "-m", "snakemake", TARGET, *options],
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": str(folder)},
            )
            signal.signal(signal.SIGALRM, lambda *_: process.kill())
            signal.alarm(limit)
            _, status, usage = os.wait4(process.pid, 0)  # which also returns the memory of this process alone
            signal.alarm(0)
        wall_time, cpu_time = time.perf_counter() - start, usage.ru_utime + usage.ru_stime
        text = (folder / "output.txt").read_text()
        if status:
            print(f"  {shards:6,}   failed ({status}) after {wall_time:.0f} s: {text[-300:].strip()}")
            return
        jobs = next(line.split()[-1] for line in text.splitlines() if line.startswith("total"))
        print(
            f"  {shards:6,}  {int(jobs):6,}  {wall_time:6.1f} s  {cpu_time:6.1f} s"
            f"  {usage.ru_maxrss / 1024:4.0f} MiB  {1000 * cpu_time / shards:6.1f} ms",
            flush=True,
        )


def make_config(images: Path, shards: int) -> dict[str, object]:
    """Return the config of one network whose pass has a number of shards, and create its folder of images."""
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
