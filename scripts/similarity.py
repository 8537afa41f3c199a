"""Compare the layers of networks by CKA: with each other, with untrained ones, and between networks."""

import argparse

import torch

from convatlas import cli
from convatlas.analysis.similarity.report import write_similarity
from convatlas.models.build import choose_device


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    write_similarity(args.output, args.results, args.data, args.settings, choose_device(args.device))


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    parser.add_argument(
        "--settings",
        type=cli.parse_settings,
        required=True,
        help="the seed, and the settings of each network and data set, as JSON",
    )
    parser.add_argument("--results", default="results", help="the folder of the networks' folders")
    parser.add_argument("--data", default="data", help="the folder of the data sets")
    parser.add_argument("--output", required=True, help="the folder to write, results/_similarity")
    cli.add_compute_arguments(parser)
    cli.run(main, parser)
