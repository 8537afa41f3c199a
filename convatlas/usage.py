"""What a stage of the pipeline took: time, memory and CPU time, in logs/<name>/<stage>.tsv."""

import os
import resource
import sys
import time
from pathlib import Path

from convatlas.files import write_bytes

LOGS = "CONVATLAS_LOGS"  # the environment variable that names the folder of logs; Snakemake sets it


def write_usage(stage: str, name: str, start: float) -> None:
    """Write what this process has taken, and the processes that it started and waited for.

    Columns are named as in Snakemake's benchmarks, which cannot see jobs of fork_server.py: `s`, seconds;
    `max_rss`, the largest memory of one process in MB; `cpu_time`, seconds of CPU time, user and system.

    Args:
        stage: The stage, with the number of its shard where it has one.
        name: The network or data set; "" for a stage of the whole run.
        start: When the process started, by `time.monotonic`.
    """
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
    memory = max(usage.ru_maxrss for usage in usages) * unit / 2**20
    cpu_seconds = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    row = f"{time.monotonic() - start:.2f}\t{memory:.2f}\t{cpu_seconds:.2f}"
    write_bytes(Path(os.environ[LOGS], name, f"{stage}.tsv"), f"s\tmax_rss\tcpu_time\n{row}\n".encode())
