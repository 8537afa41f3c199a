"""The pages of a network: its own, and what is too long for it, tables of layers and plates of very many."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from convatlas.gallery.pages import browser, share, units
from convatlas.gallery.pages.network import Page
from convatlas.gallery.pages.site import Atlas, Sheet

FEW = 60  # rows of a table up to which it stands on the network's page too
ROWS = 250  # rows of a table on a page: with eight cells each, half of what a page may hold
PLATES = 80  # layers with plates up to which all are on the network's page
TOGETHER = 60  # layers whose plates are on one page, where they are not


@dataclass(frozen=True)
class Part:
    """A page of its own for some of the layers: its file in networks/, and its title."""

    file: str
    title: str
    layers: list[dict[str, Any]]


def tables(page: Page) -> list[Part]:
    """The pages that tell all layers in tables, in execution order."""
    parts = [page.layers[first : first + ROWS] for first in range(0, len(page.layers), ROWS)]
    title = f"{page.name}: {len(page.layers)} layers"
    return [
        Part(_file(page, "layers", n), title + f", part {n}" * (n > 1), part)
        for n, part in enumerate(parts, 1)
    ]


def plates(page: Page) -> list[Part]:
    """The pages of the plates of layers that are not of the main road, by stages; none where they are few."""
    if len(page.shown) <= PLATES:
        return []
    parts = []
    for stage, layers in page.aside:
        for first in range(0, len(layers), TOGETHER):
            some = layers[first : first + TOGETHER]
            more = f", from {some[0]['name']}" if first else ""
            parts.append(Part(_file(page, "plates", len(parts) + 1), f"{page.name}: {stage}{more}", some))
    return parts


def places(page: Page) -> dict[str, str]:
    """The file in networks/ that has a layer's plates, "" for the network's own page, by the layer's name."""
    found = {layer["name"]: "" for layer in page.shown}
    return found | {layer["name"]: part.file for part in plates(page) for layer in part.layers}


def matched(page: Page, layers: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    """What is told of classical features, of the layers given.

    Without them what the network's page has room for: all, or where they are many those of which most units
    resemble one.
    """
    rows = page.matched["rows"]
    if layers is not None:
        names = {layer["name"] for layer in layers}
        return [row for row in rows if row["layer"] in names]
    if len(rows) <= FEW:
        return rows
    most = sorted(rows, key=lambda row: -row["matched"] / row["units"])[: FEW // 2]
    return [row for row in rows if row in most]


def sheets(atlas: Atlas, page: Page) -> Iterator[Sheet]:
    """All pages of a network: its own, those of its tables, and those of its plates where they are many."""
    numbers = share.numbers(atlas, page.name)
    files = {f"plates/{page.name}": atlas.results / page.name / "figures"} | numbers
    values = {"page": page, "numbers": {place: path.stat().st_size for place, path in numbers.items()}}
    values |= {"parts": plates(page), "matched": matched(page), "few": FEW}
    values["followed"] = units.is_followed(atlas, page)
    values["browser"] = explored = browser.browser(page, atlas, places(page))
    files |= explored.files if explored else {}
    written = explored.written if explored else {}
    for plate in page.plates:
        if plate["shown"] != plate["file"]:
            picture = share.light(atlas.results / page.name / "figures" / plate["file"])
            written = written | {f"plates/{page.name}/{plate['shown']}": picture}
    yield Sheet(f"networks/{page.name}.html", "network.html", page.name, values, "Networks", files, written)
    there = {name: file or f"{page.name}.html" for name, file in places(page).items()}
    for template, parts in (("layers.html", tables(page)), ("plates.html", plates(page))):
        for part in parts:
            values = {"page": page, "part": part, "parts": parts, "there": there, "browser": explored}
            values["matched"] = matched(page, part.layers)
            yield Sheet(f"networks/{part.file}", template, part.title, values)
    yield from units.sheets(atlas, page, list(explored.slugs) if explored else [])


def _file(page: Page, what: str, number: int) -> str:
    return f"{page.name}-{what}{f'-{number}' if number > 1 else ''}.html"
