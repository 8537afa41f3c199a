"""Remove what an interrupted run left locked, unless another run is at work in this folder, or its jobs."""

import getpass
import shutil
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
    if jobs := " ".join(jobs_here()):
        sys.exit(f"error: jobs of an earlier run are at work here; wait for them to end, or `scancel {jobs}`")
    print("An earlier run was interrupted; unlocking.", file=sys.stderr)
    sys.exit(subprocess.run(["snakemake", "--unlock", *sys.argv[1:]], stdout=subprocess.DEVNULL).returncode)


def jobs_here() -> list[str]:
    """The numbers of SLURM's jobs, queued or running, that were sent from this folder."""
    if not shutil.which("squeue"):
        return []
    asked = ["squeue", f"--user={getpass.getuser()}", "--noheader", "--format=%i %Z"]
    table = subprocess.run(asked, capture_output=True, text=True, timeout=60).stdout
    rows = (line.split(maxsplit=1) for line in table.splitlines())
    return [number for number, folder in rows if Path(folder) == Path.cwd()]


if __name__ == "__main__":
    main()
