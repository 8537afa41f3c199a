"""Optimise images that activate the units of a network, and images that it takes for its classes."""

import argparse

import torch

from convatlas import cli
from convatlas.attribution.feature_visualisation.write import write_feature_visualisation
from convatlas.models.build import choose_device


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    key = f"networks.{args.name}.views.feature_visualisation"
    write_feature_visualisation(args.output, args.settings, choose_device(args.device), key)


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        'views.feature_visualisation, {"units": 4, "classes": 4, "steps": 128, ...}, with "seed"',
        "its folder, results/<network>, with its projections, and its statistics where it has a data set",
    )
    cli.add_compute_arguments(parser)
    cli.run(main, parser)
