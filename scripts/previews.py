"""Write small pictures of images of a data set for the pages: previews of each class, and thumbnails."""

import argparse
from pathlib import Path

from convatlas import cli
from convatlas.datasets.near_duplicates import write_near_duplicates
from convatlas.datasets.previews import write_previews
from convatlas.datasets.thumbnails import write_thumbnails
from convatlas.files import atomic_write, write_json


def main(args: argparse.Namespace) -> None:
    """Write the previews, near-duplicates and thumbnails of one data set."""
    with atomic_write(args.output) as folder:
        folder.mkdir()
        previews = write_previews(Path(args.data), folder)
        write_json(folder / "examples.json", previews)
        duplicates = write_near_duplicates(Path(args.data), folder)
        write_json(folder / "near_duplicates.json", duplicates)
        thumbnail_count = write_thumbnails(Path(args.data), folder)
    train_count, test_count = len(previews["train"]), len(previews["test"])
    cli.log.info("wrote previews of %d training and %d test images", train_count, test_count)
    cli.log.info("wrote thumbnails of %d test images", thumbnail_count)
    cli.log.info("%d near-duplicates between the splits", len(duplicates["pairs"]))


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    parser.add_argument("--name", required=True, help="the data set's name in the config")
    parser.add_argument("--data", required=True, help="the data set's folder, data/<name>")
    parser.add_argument("--output", required=True, help="the output folder, results/_datasets/<name>")
    cli.run(main, parser)
