"""The statistics over the data set for the explorer: numbers, and sheets of top-activating images.

A tile has the projections of a unit's top activations on the left and the image patches on the right, as
plotting/top_activation_tiles.py lays them out. It is in colour, each unit on a scale of its own.
"""

from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image

from convatlas.gallery.explorer_types import (
    ExplorerDataset,
    TopActivationSheets,
    UnitHistograms,
    UnitStatistics,
)
from convatlas.image_io import select_display
from convatlas.plotting.colormap import colour_table
from convatlas.plotting.quantize import quantize_image
from convatlas.plotting.sprites import (
    MAX_SHEET_SIZE,
    assemble_sheets,
    compute_sheet_layout,
    round_significant,
)
from convatlas.plotting.top_activation_tiles import (
    OUTSIDE_COLOUR,
    assemble_tile_block,
    fit_projection_scale,
    render_patches,
    render_projections,
)
from convatlas.records import Layer
from convatlas.results import Results, projected_units
from convatlas.statistics.class_preference import find_preferred_classes
from convatlas.statistics.histogram_bins import ZERO_BIN, list_bin_edges

MAX_LOSSLESS_PATCH_SIZE = 24  # pixels; sheets of larger patches are JPEG
JPEG_QUALITY = 75
GAP = 6  # pixels between a unit's projections and its patches
STATISTIC_DIGITS = 4  # significant digits of statistics
HISTOGRAM_LEVELS = 35  # of the height of a bar, a digit to the base 36
HISTOGRAM_BARS = 10  # of each sign, beside one for small values
EFFECT_DIGITS = 3  # significant digits of effect sizes
PASS_THROUGH_KINDS = ("reshape", "dropout")  # kinds of layers that only rearrange or pass on values


class StatisticsWriter:
    """Writer of the statistics of a network's units over its data set.

    Args:
        results: A network's results.
    """

    def __init__(self, results: Results) -> None:
        self.preprocessing = results.network["preprocessing"]
        self.summary = results.dataset_statistics
        self.statistics, self.top_activations = results.statistics, results.top_activations

    def __contains__(self, layer: str) -> bool:
        return f"{layer}@mean" in self.statistics

    @property
    def dataset_pass(self) -> ExplorerDataset:
        """Return the entry `dataset_pass` of atlas.json."""
        summary = self.summary
        return ExplorerDataset(
            dataset=summary["dataset"],
            split=summary["split"],
            images=summary["images"],
            class_source=summary["class_source"],
            classes=summary["classes"],
            class_images=summary["class_images"],
            k=summary["k"],
            bin_edges=list_bin_edges()[:-1].tolist(),
        )

    def unit_statistics(self, layer: Layer) -> UnitStatistics:
        """Return a layer's entry `dataset_pass` of units/<slug>.json.

        Args:
            layer: Its entry in layers.json.
        """

        def read(key: str) -> np.ndarray:
            return self.statistics[f"{layer['name']}@{key}"]

        statistics = UnitStatistics(
            mean=round_significant(read("mean"), STATISTIC_DIGITS),
            std=round_significant(read("std"), STATISTIC_DIGITS),
            max=round_significant(read("max"), STATISTIC_DIGITS),
            zero_fraction=round_significant(read("zero_fraction"), STATISTIC_DIGITS),
            selectivity=round_significant(read("selectivity"), STATISTIC_DIGITS),
            dead=np.flatnonzero(read("dead")).tolist(),
        )
        preference = find_preferred_classes(
            self.statistics, layer["name"], np.array(self.summary["class_images"]), self.summary["images"]
        )
        effects = round_significant(preference.effect_size, EFFECT_DIGITS)
        statistics["preferred_classes"] = {
            str(unit): (int(preference.preferred[unit]), effects[unit])
            for unit in np.flatnonzero(preference.preferred >= 0)
        }
        if layer["kind"] not in PASS_THROUGH_KINDS:
            statistics["histogram"] = encode_histograms(read("histogram"))
        return statistics

    def write_sheets(self, path: Path, layer: str) -> TopActivationSheets | None:
        """Write the sheets of a layer's top-activating images.

        Args:
            path: Where to write them, without a suffix.
            layer: Name of the layer.

        Returns:
            Their layout; None where the top activations are not projected, or the tiles are too large.
        """
        if f"{layer}@patches" not in self.top_activations:
            return None
        projections = select_display(self.top_activations[f"{layer}@projections"], self.preprocessing)
        patches = self.top_activations[f"{layer}@patches"]
        tiles = np.stack([self._make_tile(*unit) for unit in zip(projections, patches, strict=True)])
        if max(tiles.shape[1:3]) > MAX_SHEET_SIZE:
            return None
        layout = compute_sheet_layout(*tiles.shape[:3])
        is_lossless = max(patches.shape[-2:]) <= MAX_LOSSLESS_PATCH_SIZE
        suffix = "png" if is_lossless else "jpg"
        path.parent.mkdir(exist_ok=True)
        for number, pixels in enumerate(assemble_sheets(tiles, layout), 1):
            name = f"{path.name}.{number}" if number > 1 else path.name
            _write_sheet(path.with_name(f"{name}.{suffix}"), pixels, is_lossless)
        max_abs = [fit_projection_scale(unit_projections).high for unit_projections in projections]
        return TopActivationSheets(
            units=projected_units(self.top_activations, layer),
            tile_size=list(tiles.shape[1:3]),
            suffix=suffix,
            patch_size=list(patches.shape[-2:]),
            rgb=projections.shape[2] == 3,
            max_abs=cast(list[float], round_significant(np.array(max_abs))),
            columns=layout.columns,
            rows=layout.rows,
            sheets=layout.sheets,
        )

    def _make_tile(self, projections: np.ndarray, patches: np.ndarray) -> np.ndarray:
        """Lay a unit's projections and patches side by side: (H, W, 3) uint8."""
        left = assemble_tile_block(render_projections(fit_projection_scale(projections), projections))
        right = assemble_tile_block(render_patches(self.preprocessing, patches))
        gap = np.full((len(right), GAP, 3), OUTSIDE_COLOUR, np.uint8)
        return np.concatenate([left, gap, right], 1)


