"""Build the gallery, a static site, from results/."""

import argparse
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from convatlas import cli
from convatlas.gallery.build import build_gallery, read_durations


def main(given: argparse.Namespace) -> None:
    names = list(given.settings["networks"])
    datasets = list(given.settings["datasets"])
    run = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _describe_commit(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "durations": read_durations(Path(given.logs), list(dict.fromkeys([*datasets, *names]))),
    }
    build_gallery(Path(given.output), Path(given.results), Path(given.data), names, given.settings, run)
    cli.log.info("built %s/index.html", given.output)


def _describe_commit() -> str:
    """The commit of the code that ran, and whether it was changed since."""
    try:
        root = Path(__file__).parent
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=root, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "not in a git checkout"
    return found.stdout.strip().replace("-dirty", ", with uncommitted changes")


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    parser.add_argument(
        "--settings", type=cli.parse_settings, required=True, help="the whole config as run, as JSON"
    )
    parser.add_argument("--results", default="results", help="the folder of the networks' folders")
    parser.add_argument("--data", default="data", help="the folder of the data sets")
    parser.add_argument("--logs", default="logs", help="the folder of the stages' benchmark files")
    parser.add_argument(
        "--output", default="reports/gallery", help="the folder to write; what was there is replaced"
    )
    cli.run(main, parser)
