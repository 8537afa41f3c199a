"""A network's layers as sprites, one layer of one image at a time: its maps, filters and projections."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convatlas.files import Npz, read_json
from convatlas.gallery.diagrams.data_flow import assign_stages
from convatlas.gallery.explorer_statistics import DatasetStatistics
from convatlas.image_io import denormalize
from convatlas.names import choose_layers, describe_image
from convatlas.plotting import sprites

log = logging.getLogger(__name__)

SCALE_QUANTILE = (
    0.99  # of projections in colour, the share that spans the scale: a few beyond would grey all others
)
DISPLAY_DIGITS = 4  # significant digits of numbers that are only read
LAYER_KEYS = ["type", "kind", "role", "ordinal", "receptive_field", "parameters", "within", "inputs"]

Layer = dict[str, Any]


def write_layer_sprites(source: Path, folder: Path, name: str, views: dict[str, Any]) -> dict[str, Any]:
    """Draw results/<network>/, at `source`, as the config's `views` ask, into `folder`; gives atlas.json.

    Raises UserError, which names views.atlas.layers, where a layer asked for is not there.
    """
    network, images = read_json(source / "network.json"), read_json(source / "images.json")
    layers = read_json(source / "layers.json")
    levels, wanted = views["atlas"]["levels"], views["atlas"]["layers"]
    key = f"networks.{name}.views.{'layers' if wanted is None else 'atlas.layers'}"
    chosen = choose_layers(layers, views["layers"] if wanted is None else wanted, key)
    records = RecordedArrays(source, [image["name"] for image in images])
    surveyed = DatasetStatistics(source, network) if views.get("strongest") else None
    chosen = [layer for layer in chosen if records.can_draw(layer)]
    slugs, stage = dict(zip(chosen, sprites.make_unique_slugs(chosen), strict=True)), assign_stages(layers)
    drawn = []
    for layer in layers:
        if slug := slugs.get(layer["name"]):
            made = LayerSprites(folder, records, layer, slug, levels, surveyed).write()
            drawn.append({"name": layer["name"], "slug": slug, "stage": stage[layer["name"]]} | made)
    return {
        "levels": levels,
        "images": [
            {"name": image["name"], "label": describe_image(image, network, ", ")} for image in images
        ],
        "inputs": {
            image: _write_input(folder, image, found, network) for image, found in records.activations.items()
        },
        "set": surveyed and surveyed.description,
        "layers": drawn,
    }


def write_compact_json(path: Path, value: Any) -> None:
    """Write JSON without spaces, for thousands of numbers."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n", encoding="utf-8")


class RecordedArrays:
    """The arrays that sprites are drawn from, read when they are drawn."""

    def __init__(self, folder: Path, images: list[str]) -> None:
        self.activations = {name: Npz(folder / f"activations/{name}.npz") for name in images}
        self.projections = {name: Npz(folder / f"deconv/{name}.npz") for name in images}
        self.filters = Npz(folder / "filters.npz")
        self.unit_matches = read_json(folder / "classical/units.json")["layers"]

    def can_draw(self, layer: str) -> bool:
        """Whether a layer was recorded and makes what a sheet can hold; says so in the log where not."""
        if not all(layer in found for found in self.activations.values()):
            return False
        shape = next(iter(self.activations.values()))[layer].shape
        if 0 not in shape and len(shape) <= 3 and max(shape[1:], default=1) <= sprites.MAX_SHEET_SIZE:
            return True
        log.info("no sprites of %s, whose values are %s", layer, " x ".join(map(str, shape)))
        return False