def encode_histograms(counts: np.ndarray) -> UnitHistograms:
    """Return histograms as short texts: the heights of bars whose areas are the numbers of values.

    Zeros have no bar. Bins of small values, too narrow to show, are merged for each sign.

    Args:
        counts: Counts of each unit in the bins of statistics/histogram_bins.py, (U, bins).
    """
    edges = list_bin_edges()
    edges[-1] = 2 * edges[-2]  # infinity, as wide as the powers of two before it
    sides = np.stack([counts[:, :ZERO_BIN][:, ::-1], counts[:, ZERO_BIN + 1 :]], 1)
    largest, texts = [], []
    for unit in sides.astype(np.float64):
        filled = np.flatnonzero(unit.any(0))
        n_bins = int(filled[-1]) + 1 if len(filled) else 0
        largest.append(n_bins)
        texts.append(_encode_bars(unit[:, :n_bins], edges) if n_bins else "")
    return UnitHistograms(values=int(counts.sum(1).max()), largest=largest, levels=texts)


def _encode_bars(counts: np.ndarray, edges: np.ndarray) -> str:
    """Return the bars of a unit, by its counts of negative and positive values by magnitude, (2, bins)."""
    n_bins = counts.shape[1]
    starts = [0, *range(max(n_bins - HISTOGRAM_BARS, 1), n_bins)]
    widths = np.diff([*edges[starts], edges[n_bins]])
    densities = np.add.reduceat(counts, starts, 1) / widths
    levels = np.ceil(HISTOGRAM_LEVELS * densities / densities.max()).astype(int)
    bars = [*levels[0, ::-1], *levels[1]] if counts[0].any() else levels[1]
    return "".join(np.base_repr(level, 36) for level in bars)


def _write_sheet(path: Path, pixels: np.ndarray, is_lossless: bool) -> None:
    """Write a sheet (H, W, 3) uint8 as PNG with a palette, or as JPEG without chroma subsampling."""
    if is_lossless:
        quantize_image(_add_alpha(pixels), [colour_table("RdBu_r")]).save(path, format="png", optimize=True)
    else:
        Image.fromarray(pixels).save(path, format="jpeg", quality=JPEG_QUALITY, subsampling=0, optimize=True)


def _add_alpha(pixels: np.ndarray) -> np.ndarray:
    """Add an opaque alpha channel to (H, W, 3) uint8."""
    return np.concatenate([pixels, np.full((*pixels.shape[:2], 1), 255, np.uint8)], 2)
