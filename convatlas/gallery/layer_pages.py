"""How a network's layers are divided between its own page and further pages for tables and figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from convatlas.gallery.network_data import LayerMatchRow, NetworkData, NetworkLayer

MAX_INLINE_ROWS = 40  # rows of a table up to which the network's page has it too
MAX_ROWS_PER_PAGE = 250  # with eight cells a row, half of the elements that a page may have
MAX_INLINE_LAYERS = 30  # layers with figures up to which the network's page has all of them
LAYERS_PER_PAGE = 60  # layers with figures on a page of their own


@dataclass(frozen=True)
class LayerPage:
    """A page for some of a network's layers: its file in networks/, its title and the layers."""

    file: str
    title: str
    layers: Sequence[NetworkLayer]


def split_tables(network: NetworkData) -> list[LayerPage]:
    """Return the pages with the table of all layers, in execution order.

    Args:
        network: The network.

    Returns:
        Pages of at most MAX_ROWS_PER_PAGE layers.
    """
    chunks = [
        network.layers[start : start + MAX_ROWS_PER_PAGE]
        for start in range(0, len(network.layers), MAX_ROWS_PER_PAGE)
    ]
    title = f"{network.name}: {len(network.layers)} layers"
    return [
        LayerPage(
            _format_file_name(network, "layers", number),
            f"{title}, part {number}" if number > 1 else title,
            layers,
        )
        for number, layers in enumerate(chunks, 1)
    ]


def split_figures(network: NetworkData) -> list[LayerPage]:
    """Return the pages with the figures of the layers that are not highlighted, by stages.

    Args:
        network: The network.

    Returns:
        Pages of whole stages, or of parts of one, of at most LAYERS_PER_PAGE layers each; none where the
        network's own page has room for all figures.
    """
    if len(network.layers_with_figures) <= MAX_INLINE_LAYERS:
        return []
    groups: list[list[tuple[str, Sequence[NetworkLayer]]]] = []  # the parts of each page, with their titles
    room = 0
    for stage, layers in network.other_layers_by_stage:
        for start in range(0, len(layers), LAYERS_PER_PAGE):
            chunk = layers[start : start + LAYERS_PER_PAGE]
            if len(chunk) > room:
                groups.append([])
                room = LAYERS_PER_PAGE
            groups[-1].append((f"{stage}, from {chunk[0]['name']}" if start else stage, chunk))
            room -= len(chunk)
    return [
        LayerPage(
            _format_file_name(network, "figures", number),
            f"{network.name}: {' to '.join(dict.fromkeys([parts[0][0], parts[-1][0]]))}",
            [layer for _, chunk in parts for layer in chunk],
        )
        for number, parts in enumerate(groups, 1)
    ]


def find_figure_pages(network: NetworkData) -> dict[str, str]:
    """Find the page that has each layer's figures.

    Args:
        network: The network.

    Returns:
        Files in networks/ by the layer's name; "" for the network's own page.
    """
    pages = {layer["name"]: "" for layer in network.layers_with_figures}
    for page in split_figures(network):
        pages |= {layer["name"]: page.file for layer in page.layers}
    return pages


def select_matches(network: NetworkData, layers: Sequence[NetworkLayer] | None = None) -> list[LayerMatchRow]:
    """Select the rows of the table of classical features.

    Args:
        network: The network.
        layers: The layers to select. None selects what the network's page has room for: all rows, or, where
            they are many, those of the layers with the largest fraction of matching units.
    """
    rows = network.matches.rows
    if layers is not None:
        names = {layer["name"] for layer in layers}
        return [row for row in rows if row.layer in names]
    if len(rows) <= MAX_INLINE_ROWS:
        return rows
    top_rows = sorted(rows, key=lambda row: -row.n_matched / row.units)[: MAX_INLINE_ROWS // 2]
    return [row for row in rows if row in top_rows]


def _format_file_name(network: NetworkData, topic: Literal["layers", "figures"], number: int) -> str:
    suffix = f"-{number}" if number > 1 else ""
    return f"{network.name}-{topic}{suffix}.html"
