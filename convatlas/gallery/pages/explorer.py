"""A network's sprites, brought into the site: pictures, and scripts of numbers that file:// can load."""

import json
from pathlib import Path
from typing import Any

from convatlas.files import read_json
from convatlas.gallery.pages.network import NetworkData


def read_explorer_files(
    page: NetworkData, results: Path
) -> tuple[dict[str, Path], dict[str, str], dict[str, Any]]:
    """What the explorer of a network needs in the site.

    Gives the files to copy and the texts to write, each by its place in the site, and the index that the
    page embeds: atlas.json, with the network's name. The pictures come to atlas/<network>/, as they lie in
    results/<network>/atlas/, and the numbers of a layer to atlas/<network>/units/<slug>.js.
    """
    folder = results / page.name / "atlas"
    index = {"network": page.name} | read_json(folder / "atlas.json")
    written = {}
    for layer in index["layers"]:
        slug = layer["slug"]
        text = format_units_script(page.name, slug, read_json(folder / f"units/{slug}.json"))
        written[f"atlas/{page.name}/units/{slug}.js"] = text
    return {f"atlas/{page.name}": folder}, written, index


def format_units_script(network: str, slug: str, units: dict[str, Any]) -> str:
    """A call that hands a layer's numbers to the page: JSON that is a script too, wherever it stands."""
    given = ", ".join(json.dumps(part, separators=(",", ":")) for part in (network, slug, units))
    return "convatlas.units({});\n".format(given.replace("<", r"\u003c"))
