"""Measure how a network's features and prediction change as images are moved, scaled and rotated."""

import argparse

import torch

from convatlas import cli
from convatlas.analysis.invariance.write import write_invariance
from convatlas.models.build import choose_device


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    key = f"networks.{args.name}.views.invariance"
    write_invariance(args.output, args.data, args.settings, choose_device(args.device), key)


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        'views.invariance, {"images": 5, "layers": null, "padding": "edge", "scale": {...}, ...}',
        "its folder, results/<network>, with its recorded activations",
    )
    parser.add_argument("--data", help="the data set's folder, data/<dataset>, for further images")
    cli.add_compute_arguments(parser)
    cli.run(main, parser)
