"""What the scripts share: arguments, the log, and errors without a traceback."""

import argparse
import json
import logging
import sys
from collections.abc import Callable
from typing import Any

from convatlas import UserError

log = logging.getLogger("convatlas")


class Settings(dict[str, Any]):
    """A section of the config; a key that is not there is the user's mistake, not a KeyError."""

    def __missing__(self, key: str) -> Any:
        raise UserError(f"--settings lacks {key!r}; it has: {', '.join(self) or 'nothing'}")


def parse_settings(text: str) -> Settings:
    """Parse a section of the config, given as JSON on the command line."""
    try:
        value = json.loads(text, object_hook=Settings)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"no JSON: {error}") from error
    if not isinstance(value, Settings):
        raise argparse.ArgumentTypeError("must be a JSON object")
    return value


def create_parser(description: str | None) -> argparse.ArgumentParser:
    """Start a script's arguments; each script is a rule's command line and runs by hand as well."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )


def add_section_arguments(arguments: argparse.ArgumentParser, of: str, section: str, output: str) -> None:
    """Add what every script takes that makes the files of one data set or network."""
    arguments.add_argument("--name", required=True, help=f"the {of}'s name in the config")
    arguments.add_argument("--settings", type=parse_settings, required=True, help=f"{section}, as JSON")
    arguments.add_argument("--output", required=True, help=output)


def add_compute_arguments(arguments: argparse.ArgumentParser) -> None:
    """Add what every script that runs a network takes."""
    arguments.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where it runs")
    arguments.add_argument("--threads", type=int, default=2, help="CPU threads of torch")


def run(main: Callable[[argparse.Namespace], None], arguments: argparse.ArgumentParser) -> None:
    """Parse, run `main`, and end: 0, or 1 with one message for a user's mistake."""
    given = arguments.parse_args()
    prefix = f"{given.name}: " if "name" in given else ""
    logging.basicConfig(format=f"{prefix}%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)  # of this library alone; others talk at length
    try:
        main(given)
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno is None:
            raise
        sys.exit(f"error: {error.strerror}" + (f": {error.filename}" if error.filename else ""))
    except KeyboardInterrupt:
        sys.exit(f"{prefix}interrupted")
