"""Project the top activations of a network's units over a data set to the pixels that caused them."""

import argparse

import torch

from convatlas import cli
from convatlas.attribution.top_activations import project_top_activations
from convatlas.models.build import choose_device


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    key = f"networks.{args.name}.views.strongest.project"
    project_top_activations(args.output, args.data, args.settings, device, args.threads, key)


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        '{"project": "all", "units": 16, "relevance": null, "rectify": false}; of views.strongest, .deconv',
        "its folder, results/<network>, with its statistics",
    )
    parser.add_argument("--data", required=True, help="the data set's folder, data/<dataset>")
    cli.add_compute_arguments(parser)
    cli.run(main, parser)
