"""Project a network's activations on its sample images to the pixels that caused them, by a deconvnet."""

import argparse

import torch

from convatlas import cli
from convatlas.attribution.projections import project_sample_images
from convatlas.models.build import choose_device


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    project_sample_images(args.output, args.settings, device, key=f"networks.{args.name}.views.deconv")


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        'views.deconv, {"layers": "all", "units": 16, "select": ["map", "peak"], "rectify": false, '
        '"steps": {}}',
        "its folder, results/<network>, with its recorded activations",
    )
    cli.add_compute_arguments(parser)
    cli.run(main, parser)
