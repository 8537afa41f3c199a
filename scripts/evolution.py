"""Project the strongest activations of units over the training images, after some epochs of the training."""

import argparse

import torch

from convatlas import cli
from convatlas.attribution.evolution.report import write_evolution
from convatlas.models.build import choose_device


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    write_evolution(
        args.output, args.data, args.settings, device, key=f"networks.{args.name}.views.evolution"
    )


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        'views.evolution, {"epochs": [1, 2, 5], "layers": ["pool1"], "units": 6, "images": null}, with '
        '"rectify" of views.deconv',
        "its folder, results/<network>, with its weights, snapshots and recorded activations",
    )
    parser.add_argument("--data", required=True, help="the data set's folder, data/<dataset>")
    cli.add_compute_arguments(parser)
    cli.run(main, parser)
