"""Make a data set in its official on-disk layout, embedded, downloaded or from a directory."""

import argparse

from convatlas import cli
from convatlas.datasets.formats import describe, prepare


def main(given: argparse.Namespace) -> None:
    prepare(given.output, given.settings, f"datasets.{given.name}")
    made = describe(given.output)
    counts = {split: sum(made["counts"][split]) for split in ("train", "test")}
    told = " and ".join(f"{n:,} {split} images" for split, n in counts.items() if n)
    classes = f" of {len(made['classes'])} classes" if made["classes"] else ""
    cli.log.info("%s: %s%s", made["title"], told, classes)


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "data set",
        'its section of the config, {"format": "mnist", "source": "embedded", "mirrors": []}',
        "the folder to make, data/<name>",
    )
    cli.run(main, parser)
