"""Draw all units of a network's layers as sprites, which the pages colour and enlarge."""

import argparse
from pathlib import Path

from convatlas import cli
from convatlas.files import whole
from convatlas.gallery.explorer_sprites import draw, write_compact


def main(given: argparse.Namespace) -> None:
    output = Path(given.output)
    with whole(output / "atlas") as folder:
        folder.mkdir()
        index = draw(output, folder, given.name, given.settings)
        write_compact(folder / "atlas.json", index)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    cli.log.info(
        "drew %d layers on %d images: %.1f MB", len(index["layers"]), len(index["images"]), size / 1e6
    )


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    cli.add_section(
        parser,
        "network",
        'its views, of which {"layers": "all", "atlas": {"layers": null, "levels": 64}} are used',
        "its folder, results/<network>, where its records are",
    )
    cli.run(main, parser)
