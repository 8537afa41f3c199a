"""What a network's data set says of its units: the dead, those that tell classes apart, what excites each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convatlas.files import Npz, read_json
from convatlas.gallery.pages.network import NetworkData
from convatlas.gallery.pages.site import GalleryContext, SitePage

MAX_SELECTIVE_UNITS = 20  # units of a network that are named as its most selective
MAX_CLASS_COLUMNS = (
    12  # classes up to which the mean response to each is told of a last unit; of more the greatest three
)
MAX_LAST_LAYER_UNITS = 200  # units of the last layer that are told of
PASS_THROUGH_KINDS = ("reshape", "dropout")  # kinds of layers that lay out or pass on what another has made

Row = dict[str, Any]


@dataclass(frozen=True)
class UnitPageData:
    """What the page tells; `about` is statistics.json.

    `dead` has a row for each layer with dead units, `followed` how many layers there are; `selective` a row
    for each of the most selective units; `last` a row for each unit of `last_layer`, the last one that has
    weights, of `last_units` in all.
    """

    summary: dict[str, Any]
    n_layers: int
    dead_units: list[Row]
    selective_units: list[Row]
    last_layer: str
    class_responses: list[Row]
    n_last_layer_units: int

    @property
    def has_labels(self) -> bool:
        """Whether classes are the images' own, and not those that the network predicts."""
        return self.summary["by"] == "label"


def make_pages(atlas: GalleryContext, page: NetworkData, explored: Sequence[str]) -> Iterator[SitePage]:
    """The page of a network's units, of one that was followed over its data set.

    `explored` are the layers that its explorer shows.
    """
    if has_statistics(atlas, page):
        values = {
            "page": page,
            "units": read_unit_data(atlas.results / page.name, page),
            "explored": explored,
        }
        yield SitePage(f"networks/{page.name}-units.html", "units.html", f"{page.name}: its units", values)


def has_statistics(atlas: GalleryContext, page: NetworkData) -> bool:
    """Whether there are statistics of a network's units over its data set."""
    views = atlas.config["networks"][page.name]["views"]
    return bool(page.network["dataset"]) and views.get("strongest") is not None


def read_unit_data(folder: Path, page: NetworkData) -> UnitPageData:
    """Read what the data set said of the units of results/<network>/."""
    about, found = read_json(folder / "statistics.json"), Npz(folder / "statistics.npz")
    kinds = {layer["name"]: layer["kind"] for layer in page.layers}
    dead = [
        {"layer": layer["name"], "units": layer["units"], "count": len(layer["dead"]),
         "listed": format_ranges(layer["dead"])}
        for layer in about["layers"]
        if layer["dead"] and kinds.get(layer["name"]) not in PASS_THROUGH_KINDS
    ]  # fmt: skip
    activations = [layer["name"] for layer in about["layers"] if kinds.get(layer["name"]) == "activation"]
    weighted = [layer["name"] for layer in about["layers"] if kinds.get(layer["name"]) in ("conv", "linear")]
    last = weighted[-1] if weighted else ""
    rows = compute_class_responses(found, last, about["classes"], page.network["classes"]) if last else []
    return UnitPageData(
        about,
        len(about["layers"]),
        dead,
        find_selective_units(found, activations, about["classes"]),
        last,
        rows[:MAX_LAST_LAYER_UNITS],
        len(rows),
    )


def find_selective_units(found: Npz, layers: Sequence[str], classes: Sequence[str]) -> list[Row]:
    """The most class-selective units of the layers, the most selective first, ties in the layers' order.

    Of those alone that answer as many images as strongest activations are kept: a unit that answers one image
    is selective by that. `found` is statistics.npz.
    """
    rows: list[Row] = []
    for layer in layers:
        selectivity, responses = found[f"{layer}@selectivity"], found[f"{layer}@classes"]
        answers = found[f"{layer}@values"][:, -1] > 0
        for unit in np.flatnonzero(answers & (selectivity > 0)).tolist():
            best = int(np.nanargmax(responses[unit]))
            others = np.delete(responses[unit], best)
            rows.append(
                {
                    "layer": layer,
                    "unit": unit,
                    "selectivity": float(selectivity[unit]),
                    "class": classes[best],
                }
                | {"response": float(responses[unit, best]), "others": float(np.nanmean(others))}
            )
    return sorted(rows, key=lambda row: -row["selectivity"])[:MAX_SELECTIVE_UNITS]


def compute_class_responses(
    found: Npz, layer: str, classes: Sequence[str], names: Sequence[str]
) -> list[Row]:
    """What each unit of a layer responds to: its name where it has one, and its mean response by class.

    `responses` are those to each class, or where they are many to the three of greatest, (class, response).
    """
    responses = found[f"{layer}@classes"]
    if not responses.shape[1]:
        return []
    rows = []
    for unit, own in enumerate(responses):
        order = np.argsort(-np.nan_to_num(own, nan=-np.inf), kind="stable")
        shown = range(len(own)) if len(classes) <= MAX_CLASS_COLUMNS else order[:3].tolist()
        rows.append(
            {
                "unit": unit,
                "name": names[unit] if len(names) == len(responses) else "",
                "class": classes[int(order[0])],
                "responses": [(classes[c], None if np.isnan(own[c]) else float(own[c])) for c in shown],
                "selectivity": float(found[f"{layer}@selectivity"][unit]),
            }
        )
    return rows


def format_ranges(numbers: Sequence[int]) -> str:
    """List whole numbers, ascending, those that follow one another by the first and the last: 3, 7–9."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(
        str(first) if first == last else f"{first}, {last}" if last == first + 1 else f"{first}–{last}"
        for first, last in runs
    )
