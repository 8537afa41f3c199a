"""Convert the trained weights that a package ships to a safetensors file, with their description."""

import argparse

from convatlas import cli
from convatlas.models.embedded import write_embedded_weights


def main(args: argparse.Namespace) -> None:
    write_embedded_weights(args.output, key=f"networks.{args.name}")


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    parser.add_argument("--name", required=True, help="the network's name in the config, for messages")
    parser.add_argument(
        "--output", required=True, help="the file, data/weights/<model>-embedded.safetensors, and a .json"
    )
    cli.run(main, parser)
