"""Train a network on its data set, or load its trained weights, and evaluate it once on the test images."""

import argparse
import json

from convatlas import cli
from convatlas.training.run import train_network


def main(args: argparse.Namespace) -> None:
    train_network(
        name=args.name,
        settings=args.settings,
        output=args.output,
        data=args.data,
        weights=args.weights,
        seed=args.seed,
        device=args.device,
        threads=args.threads,
        images=args.images,
        snapshots=args.snapshots,
    )


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        "its architecture, arguments, weights, classes, dataset, input and training from the config",
        "its folder, results/<network>",
    )
    parser.add_argument("--data", help="the data set's folder, data/<dataset>, if it has one")
    parser.add_argument("--weights", help="the downloaded file of torchvision's weights, if it has them")
    parser.add_argument(
        "--images",
        type=json.loads,
        default={},
        help="its sample images from the config, checked beforehand, as JSON",
    )
    parser.add_argument(
        "--snapshots",
        type=json.loads,
        default=[],
        help="epochs, from 1, whose weights are saved, as JSON",
    )
    cli.add_compute_arguments(parser)
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the weights, the order of images and the validation set"
    )
    cli.run(main, parser)
