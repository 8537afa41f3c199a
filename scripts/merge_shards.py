"""Merge the shards of a network's pass over a data set into its statistics."""

import argparse

from convatlas import cli
from convatlas.statistics.summary import write_statistics


def main(args: argparse.Namespace) -> None:
    write_statistics(args.output, args.data, args.settings, args.shards)


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        "the settings of the shards, as of scripts/dataset_pass.py",
        "its folder, results/<network>, with its shards",
    )
    parser.add_argument("--data", required=True, help="the data set's folder, data/<dataset>")
    parser.add_argument("--shards", type=int, default=1, help="number of shards")
    cli.run(main, parser)
