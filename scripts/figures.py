"""Draw the plates of a network from its recorded arrays."""

import argparse
from pathlib import Path

from convatlas import cli
from convatlas.figures.build import draw_figures
from convatlas.files import atomic_write, write_json
from convatlas.plotting.labelled_figure import figure_style, save_figure


def main(args: argparse.Namespace) -> None:
    output = Path(args.output)
    with atomic_write(output / "figures") as folder, figure_style():
        folder.mkdir()
        plates = []
        for plate in draw_figures(output, args.name, args.settings):
            save_figure(plate.figure, folder / plate.file, args.settings["pdf"])
            plates.append(plate.to_dict(args.settings["pdf"]))
        write_json(folder / "plates.json", plates)
    cli.log.info("drew %d plates", len(plates))


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        "its views",
        "its folder, results/<network>, where its records are",
    )
    cli.run(main, parser)
