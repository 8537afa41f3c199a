"""The page of the evolution of a network's units: their projections through training, their convergence."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.evolution_pictures import (
    Sheet,
    iterate_sheets,
    render_filter_tiles,
    render_map_tiles,
    render_patch_tiles,
    render_projection_tiles,
)
from convatlas.gallery.line_chart import Axis, LineChart, Series, draw_line_chart
from convatlas.gallery.network_data import NetworkData
from convatlas.image_io import order_as_rgb, takes_rgb
from convatlas.names import format_number, join_names, make_file_name
from convatlas.records import EvolutionAnalysis, EvolutionLayer

MAX_LAYERS = 8  # that the page shows
MAX_UNITS = 12  # of a layer
CONVERGED = 0.9  # correlation from which projections are called near to those after the last epoch


@dataclass(frozen=True)
class Cell:
    """A unit after an epoch.

    Attributes:
        epoch: The epoch.
        title: The epoch in words.
        column: Number of its column.
        value: The strongest activation over the training images, as text.
        image: Its image and class, such as "123 (8)"; None of an inactive unit.
        changed: Whether the image is not that of the column before.
        alt: The cell in words.
    """

    epoch: int
    title: str
    column: int
    value: str
    image: str | None
    changed: bool
    alt: str


@dataclass(frozen=True)
class UnitRow:
    """A unit through training: its number, its row in the sheets, and its cells."""

    unit: int
    row: int
    cells: Sequence[Cell]


@dataclass(frozen=True)
class LayerFigure:
    """The figure of a layer's units.

    Attributes:
        layer: What evolution.json says of it.
        rows: Its units.
        sheets: The pictures by kind: projections, patches, filters, and maps of each sample image.
        n_hidden: Units that the page leaves out.
    """

    layer: EvolutionLayer
    rows: Sequence[UnitRow]
    sheets: Mapping[str, Sheet]
    n_hidden: int

    @property
    def style(self) -> str:
        """Return the custom properties that place the tiles of each kind in their sheets."""
        return "; ".join(
            f"--{kind}-{name}: {value}"
            for kind in ("patch", "filter", "map-0")
            if kind in self.sheets
            for name, value in self.sheets[kind].geometry.items()
        )


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the page of each network whose units were followed through training.

    Args:
        context: The run that the site shows.
    """
    for network in context.list_analysed("evolution"):
        analysis = network.results.evolution
        if analysis is None:
            continue
        explorer = context.explorers.get(network.name)
        figures = [make_figure(network, analysis, layer) for layer in analysis["layers"][:MAX_LAYERS]]
        values = {
            "network": network,
            "analysis": analysis,
            "explorer_layers": list(explorer.slugs) if explorer else [],
            "figures": figures,
            "titles": [title_epoch(epoch) for epoch in analysis["epochs"]],
            "samples": {
                f"map-{number}": network.image_titles[name] for number, name in enumerate(analysis["samples"])
            },
            "correlation_chart": draw_correlations(analysis),
            "change_chart": draw_changes(analysis),
            "summary": summarise(network),
        }
        pictures = {sheet.path: sheet.content for figure in figures for sheet in figure.sheets.values()}
        path = f"networks/{network.name}-evolution.html"
        title = f"{network.name}: evolution"
        yield SitePage(
            path,
            "evolution.html",
            title,
            values,
            generated_files=pictures,
            network=network.name,
            tab="Analyses",
            subtab="Evolution",
        )


def summarise(network: NetworkData) -> str:
    """Say in a sentence when the projections of units are near to those after the last epoch.

    Args:
        network: A network whose units were followed through training.
    """
    analysis = network.results.evolution
    assert analysis is not None
    if analysis["undefined"]:
        return f"Not defined for this network: {analysis['undefined']}"
    epochs = analysis["epochs"]
    groups: dict[str, list[str]] = {}
    for layer in analysis["layers"]:
        correlation = layer["correlation"]
        epoch = find_convergence(epochs, correlation)
        when = "only then" if epoch is None else f"from {title_epoch(epoch)} on"
        if correlation[-1] is None:
            when = "undefined, as units are inactive then,"
        groups.setdefault(when, []).append(f"{layer['name']} (untrained {_format(correlation[0])})")
    parts = [f"{when} in {join_names(names)}" for when, names in groups.items()]
    return (
        f"Projections of units correlate at least {CONVERGED} with those after the last epoch, {epochs[-1]}: "
        f"{'; '.join(parts)}."
    )


def find_convergence(epochs: Sequence[int], correlation: Sequence[float | None]) -> int | None:
    """Return the first epoch from which on the correlation stays at least CONVERGED.

    Args:
        epochs: The epochs of the snapshots.
        correlation: With the last one, after each of them.

    Returns:
        None where only the last one itself reaches it.
    """
    first = None
    for epoch, value in reversed(list(zip(epochs[:-1], correlation[:-1], strict=True))):
        if value is None or value < CONVERGED:
            break
        first = epoch
    return first


