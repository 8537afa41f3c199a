"""The pages of a network: its own, and what is too long for it, tables of layers and plates of very many."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from convatlas.gallery.pages import browser, share, units
from convatlas.gallery.pages.network import NetworkData
from convatlas.gallery.pages.site import GalleryContext, SitePage

MAX_INLINE_ROWS = 60  # rows of a table up to which it stands on the network's page too
MAX_ROWS_PER_PAGE = 250  # rows of a table on a page: with eight cells each, half of what a page may hold
MAX_INLINE_LAYERS = 80  # layers with plates up to which all are on the network's page
LAYERS_PER_PAGE = 60  # layers whose plates are on one page, where they are not


@dataclass(frozen=True)
class LayerPage:
    """A page of its own for some of the layers: its file in networks/, and its title."""

    file: str
    title: str
    layers: list[dict[str, Any]]


def split_tables(page: NetworkData) -> list[LayerPage]:
    """The pages that tell all layers in tables, in execution order."""
    parts = [
        page.layers[first : first + MAX_ROWS_PER_PAGE]
        for first in range(0, len(page.layers), MAX_ROWS_PER_PAGE)
    ]
    title = f"{page.name}: {len(page.layers)} layers"
    return [
        LayerPage(_format_file_name(page, "layers", n), title + f", part {n}" * (n > 1), part)
        for n, part in enumerate(parts, 1)
    ]


def split_figures(page: NetworkData) -> list[LayerPage]:
    """The pages of the plates of layers that are not of the main road, by stages; none where they are few."""
    if len(page.layers_with_figures) <= MAX_INLINE_LAYERS:
        return []
    parts = []
    for stage, layers in page.other_layers_by_stage:
        for first in range(0, len(layers), LAYERS_PER_PAGE):
            some = layers[first : first + LAYERS_PER_PAGE]
            more = f", from {some[0]['name']}" if first else ""
            parts.append(
                LayerPage(
                    _format_file_name(page, "plates", len(parts) + 1), f"{page.name}: {stage}{more}", some
                )
            )
    return parts


def find_figure_pages(page: NetworkData) -> dict[str, str]:
    """The file in networks/ that has a layer's plates, "" for the network's own page, by the layer's name."""
    found = {layer["name"]: "" for layer in page.layers_with_figures}
    return found | {layer["name"]: part.file for part in split_figures(page) for layer in part.layers}


def select_matches(page: NetworkData, layers: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    """What is told of classical features, of the layers given.

    Without them what the network's page has room for: all, or where they are many those of which most units
    resemble one.
    """
    rows = page.matches["rows"]
    if layers is not None:
        names = {layer["name"] for layer in layers}
        return [row for row in rows if row["layer"] in names]
    if len(rows) <= MAX_INLINE_ROWS:
        return rows
    most = sorted(rows, key=lambda row: -row["matched"] / row["units"])[: MAX_INLINE_ROWS // 2]
    return [row for row in rows if row in most]


def make_pages(atlas: GalleryContext, page: NetworkData) -> Iterator[SitePage]:
    """All pages of a network: its own, those of its tables, and those of its plates where they are many."""
    numbers = share.list_published_files(atlas, page.name)
    files = {f"plates/{page.name}": atlas.results / page.name / "figures"} | numbers
    values = {"page": page, "numbers": {place: path.stat().st_size for place, path in numbers.items()}}
    values |= {"parts": split_figures(page), "matched": select_matches(page), "few": MAX_INLINE_ROWS}
    values["followed"] = units.has_statistics(atlas, page)
    values["browser"] = explored = browser.read_explorer_data(page, atlas, find_figure_pages(page))
    files |= explored.files if explored else {}
    written = explored.generated_files if explored else {}
    for plate in page.figures:
        if plate["shown"] != plate["file"]:
            picture = share.compress_cover(atlas.results / page.name / "figures" / plate["file"])
            written = written | {f"plates/{page.name}/{plate['shown']}": picture}
    yield SitePage(
        f"networks/{page.name}.html", "network.html", page.name, values, "Networks", files, written
    )
    there = {name: file or f"{page.name}.html" for name, file in find_figure_pages(page).items()}
    for template, parts in (("layers.html", split_tables(page)), ("plates.html", split_figures(page))):
        for part in parts:
            values = {"page": page, "part": part, "parts": parts, "there": there, "browser": explored}
            values["matched"] = select_matches(page, part.layers)
            yield SitePage(f"networks/{part.file}", template, part.title, values)
    yield from units.make_pages(atlas, page, list(explored.slugs) if explored else [])


def _format_file_name(page: NetworkData, what: str, number: int) -> str:
    return f"{page.name}-{what}{f'-{number}' if number > 1 else ''}.html"
