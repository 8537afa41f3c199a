"""Make small pictures of a few images of each class of a data set, for its page."""

import argparse
from pathlib import Path

from convatlas import cli
from convatlas.datasets import previews
from convatlas.files import atomic_write, write_json


def main(given: argparse.Namespace) -> None:
    with atomic_write(given.output) as folder:
        folder.mkdir()
        found = previews.write_previews(Path(given.data), folder)
        write_json(folder / "examples.json", found)
    cli.log.info("drew %d training and %d test images", len(found["train"]), len(found["test"]))


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    parser.add_argument("--name", required=True, help="the data set's name in the config")
    parser.add_argument("--data", required=True, help="the data set's folder, data/<name>")
    parser.add_argument("--output", required=True, help="the folder to make, results/_datasets/<name>")
    cli.run(main, parser)
