"""Remove what an interrupted run left locked, unless another run is at work in this folder."""

import subprocess
import sys
from pathlib import Path

import psutil


def main() -> None:
    if not any(Path(".snakemake/locks").glob("*")):
        return
    for process in psutil.process_iter(["name", "cmdline"]):
        try:
            snakemake = any("snakemake" in Path(word).name for word in (process.info["cmdline"] or [])[:2])
            if snakemake and Path(process.cwd()) == Path.cwd():
                sys.exit(f"error: another run is at work here (process {process.pid}); wait for it to end")
        except psutil.Error:
            continue
    print("An earlier run was interrupted; unlocking.", file=sys.stderr)
    sys.exit(subprocess.run(["snakemake", "--unlock", *sys.argv[1:]], stdout=subprocess.DEVNULL).returncode)


if __name__ == "__main__":
    main()
