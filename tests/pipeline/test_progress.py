"""The lines of progress: steps, what runs, time left."""

import io
import logging
from pathlib import Path
from typing import Any

import pytest

from convatlas.pipeline.progress import (
    PlannedJob,
    ProgressHandler,
    format_time_left,
    hide_scheduling,
    read_earlier_seconds,
)


def make_record(event: str | None, message: str = "", **attributes: Any) -> logging.LogRecord:
    """Return a record as Snakemake logs it."""
    return logging.makeLogRecord({"event": event, "msg": message, "levelno": logging.INFO, **attributes})


class Run:
    """A run of four jobs on two cores, with a clock that the test sets."""

    def __init__(self, **earlier_seconds: float) -> None:
        self.now = 0.0
        self.stream = io.StringIO()
        rules = {1: ("train", "b"), 2: ("record", "a"), 3: ("record", "b"), 4: ("gallery", "")}
        planned = {
            job: PlannedJob(rule, subject, earlier_seconds.get(rule))
            for job, (rule, subject) in rules.items()
        }
        self.handler = ProgressHandler(planned, 2, self.stream, lambda: self.now)

    def start(self, *jobs: int) -> str:
        """Start jobs and return the line that this writes."""
        self.handler.handle(make_record("job_started", jobs=list(jobs)))
        return self.stream.getvalue().splitlines()[-1]

    def finish(self, job: int) -> None:
        """Finish a job."""
        self.handler.handle(make_record("job_finished", job_id=job))


def test_a_line_names_the_steps_done_and_what_runs() -> None:
    run = Run()
    assert run.start(1, 2) == "[0 of 4 steps done] running: train b, record a"
    run.finish(2)
    assert run.start(3).startswith("[1 of 4 steps done")
    assert run.start(3).endswith("running: train b, record b")


def test_jobs_that_run_nothing_are_no_steps() -> None:
    run = Run()
    run.start(1)
    run.handler.handle(make_record("job_started", jobs=[99]))
    run.finish(99)
    assert run.stream.getvalue().count("\n") == 1
    assert run.start(2).startswith("[0 of 4")


def test_the_time_left_is_that_of_the_earlier_run_on_these_cores() -> None:
    run = Run(train=600, record=120, gallery=60)
    run.start(1, 2)
    assert run.handler.estimate_seconds_left() == 600  # the longest job, more than (600 + 240 + 60) / 2
    run.now = 500
    run.finish(2)
    run.start(3)
    assert run.handler.estimate_seconds_left() == (100 + 120 + 60) / 2
    run.now = 10_000  # a job that takes longer than it did is about to end
    assert run.handler.estimate_seconds_left() == 60


def test_without_an_earlier_run_the_finished_jobs_are_the_estimate() -> None:
    run = Run()
    run.start(1, 2)
    assert run.handler.estimate_seconds_left() is None
    run.now = 10
    run.finish(2)
    assert run.handler.estimate_seconds_left() == (0 + 10 + 10) / 2
    assert run.start(3).startswith("[1 of 4 steps done, less than a minute left]")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "less than a minute left"),
        (50, "about 1 min left"),
        (600, "about 10 min left"),
        (9e3, "about 2 h left"),
    ],
)
def test_durations_are_as_rough_as_an_estimate(seconds: float, text: str) -> None:
    assert format_time_left(seconds) == text


def test_the_lines_of_the_scheduler_are_hidden() -> None:
    assert not hide_scheduling(make_record("job_started", "Execute 2 jobs..."))
    assert not hide_scheduling(make_record(None, "Select jobs to execute..."))
    assert hide_scheduling(make_record(None, "Nothing to be done."))


def test_durations_are_read_beside_the_log(tmp_path: Path) -> None:
    log, path = str(tmp_path / "job.log"), tmp_path / "job.tsv"
    path.write_text("s\tmax_rss\n12.5\t80.1\n")
    assert read_earlier_seconds([log]) == 12.5
    path.write_text("s\tmax_rss\n")
    assert read_earlier_seconds([log]) is None
    assert read_earlier_seconds([str(tmp_path / "none.log")]) is None
    assert read_earlier_seconds([]) is None
