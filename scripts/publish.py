"""Pack the gallery: a zip of its folder, and one HTML file that needs no other file."""

import argparse
from pathlib import Path

from convatlas import cli
from convatlas.files import write_bytes
from convatlas.gallery.figure_selection import select_figures
from convatlas.gallery.single_file import MEGABYTE, build_single_file
from convatlas.gallery.zip_archive import write_zip


def main(args: argparse.Namespace) -> None:
    """Write the zip and the single file."""
    site, settings = Path(args.gallery), args.settings
    write_zip(site, Path(args.zip))
    cli.log.info("packed %s, %.1f MB", args.zip, Path(args.zip).stat().st_size / MEGABYTE)
    figures = select_figures(Path(args.results), settings["networks"], settings["layers"])
    file = build_single_file(site, figures, settings["megabytes"])
    content = file.html.encode()
    write_bytes(args.single, content)
    log = "wrote %s, %.1f MB, with %d of %d figures"
    cli.log.info(log, args.single, len(content) / MEGABYTE, file.n_figures, file.n_total)


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    parser.add_argument(
        "--settings",
        type=cli.parse_settings,
        required=True,
        help='the content of the single file, as JSON: {"layers": "highlight", "megabytes": 15, "networks": '
        '{"name": []}}, the last with the highlighted layers of each network',
    )
    parser.add_argument("--gallery", default="reports/gallery", help="the folder of the gallery")
    parser.add_argument("--results", default="results", help="the folder of the networks' folders")
    parser.add_argument("--zip", default="reports/gallery.zip", help="the zip to write")
    parser.add_argument("--single", default="reports/gallery.html", help="the single file to write")
    cli.run(main, parser)