def title_epoch(epoch: int) -> str:
    """Return what a snapshot is called.

    Args:
        epoch: The number of epochs of training.
    """
    return f"epoch {epoch}" if epoch else "untrained"


def make_figure(network: NetworkData, analysis: EvolutionAnalysis, layer: EvolutionLayer) -> LayerFigure:
    """Draw the units of a layer.

    Args:
        network: The network.
        analysis: Its evolution.json.
        layer: The layer.
    """
    arrays, name = network.results.evolution_arrays, layer["name"]
    preprocessing = network.description["preprocessing"]
    shown = slice(MAX_UNITS)
    maps = arrays[f"{name}@maps"]
    kinds = {
        "projection": render_projection_tiles(arrays[f"{name}@projections"][:, shown], preprocessing),
        "patch": render_patch_tiles(arrays[f"{name}@patches"][:, shown], preprocessing),
        "filter": None,
        **{f"map-{n}": render_map_tiles(maps[:, n, shown]) for n in range(maps.shape[1])},
    }
    if layer["filters"]:
        filters = arrays[f"{name}@filters"][:, shown]
        is_first = any(e["module"] == layer["filters"] and e["ordinal"] == 1 for e in network.layers)
        as_rgb = is_first and filters.ndim == 5 and takes_rgb(filters, preprocessing)
        kinds["filter"] = render_filter_tiles(
            order_as_rgb(filters, preprocessing) if as_rgb else filters, as_rgb
        )
    folder = f"evolution/{network.name}/{make_file_name(name)}"
    rows = [
        UnitRow(
            unit, row, _make_cells(analysis, name, unit, arrays[f"{name}@values"], arrays[f"{name}@images"])
        )
        for row, unit in enumerate(layer["units"][shown])
    ]
    return LayerFigure(layer, rows, dict(iterate_sheets(folder, kinds)), len(layer["units"]) - len(rows))


def _make_cells(
    analysis: EvolutionAnalysis, layer: str, unit: int, values: np.ndarray, images: np.ndarray
) -> list[Cell]:
    """Describe a unit after each epoch."""
    cells: list[Cell] = []
    for column, epoch in enumerate(analysis["epochs"]):
        number, title = int(images[column, unit]), title_epoch(epoch)
        changed = column > 0 and number != int(images[column - 1, unit])
        if number < 0:
            alt = f"unit {unit} of {layer}, {title}: inactive on all training images"
            cells.append(Cell(epoch, title, column, "inactive", None, changed, alt))
            continue
        label = analysis["image_classes"].get(str(number))
        image = f"{number} ({label})" if label else str(number)
        value = format_number(float(values[column, unit]))
        alt = f"unit {unit} of {layer}, {title}, train image {image}"
        cells.append(Cell(epoch, title, column, value, image, changed, alt))
    return cells


def draw_correlations(analysis: EvolutionAnalysis) -> LineChart:
    """Draw how projections correlate with those after the last epoch, and different units as the control.

    Args:
        analysis: evolution.json.
    """
    epochs, series = analysis["epochs"], []
    for colour, layer in enumerate(analysis["layers"][:MAX_LAYERS]):
        series.append(Series(layer["name"], layer["correlation"], colour))
        if layer["between_units"] is not None:
            label = f"{layer['name']}, different units"
            series.append(Series(label, [layer["between_units"]] * len(epochs), colour, dashed=True))
    alt = "; ".join(
        f"{layer['name']} from {_format(layer['correlation'][0])} untrained to 1 after epoch {epochs[-1]}"
        for layer in analysis["layers"][:MAX_LAYERS]
    )
    values = [value for line in series for value in line.values if value is not None]
    y = Axis("correlation with the projection after the last epoch", (min(0.0, *values, 0.0), 1.0))
    return draw_line_chart(series, epochs, Axis("epoch"), y, alt)


def draw_changes(analysis: EvolutionAnalysis) -> LineChart:
    """Draw the share of units with another strongest image than at the snapshot before.

    Args:
        analysis: evolution.json.
    """
    epochs, layers = analysis["epochs"], analysis["layers"][:MAX_LAYERS]
    series = [
        Series(layer["name"], [None if share is None else 100 * share for share in layer["changed"]], colour)
        for colour, layer in enumerate(layers)
    ]
    alt = "; ".join(
        f"{layer['name']}: {_format(line.values[-1], '.0f')} % at epoch {epochs[-1]}"
        for layer, line in zip(layers, series, strict=True)
    )
    y = Axis("units with another strongest image than at the snapshot before, %", (0.0, 100.0))
    return draw_line_chart(series, epochs, Axis("epoch"), y, alt)


def _format(value: float | None, spec: str = ".2f") -> str:
    return "undefined" if value is None else format_number(round(value, 2) + 0.0, spec)  # no -0.00
