"""Pack the gallery to send: a zip of its folder, and one HTML file that needs nothing beside it."""

import argparse
from pathlib import Path

from convatlas import cli
from convatlas.files import write_bytes
from convatlas.gallery.single_file import MEGABYTE, build_single_file, select_figures, write_zip


def main(given: argparse.Namespace) -> None:
    site, settings = Path(given.gallery), given.settings
    write_zip(site, Path(given.zip))
    plates = select_figures(Path(given.results), settings["networks"], settings["layers"])
    file = build_single_file(site, plates, settings["megabytes"])
    write_bytes(given.single, file.html.encode())
    cli.log.info("packed %s, %s", given.zip, _format_size(given.zip))
    cli.log.info(
        "wrote %s, %s, with %d of %d plates",
        given.single,
        _format_size(given.single),
        file.n_figures,
        file.n_total,
    )


def _format_size(path: str) -> str:
    return f"{Path(path).stat().st_size / MEGABYTE:.1f} MB"


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    parser.add_argument(
        "--settings",
        type=cli.parse_settings,
        required=True,
        help='what goes into the single file, as JSON: {"layers": "highlight", "megabytes": 15, "networks": '
        '{"name": []}}, the last with the highlighted layers of each network',
    )
    parser.add_argument("--gallery", default="reports/gallery", help="the folder of the gallery")
    parser.add_argument("--results", default="results", help="the folder of the networks' folders")
    parser.add_argument("--zip", default="reports/gallery.zip", help="the zip to write")
    parser.add_argument("--single", default="reports/gallery.html", help="the single file to write")
    cli.run(main, parser)
