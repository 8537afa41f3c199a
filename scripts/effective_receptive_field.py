"""Measure the effective receptive fields of a network's layers over the test split of its data set."""

import argparse

import torch

from convatlas import cli
from convatlas.analysis.effective_receptive_field.report import write_effective_receptive_fields
from convatlas.models.build import choose_device


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    write_effective_receptive_fields(args.output, args.data, args.settings, choose_device(args.device))


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        'number of images, layers and seed, {"images": 16, "layers": null, "seed": 0}',
        "its folder, results/<network>, with its weights and layers.json",
    )
    parser.add_argument("--data", required=True, help="the data set's folder, data/<dataset>")
    cli.add_compute_arguments(parser)
    cli.run(main, parser)
