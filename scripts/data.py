"""Make a data set in its official on-disk layout, embedded, downloaded or from a directory."""

import argparse

from convatlas import cli
from convatlas.datasets import describe, prepare_mnist


def main(given: argparse.Namespace) -> None:
    source, mirrors = given.settings["source"], given.settings["mirrors"]
    prepare_mnist(given.output, source, mirrors, key=f"datasets.{given.name}.source")
    made = describe(given.output)
    cli.log.info("%s: %d training and %d test images", made["title"], *map(sum, made["counts"].values()))


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    cli.add_section(
        parser,
        "data set",
        'its section of the config, {"format": "mnist", "source": "embedded", "mirrors": []}',
        "the folder to make, data/<name>",
    )
    cli.run(main, parser)
