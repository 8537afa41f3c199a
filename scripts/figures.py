"""Draw the plates of a network from its recorded arrays."""

import argparse
from pathlib import Path

from convatlas import cli
from convatlas.figures.build import draw
from convatlas.files import whole, write_json
from convatlas.plotting.labelled_figure import save, style


def main(given: argparse.Namespace) -> None:
    output = Path(given.output)
    with whole(output / "figures") as folder, style():
        folder.mkdir()
        plates = []
        for plate in draw(output, given.name, given.settings):
            save(plate.figure, folder / plate.file, given.settings["pdf"])
            plates.append(plate.described(given.settings["pdf"]))
        write_json(folder / "plates.json", plates)
    cli.log.info("drew %d plates", len(plates))


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    cli.add_section(
        parser,
        "network",
        "its views",
        "its folder, results/<network>, where its records are",
    )
    cli.run(main, parser)
