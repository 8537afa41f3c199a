"""Measure at which layer of a network segmentation emerges, on a data set of pets with trimaps."""

import argparse

import torch

from convatlas import cli
from convatlas.analysis.segmentation_report import write_segmentation_analysis
from convatlas.models.build import choose_device


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    write_segmentation_analysis(args.output, args.data, args.settings, choose_device(args.device))


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        'number of images of each split, {"train": 32, "test": 32}',
        "its folder, results/<network>, with its weights and layers.json",
    )
    parser.add_argument("--data", required=True, help="the data set's folder, data/<dataset>, with trimaps")
    cli.add_compute_arguments(parser)
    cli.run(main, parser)
