"""Command lines of the scripts: arguments, the log, and user errors without a traceback."""

import argparse
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from convatlas import UserError, usage

log = logging.getLogger("convatlas")


class Settings(dict[str, Any]):
    """A section of the config, in which a missing key is a UserError, not a KeyError."""

    def __missing__(self, key: str) -> Any:
        raise UserError(f"--settings lacks {key!r}; it has: {', '.join(self) or 'nothing'}")


def parse_settings(text: str) -> Settings:
    """Parse a section of the config from JSON, as the type of a command-line argument.

    Args:
        text: A JSON object.

    Raises:
        argparse.ArgumentTypeError: The text is not a JSON object.
    """
    try:
        value = json.loads(text, object_hook=Settings)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from error
    if not isinstance(value, Settings):
        raise argparse.ArgumentTypeError("must be a JSON object")
    return value


def create_parser(description: str | None) -> argparse.ArgumentParser:
    """Return the parser of a script, which shows defaults in its help.

    Args:
        description: What the script does, usually the docstring of its module.
    """
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )


def add_section_arguments(
    parser: argparse.ArgumentParser, owner: str, settings_help: str, output_help: str
) -> None:
    """Add the arguments of scripts that write files of one data set or network.

    Args:
        parser: The script's parser.
        owner: "data set" or "network".
        settings_help: Which section of the config `--settings` takes.
        output_help: Which folder `--output` names.
    """
    parser.add_argument("--name", required=True, help=f"the {owner}'s name in the config")
    parser.add_argument("--settings", type=parse_settings, required=True, help=f"{settings_help}, as JSON")
    parser.add_argument("--output", required=True, help=output_help)


def add_compute_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of scripts that run a network, `--device` and `--threads`.

    Args:
        parser: The parser, changed in place.
    """
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="device of the network"
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch")


def run(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Parse the command line, run a script's `main`, and exit: 0, or 1 with one message for a user error.

    In a run of Snakemake, also write what the script took (convatlas.usage).

    Args:
        main: The script, which takes the parsed arguments.
        parser: The parser; log lines start with its argument `name`, where it has one, and so do errors that
            do not state it.

    Raises:
        SystemExit: The arguments are wrong, `main` raised a UserError or an error of a file, or it was
            interrupted.
    """
    start = time.monotonic() - time.process_time()  # which the imports took
    args = parser.parse_args()
    prefix = f"{args.name}: " if "name" in args else ""
    logging.basicConfig(format=f"{prefix}%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)  # only of this library: others log too much
    try:
        main(args)
        if usage.LOGS in os.environ:
            shard = f"-{args.shard}" if "shard" in args else ""
            name = args.name if "name" in args else ""
            usage.write_usage(Path(sys.argv[0]).stem + shard, name, start)
    except UserError as error:
        is_named = not prefix or re.search(rf"\b{args.name}\b", str(error))
        sys.exit(f"error: {error}" if is_named else f"error: {prefix}{error}")
    except OSError as error:
        if error.errno is None:
            raise
        sys.exit(f"error: {error.strerror}" + (f": {error.filename}" if error.filename else ""))
    except KeyboardInterrupt:
        sys.exit(f"{prefix}interrupted")
