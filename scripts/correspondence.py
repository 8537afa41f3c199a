"""Measure how alike a network's features change as the head is occluded in several images."""

import argparse

import torch

from convatlas import cli
from convatlas.analysis.correspondence.write import write_correspondence
from convatlas.models.build import choose_device


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    key = f"networks.{args.name}.views.correspondence"
    write_correspondence(args.output, args.data, args.settings, choose_device(args.device), key)


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        'views.correspondence with the seed, {"images": 5, "sets": 5, "draws": 39, ..., "seed": 0}',
        "its folder, results/<network>, with its weights and layers.json",
    )
    parser.add_argument("--data", required=True, help="the data set's folder, data/<dataset>, with boxes")
    cli.add_compute_arguments(parser)
    cli.run(main, parser)