class LayerSprites:
    """One layer of layers.json: its sheets, and what is told of them; `slug` is what its files are called."""

    def __init__(
        self,
        folder: Path,
        records: RecordedArrays,
        layer: Layer,
        slug: str,
        levels: int,
        surveyed: DatasetStatistics | None = None,
    ) -> None:
        self.folder, self.records, self.layer = folder, records, layer
        self.slug, self.levels, self.dataset_statistics = slug, levels, surveyed

    def write(self) -> dict[str, Any]:
        """Write the sheets and units/<slug>.json; gives the layer's entry in atlas.json."""
        told, maps = self._write_maps()
        filters, weights = self._write_filters(told["units"])
        deconv, projected = self._write_projections()
        like = self.records.unit_matches.get(self.layer["name"], {}).get("units")
        numbers = {
            "maps": maps,
            "filters": weights,
            "deconv": projected,
            "like": like and [match and {key: match[key] for key in ("words", "r")} for match in like],
        }
        strongest = None
        if self.dataset_statistics and self.layer["name"] in self.dataset_statistics:
            numbers["set"] = self.dataset_statistics.unit_statistics(self.layer)
            strongest = self.dataset_statistics.write_sheets(
                self.folder / "strongest" / self.slug, self.layer["name"]
            )
        write_compact_json(self.folder / f"units/{self.slug}.json", numbers)
        described = {key: self.layer[key] for key in LAYER_KEYS}
        return described | told | {"filters": filters, "deconv": deconv, "strongest": strongest}

    def _write_maps(self) -> tuple[dict[str, Any], dict[str, Any]]:
        told: dict[str, Any] = {"signed": False}
        numbers = {}
        for image, found in self.records.activations.items():
            values = found[self.layer["name"]]
            maps = sprites.quantize_maps(sprites.to_planes(values), self.levels)
            placed = self._write_sheets(f"maps/{self.slug}/{image}", maps.tiles)
            signed = told["signed"] or bool((maps.low < 0).any())
            told = {"shape": list(values.shape), "units": len(maps.tiles), "signed": signed} | placed
            numbers[image] = {key: sprites.round_significant(getattr(maps, key)) for key in ("low", "high")}
            numbers[image] |= {
                "mean": sprites.round_significant(maps.mean, DISPLAY_DIGITS),
                "zeros": sprites.round_significant(maps.zero_fraction, DISPLAY_DIGITS),
            }
        return told, numbers

    def _write_filters(self, units: int) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        kind, module = self.layer["kind"], self.layer["module"]
        if kind not in ("conv", "linear") or module not in self.records.filters:
            return None, None
        weight = self.records.filters[module]
        if "Transpose" in self.layer["type"]:
            weight = weight.swapaxes(0, 1)
        colour = self.layer["ordinal"] == 1 and weight.ndim == 4 and weight.shape[1] == 3
        found = sprites.make_filter_tiles(weight, self.levels, colour) if len(weight) == units else None
        if found is None:
            log.info(
                "no sprites of the filters of %s, %s", self.layer["name"], " x ".join(map(str, weight.shape))
            )
            return None, None
        channels = None if found.channels is None else found.channels.tolist()
        placed = self._write_sheets(f"filters/{self.slug}", found.tiles)
        return placed | {"colour": colour}, {
            "most": sprites.round_significant(found.max_abs),
            "channels": channels,
        }

    def _write_projections(self) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        name = self.layer["name"]
        told: dict[str, Any] = {}
        units, numbers = {}, {}
        for image, found in self.records.projections.items():
            kinds = {kind: key for kind, key in (("map", name), ("peak", f"{name}@peak")) if key in found}
            arrays = [found[key] for key in kinds.values()]
            if not arrays or not arrays[0].size or max(arrays[0].shape[2:]) > sprites.MAX_SHEET_SIZE:
                return None, None
            colour = arrays[0].shape[1] == 3
            tiles, ends = sprites.quantize_signed(
                np.concatenate(arrays), self.levels, SCALE_QUANTILE if colour else 1
            )
            tiles = tiles.transpose(0, 2, 3, 1) if colour else tiles[:, 0]
            placed = self._write_sheets(f"deconv/{self.slug}/{image}", tiles)
            told = {"kinds": list(kinds)} | placed | {"colour": colour}
            numbered = f"{name}@units"
            units[image] = found[numbered].tolist() if numbered in found else list(range(len(arrays[0])))
            by_kind = zip(kinds, ends.reshape(len(kinds), -1), strict=True)
            numbers[image] = {kind: sprites.round_significant(part) for kind, part in by_kind}
        return {"units": units} | told, numbers

    def _write_sheets(self, path: str, tiles: np.ndarray) -> dict[str, Any]:
        """Write tiles as sheets, `path` with a suffix; gives that, and how they are laid out."""
        places = sprites.compute_sheet_layout(*tiles.shape[:3])
        suffix = sprites.write_sheets(self.folder / path, tiles, places)
        return {"tile": list(tiles.shape[1:3]), "suffix": suffix} | vars(places)


def _write_input(folder: Path, name: str, record: Npz, network: dict[str, Any]) -> dict[str, Any]:
    """Write an input as the network saw it, its normalisation undone: in colour, or its first channel."""
    pixels = denormalize(record["input"], network["preprocessing"])
    pixels = np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
    path = folder / f"inputs/{name}.png"
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0]).save(path, format="png")
    return {"file": f"inputs/{name}.png", "size": list(pixels.shape[1:])}
