"""Draw the units of a network's layers as sprites, which the explorer colours and enlarges."""

import argparse
from pathlib import Path

from convatlas import cli
from convatlas.gallery.explorer_sprites import draw_explorer


def main(args: argparse.Namespace) -> None:
    """Draw the sprites of one network."""
    draw_explorer(Path(args.output), args.name, args.settings)


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        '{"layers": "all", "atlas": {"layers": null, "levels": 64}, "has_top_activations": false}: two of '
        "its views, and whether there are statistics and top activations over its data set",
        "its folder, results/<network>, where its results are",
    )
    cli.run(main, parser)
