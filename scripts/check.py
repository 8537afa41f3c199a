"""Check the names of layers, units and sample images in the config against untrained networks."""

import argparse
import json
import sys

import torch

from convatlas import cli
from convatlas.tracing.config_checks import check_networks


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    check_networks(json.load(sys.stdin), args.seed)


if __name__ == "__main__":
    parser = cli.create_parser(f"{__doc__} Reads the config's networks from standard input, as JSON.")
    parser.add_argument("--seed", type=int, default=0, help="seed of the networks' weights")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    cli.run(main, parser)
