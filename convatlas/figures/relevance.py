"""Figures of the images on which units are most relevant to a class, beside those of top activations."""

import math
from collections.abc import Iterator

import numpy as np

from convatlas.figures.context import Caption, CaptionedFigure, FigureContext
from convatlas.figures.tiles import MAX_ROW_WIDTH, MontageOptions, split_into_chunks
from convatlas.figures.top_activations import TARGET_PATCH_SIZE
from convatlas.names import format_shape
from convatlas.plotting.montage import GAP, Tile, TileRow
from convatlas.plotting.top_activation_tiles import assemble_tile_block, render_patches
from convatlas.records import DatasetStatistics
from convatlas.results import projected_units

MAX_VALUES = 2_000_000  # values that a figure shows, about 1 MB: of large patches fewer units


def draw_relevance_figures(context: FigureContext) -> Iterator[CaptionedFigure]:
    """Draw a figure of each layer and class of `views.strongest.relevance`.

    Args:
        context: The network's results and views.

    Yields:
        Figures of kind "relevance"; none where the views ask for none.
    """
    statistics = context.dataset_statistics
    if statistics is None:
        return
    arrays = context.results.top_activations
    for key in arrays:
        layer, _, suffix = key.rpartition("@")
        if suffix == "relevance_classes":
            for row in range(len(arrays[key])):
                yield _draw_class_figure(context, statistics, layer, row)


def _draw_class_figure(
    context: FigureContext, statistics: DatasetStatistics, layer: str, row: int
) -> CaptionedFigure:
    """Draw two blocks of patches for each unit: by activation, and by relevance to a class."""
    arrays = context.results.top_activations
    top_patches, patches = arrays[f"{layer}@patches"], arrays[f"{layer}@relevance_patches"][row]
    top_images, images = arrays[f"{layer}@images"], arrays[f"{layer}@relevance_images"][row]
    values = arrays[f"{layer}@values"]
    projected = projected_units(arrays, layer)
    units = projected[: max(1, MAX_VALUES // (2 * math.prod(patches.shape[1:])))]
    factor = max(1, round(TARGET_PATCH_SIZE / max(patches.shape[-2:])))

    def make_block(unit_patches: np.ndarray) -> np.ndarray:
        pixels = render_patches(context.network["preprocessing"], unit_patches)
        return assemble_tile_block(pixels, factor) / 255

    pairs: list[tuple[Tile, Tile]] = []
    for n, unit in enumerate(units):
        present = images[n][images[n] >= 0]
        shared = len(np.intersect1d(present, top_images[unit]))
        strongest = f"{values[unit, 0]:.3g}" if np.isfinite(values[unit, 0]) else "NaN or ∞"
        note = f"{shared} of {len(present)} shared" if len(present) else "not relevant"
        relevant = Tile(make_block(patches[n]), None, "", note, crossed_out=not len(present))
        pairs.append((Tile(make_block(top_patches[n]), None, f"unit {unit}", strongest), relevant))
    tile_size = max(max(tile.values.shape[:2]) for tile in pairs[0])
    chunks = split_into_chunks(pairs, max(1, MAX_ROW_WIDTH // (2 * (tile_size + GAP) + 2 * GAP)))
    rows: list[TileRow] = [[tile for pair in chunk for tile in pair] for chunk in chunks]
    number = int(arrays[f"{layer}@relevance_classes"][row])
    name = context.network["classes"][number]
    labels = [f"{layer}\n{name}", *[""] * (len(rows) - 1)]
    caption = _write_caption(statistics, layer, name, patches, len(units), len(values))
    options = MontageOptions(tile_size=tile_size, group_starts=range(2, 2 * len(chunks[0]), 2))
    return context.make_montage("relevance", layer, rows, labels, [], caption, options, suffix=f"-{number}")


def _write_caption(
    statistics: DatasetStatistics, layer: str, name: str, patches: np.ndarray, drawn: int, units: int
) -> Caption:
    unit_text = f"{units} units" if drawn == units else f"{drawn} of {units} units"
    line = (
        f"{layer}: images most relevant to the class {name} beside top-activating images, {unit_text}, over "
        f"{statistics['images']:,} {statistics['split']} images of {statistics['dataset']}"
    )
    text = (
        f"Left: the {format_shape(patches.shape[-2:])} pixels of each of the "
        f"{patches.shape[1]} top activations; right: of each image with the largest relevance, the pixels of "
        "the largest contribution. Relevance: activation × gradient of the class's logit, summed over the "
        "unit's map. Above: the unit, its strongest activation, and how many images are on both sides."
    )
    return Caption(line, f"{text} Beige: outside the image, or no further image with a positive relevance.")
