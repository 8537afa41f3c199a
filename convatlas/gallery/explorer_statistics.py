"""What a data set says of a layer's units, for the explorer: numbers, and a picture of what excites them.

A tile of the picture has all of a unit: at its left what caused its strongest activations, at its right the
pixels of the images, as mosaics.py lays them out. It is coloured as it is, each unit on a scale of its own.
"""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convatlas.files import Npz, read_json
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
    read_projected_units,
    render_patches,
    render_projections,
)

MAX_LOSSLESS_PATCH_SIZE = 24  # pixels of a patch up to which sheets are kept without loss
JPEG_QUALITY = 75  # of JPEG, where patches are larger
GAP = 6  # pixels between a unit's projections and its patches
VALUE_DIGITS = 3  # significant digits of the strongest activations
SUMMARY_KEYS = ("dataset", "split", "images", "classes", "class_images", "k")
STATISTICS = {  # the explorer's name of each statistic -> that in statistics.npz
    "mean": "mean",
    "deviation": "std",
    "maximum": "max",
    "zeros": "zero_fraction",
    "selectivity": "selectivity",
}


class DatasetStatistics:
    """results/<network>/statistics.npz and strongest.npz, read a layer at a time."""

    def __init__(self, folder: Path, network: dict[str, Any]) -> None:
        self.preprocessing = network["preprocessing"]
        self.summary = read_json(folder / "statistics.json")
        self.statistics, self.top_activations = Npz(folder / "statistics.npz"), Npz(folder / "strongest.npz")

    def __contains__(self, layer: str) -> bool:
        return f"{layer}@mean" in self.statistics

    @property
    def description(self) -> dict[str, Any]:
        """What atlas.json says of the set."""
        return {key: self.summary[key] for key in SUMMARY_KEYS} | {"by": self.summary["class_source"]}

    def unit_statistics(self, layer: dict[str, Any]) -> dict[str, Any]:
        """A layer's entry in units/<slug>.json, lists by units; None where a number is not defined.

        `class` is the one that a unit responds to most, with the mean response. The strongest activations
        (`values`, `images`, and `positions` as [row, column]) are left out of layers that only lay values
        out anew.
        """
        names = (*STATISTICS.values(), "classes", "dead")
        of = {what: self.statistics[f"{layer['name']}@{what}"] for what in names}
        found: dict[str, Any] = {key: _round_or_none(of[what]) for key, what in STATISTICS.items()}
        found["dead"] = np.flatnonzero(of["dead"]).tolist()
        if of["classes"].shape[1]:
            responses = np.where(np.isnan(of["classes"]), -np.inf, of["classes"])
            found["class"] = responses.argmax(1).tolist()
            found["response"] = _round_or_none(responses.max(1))
        if layer["kind"] not in ("reshape", "dropout"):
            values, images, positions = (
                self.statistics[f"{layer['name']}@{what}"] for what in ("values", "images", "positions")
            )
            found["values"] = [_round_or_none(row, VALUE_DIGITS) for row in values]
            found["images"] = images.tolist()
            if len(layer["output_shape"]) > 1:
                found["positions"] = positions.tolist()
        return found

    def write_sheets(self, path: Path, layer: str) -> dict[str, Any] | None:
        """Write a layer's sheets, `path` with .png or .jpg; gives their layout, and whose they are."""
        if f"{layer}@patches" not in self.top_activations:
            return None
        projections, patches = (
            self.top_activations[f"{layer}@{what}"] for what in ("projections", "patches")
        )
        tiles = np.stack([self._make_tile(*of) for of in zip(projections, patches, strict=True)])
        if max(tiles.shape[1:3]) > MAX_SHEET_SIZE:
            return None
        places = compute_sheet_layout(*tiles.shape[:3])
        is_small = max(patches.shape[-2:]) <= MAX_LOSSLESS_PATCH_SIZE
        suffix = "png" if is_small else "jpg"
        how = {"format": "png"} if is_small else {"format": "jpeg", "quality": JPEG_QUALITY, "subsampling": 0}
        path.parent.mkdir(exist_ok=True)
        for number, pixels in enumerate(assemble_sheets(tiles, places), 1):
            place = path.with_name(f"{path.name}{f'.{number}' if number > 1 else ''}.{suffix}")
            picture = (
                quantize_image(_add_alpha(pixels), [colour_table("RdBu_r")])
                if is_small
                else Image.fromarray(pixels)
            )
            picture.save(place, optimize=True, **how)
        ends = [fit_projection_scale(one).high for one in projections]
        return {
            "units": read_projected_units(self.top_activations, layer),
            "tile": list(tiles.shape[1:3]),
            "suffix": suffix,
            "patch": list(patches.shape[-2:]),
            "colour": patches.shape[2] == 3,
            "ends": round_significant(np.array(ends)),
        } | vars(places)

    def _make_tile(self, projections: np.ndarray, patches: np.ndarray) -> np.ndarray:
        """A unit's two blocks beside each other, (H, W, 3) uint8."""
        caused = assemble_tile_block(render_projections(fit_projection_scale(projections), projections))
        seen = assemble_tile_block(render_patches(self.preprocessing, patches))
        between = np.full((len(seen), GAP, 3), OUTSIDE_COLOUR, np.uint8)
        return np.concatenate([caused, between, seen], 1)


def _round_or_none(values: np.ndarray, digits: int = 4) -> list[float | None]:
    """Numbers to a few significant digits; None for what is no number."""
    found = (float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values.tolist())
    return [int(value) if value is not None and value.is_integer() else value for value in found]


def _add_alpha(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels, np.full((*pixels.shape[:2], 1), 255, np.uint8)], 2)
