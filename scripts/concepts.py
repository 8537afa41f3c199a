"""Name the units of a network by the concepts of its data set that they separate best."""

import argparse

import torch

from convatlas import cli
from convatlas.analysis.concepts.report import write_concepts
from convatlas.models.build import choose_device


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    write_concepts(args.output, args.data, args.settings, choose_device(args.device))


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        'views.concepts, such as {"layers": null, "train": 100, "test": 100, "image_value": "mean"}',
        "its folder, results/<network>, with its weights and layers.json",
    )
    parser.add_argument("--data", required=True, help="the data set's folder, data/<dataset>")
    cli.add_compute_arguments(parser)
    cli.run(main, parser)
