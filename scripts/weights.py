"""Download torchvision's trained weights of a network, with their description."""

import argparse

from convatlas import cli
from convatlas.models.pretrained import download_weights


def main(args: argparse.Namespace) -> None:
    settings = args.settings
    download_weights(
        architecture=settings["architecture"],
        weights=settings["weights"],
        mirrors=settings["mirrors"],
        output=args.output,
        key=f"networks.{args.name}",
    )


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        '{"architecture": "torchvision/resnet50", "weights": "IMAGENET1K_V2", "mirrors": []}',
        "the file of the weights, data/weights/<model>-<weights>.pth; a .json is written beside it",
    )
    cli.run(main, parser)
