"""Draw the figures of a network from its results."""

import argparse
from pathlib import Path

from convatlas import cli
from convatlas.figures.build import write_figures
from convatlas.results import Results


def main(args: argparse.Namespace) -> None:
    output = Path(args.output)
    count = write_figures(Results(output), args.settings, output / "figures")
    cli.log.info("drew %d figures", count)


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        "its views",
        "its folder, results/<network>, with its results",
    )
    cli.run(main, parser)
