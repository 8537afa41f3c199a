"""Ablate units and layers of a network and measure what it loses on the test images of its data set."""

import argparse

import torch

from convatlas import cli
from convatlas.analysis.ablation.report import write_ablation
from convatlas.models.build import choose_device


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    write_ablation(args.output, args.data, args.settings, choose_device(args.device))


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        'views.ablation and seed, {"layers": null, "units": 128, "images": 1000, "random_orders": 5,'
        ' "seed": 0}',
        "its folder, results/<network>, with its weights and layers.json",
    )
    parser.add_argument("--data", help="the data set's folder, data/<dataset>, with labels or masks")
    cli.add_compute_arguments(parser)
    cli.run(main, parser)
