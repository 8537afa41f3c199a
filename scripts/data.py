"""Prepare a data set in its official on-disk layout: embedded, downloaded, or from a directory."""

import argparse

from convatlas import cli
from convatlas.datasets.formats import describe, prepare


def main(args: argparse.Namespace) -> None:
    """Prepare the data set and log its size."""
    prepare(args.output, args.settings, f"datasets.{args.name}")
    description = describe(args.output)
    counts = {split: sum(description["counts"][split]) for split in ("train", "test")}
    size = " and ".join(f"{count:,} {split} images" for split, count in counts.items() if count)
    classes = f" of {len(description['classes'])} classes" if description["classes"] else ""
    cli.log.info("%s: %s%s", description["title"], size, classes)


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "data set",
        'its section of the config, {"format": "mnist", "source": "embedded", "mirrors": []}',
        "the output folder, data/<name>",
    )
    cli.run(main, parser)
