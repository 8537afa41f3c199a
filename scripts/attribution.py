"""Attribute the class scores of a network's sample images to their pixels, by every method of the config."""

import argparse

import torch

from convatlas import cli
from convatlas.attribution.sample_images import attribute_sample_images
from convatlas.models.build import choose_device


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    attribute_sample_images(args.output, args.settings, device, key=f"networks.{args.name}.views.attribution")


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        'views.attribution, {"methods": ["gradient", "grad_cam"], "targets": "predicted", ...}, '
        'with "rectify" of views.deconv',
        "its folder, results/<network>, with its recorded activations and its projections",
    )
    cli.add_compute_arguments(parser)
    cli.run(main, parser)
