"""Check the names of layers, units, images, classes and methods in the config against untrained networks."""

import argparse
import json
import sys
from functools import partial

import torch

from convatlas import cli
from convatlas.attribution.config_checks import (
    find_attribution_errors,
    find_feature_visualisation_errors,
    find_relevance_errors,
)
from convatlas.attribution.deconv_checks import find_deconv_errors
from convatlas.attribution.evolution.selection import find_evolution_errors
from convatlas.tracing.config_checks import check_networks


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    config = json.load(sys.stdin)
    checks = [
        partial(check, datasets=config["datasets"])
        for check in (find_attribution_errors, find_relevance_errors, find_feature_visualisation_errors)
    ]
    check_networks(config["networks"], args.seed, [find_deconv_errors, find_evolution_errors, *checks])


if __name__ == "__main__":
    parser = cli.create_parser(f"{__doc__} Reads `networks` and `datasets` of the config from stdin.")
    parser.add_argument("--seed", type=int, default=0, help="seed of the networks' weights")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    cli.run(main, parser)
