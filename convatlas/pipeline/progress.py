"""The progress of a run: for each job that starts, a line of steps done, what runs, and the time left."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TextIO

MAX_LISTED_JOBS = 4  # that run, in a line


@dataclass(frozen=True)
class PlannedJob:
    """A job that a run will start.

    Attributes:
        rule: The name of its rule.
        subject: The network or data set that it works on; empty for a job of the whole run.
        earlier_seconds: How long it took when it last ran; None if it never did.
    """

    rule: str
    subject: str = ""
    earlier_seconds: float | None = None

    @property
    def description(self) -> str:
        """Return the rule and its subject."""
        return f"{self.rule} {self.subject}".strip()


def read_earlier_seconds(logs: Sequence[str]) -> float | None:
    """Return how long a job took in an earlier run; None without one.

    Args:
        logs: The job's log, beside which its stage wrote what it took (convatlas.usage): a table with
            tab-separated columns, the seconds in the first.
    """
    try:
        text = Path(logs[0]).with_suffix(".tsv").read_text(encoding="utf-8")
        return float(text.splitlines()[1].split("\t")[0])
    except (OSError, ValueError, IndexError):
        return None


def format_time_left(seconds: float) -> str:
    """Return a duration in words, as rough as an estimate is."""
    if seconds < 45:
        return "less than a minute left"
    if seconds < 90 * 60:
        return f"about {max(1, round(seconds / 60))} min left"
    return f"about {round(seconds / 3600)} h left"


class ProgressHandler(logging.Handler):
    """Write a line of progress for each job that starts, from the events that Snakemake logs.

    The time left is estimated from the duration of each job in an earlier run, otherwise from the mean of
    the jobs of its rule that have finished, otherwise from that of all. Without any there is no estimate.
    """

    def __init__(
        self,
        planned: Mapping[int, PlannedJob],
        cores: int,
        stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with nothing done.

        Args:
            planned: The jobs of the run by Snakemake's number.
            cores: How many jobs run side by side.
            stream: Where the lines are written.
            clock: Returns the time in seconds.
        """
        super().__init__(logging.INFO)
        self.planned = planned
        self.cores = cores
        self.stream = stream
        self.clock = clock
        self.started: dict[int, float] = {}
        self.durations: dict[int, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record of Snakemake's log."""
        match getattr(record, "event", None):
            case "job_started":
                jobs = [job for job in record.jobs if job in self.planned]  # type: ignore[attr-defined]
                if jobs:
                    self.started |= dict.fromkeys(jobs, self.clock())
                    self.stream.write(self.format_progress() + "\n")
                    self.stream.flush()
            case "job_finished" if record.job_id in self.started:  # type: ignore[attr-defined]
                job = record.job_id  # type: ignore[attr-defined]
                self.durations[job] = self.clock() - self.started[job]

    def format_progress(self) -> str:
        """Return the line of the present state."""
        running = [job for job in self.started if job not in self.durations]
        names = [self.planned[job].description for job in running]
        more = len(names) - MAX_LISTED_JOBS
        listed = ", ".join(names[:MAX_LISTED_JOBS]) + (f" and {more} more" if more > 0 else "")
        seconds = self.estimate_seconds_left()
        left = "" if seconds is None else f", {format_time_left(seconds)}"
        return f"[{len(self.durations)} of {len(self.planned)} steps done{left}] running: {listed}"

    def estimate_seconds_left(self) -> float | None:
        """Return the estimated time until the last job ends; None as long as no duration is known."""
        expected = {job: self._expect_seconds(job) for job in self.planned if job not in self.durations}
        if not expected or None in expected.values():
            return None
        now = self.clock()
        remaining = [
            max(0.0, (seconds or 0.0) - (now - self.started.get(job, now)))
            for job, seconds in expected.items()
        ]
        return max(max(remaining), sum(remaining) / self.cores)

    def _expect_seconds(self, job: int) -> float | None:
        planned = self.planned[job]
        if planned.earlier_seconds is not None:
            return planned.earlier_seconds
        same_rule = [
            seconds for other, seconds in self.durations.items() if self.planned[other].rule == planned.rule
        ]
        finished = same_rule or list(self.durations.values())
        return mean(finished) if finished else None


def hide_scheduling(record: logging.LogRecord) -> bool:
    """Return whether a record is not one of the scheduler's, "Select jobs" and "Execute 2 jobs"."""
    is_start = getattr(record, "event", None) == "job_started"
    return not is_start and not str(record.msg).startswith("Select jobs")
