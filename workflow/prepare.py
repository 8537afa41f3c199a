"""Check the config file of the command line, and unlock the folder after an interrupted run.

It stays locked where another run or its SLURM jobs still work in it.
"""

import argparse
import getpass
import shutil
import subprocess
import sys
from pathlib import Path

from convatlas import UserError
from convatlas.pipeline.config_file import check_config_file
from convatlas.pipeline.running import describe_running


def main() -> None:
    """Check the files of --configfile, then unlock the working directory with Snakemake, which takes them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configfile", nargs="+", default=[], help="config files, merged in their order")
    try:
        for path in parser.parse_args().configfile:
            check_config_file(path)
    except UserError as error:
        sys.exit(f"error: {error}")
    if not any(Path(".snakemake/locks").glob("*")):
        return
    if run := describe_running():
        sys.exit(f"error: another run is at work here ({run}); wait for it to end")
    if jobs := " ".join(list_jobs_here()):
        sys.exit(f"error: jobs of an earlier run are at work here; wait for them to end, or `scancel {jobs}`")
    print("An earlier run was interrupted; unlocking.", file=sys.stderr)
    done = subprocess.run(["snakemake", "--unlock", *sys.argv[1:]], stdout=subprocess.DEVNULL)
    sys.exit(done.returncode)


def list_jobs_here() -> list[str]:
    """Return the numbers of SLURM jobs, queued or running, submitted from the working directory."""
    if not shutil.which("squeue"):
        return []
    command = ["squeue", f"--user={getpass.getuser()}", "--noheader", "--format=%i %Z"]
    table = subprocess.run(command, capture_output=True, timeout=60).stdout.decode(errors="replace")
    rows = (line.split(maxsplit=1) for line in table.splitlines())
    return [number for number, folder in rows if Path(folder) == Path.cwd()]


if __name__ == "__main__":
    main()
