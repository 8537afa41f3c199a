"""Draw all units of a network's layers as sprites, which the pages colour and enlarge."""

import argparse
from pathlib import Path

from convatlas import cli
from convatlas.files import atomic_write
from convatlas.gallery.explorer_sprites import write_compact_json, write_layer_sprites


def main(args: argparse.Namespace) -> None:
    output = Path(args.output)
    with atomic_write(output / "atlas") as folder:
        folder.mkdir()
        index = write_layer_sprites(output, folder, args.name, args.settings)
        write_compact_json(folder / "atlas.json", index)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    cli.log.info(
        "drew %d layers on %d images: %.1f MB", len(index["layers"]), len(index["images"]), size / 1e6
    )


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        'its views, of which {"layers": "all", "atlas": {"layers": null, "levels": 64}} are used',
        "its folder, results/<network>, where its records are",
    )
    cli.run(main, parser)
