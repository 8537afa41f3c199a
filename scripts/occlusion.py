"""Move a grey square over the sample images of a network and measure what it changes."""

import argparse

import torch

from convatlas import cli
from convatlas.attribution.occlusion_study.report import write_occlusion
from convatlas.models.build import choose_device


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    write_occlusion(args.output, args.data, args.settings, choose_device(args.device))


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        'views.occlusion and rectify of views.deconv, {"layer": null, "size": null, "stride": null,'
        ' "images": "all", "rectify": false}',
        "its folder, results/<network>, with its weights, layers.json, images.json and activations",
    )
    parser.add_argument("--data", help="the data set's folder, data/<dataset>, for trimaps")
    cli.add_compute_arguments(parser)
    cli.run(main, parser)
