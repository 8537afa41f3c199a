"""Build the gallery, a static site, from results/."""

import argparse
from pathlib import Path

from convatlas import cli
from convatlas.analysis.registry import ANALYSES
from convatlas.gallery.build import build_gallery
from convatlas.gallery.run_info import collect_run_info


def main(args: argparse.Namespace) -> None:
    """Build the gallery of all networks."""
    config = args.settings
    networks = list(config["networks"])
    shared = [analysis.name for analysis in ANALYSES if analysis.is_shared]
    run = collect_run_info(Path(args.logs), list(dict.fromkeys([*config["datasets"], *networks, *shared])))
    build_gallery(Path(args.output), Path(args.results), Path(args.data), networks, config, run)
    cli.log.info("built %s/index.html", args.output)


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    parser.add_argument(
        "--settings", type=cli.parse_settings, required=True, help="the resolved config, as JSON"
    )
    parser.add_argument("--results", default="results", help="the folder of the networks' folders")
    parser.add_argument("--data", default="data", help="the folder of the data sets")
    parser.add_argument("--logs", default="logs", help="the folder with what the stages took")
    parser.add_argument("--output", default="reports/gallery", help="the folder to write; it is replaced")
    cli.run(main, parser)
