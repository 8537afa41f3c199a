"""Compare a network's feature maps and filters with classical operators and an untrained network."""

import argparse

import torch

from convatlas import cli
from convatlas.analysis.classical_report import write_classical_matches
from convatlas.models.build import choose_device


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    write_classical_matches(args.output, args.settings["match"], choose_device(args.device))


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        'smallest |r| of a match, {"match": 0.5}',
        "its folder, results/<network>, with its layers, filters and activations",
    )
    cli.add_compute_arguments(parser)
    cli.run(main, parser)
