"""The explorer's sprites: feature maps, filters and projections of every layer as sheets of grey tiles."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from convatlas.files import Npz, atomic_write
from convatlas.gallery.diagrams.stages import assign_stages
from convatlas.gallery.explorer_statistics import StatisticsWriter
from convatlas.gallery.explorer_types import (
    ExplorerImage,
    ExplorerIndex,
    ExplorerInput,
    FilterRange,
    FilterSheets,
    LayerUnits,
    MapRange,
    MatchSummary,
    ProjectionKind,
    ProjectionSheets,
    SpriteLayer,
    SpriteSheets,
)
from convatlas.gallery.weight_summary import arrange_on_maps, summarize_weights
from convatlas.image_io import as_size, order_as_rgb, take_central_slice, takes_rgb, to_displayed_pixels
from convatlas.layer_selection import choose_explored_layers
from convatlas.names import describe_image, format_shape, title_images
from convatlas.plotting import sprites
from convatlas.records import Layer, Preprocessing
from convatlas.results import Results, projected_units

log = logging.getLogger(__name__)

# Of the magnitudes of RGB projections, the quantile at the end of the scale: a few outliers would leave all
# other values grey.
SCALE_QUANTILE = 0.99
DISPLAY_DIGITS = 4  # significant digits of numbers that are only displayed
MAX_SPRITE_AXES = 3  # of an output without the batch axis
VOLUME_AXES = 4  # of an output (units, D, H, W)


def draw_explorer(source: Path, name: str, views: Mapping[str, Any]) -> ExplorerIndex:
    """Draw the sprites of a network and write them with their numbers to results/<network>/atlas/.

    Args:
        source: The network's folder, results/<network>.
        name: The network's name in the config, for errors.
        views: `layers` and `atlas` of the network's `views`, and whether it `has_top_activations`.

    Returns:
        The content of atlas.json.

    Raises:
        UserError: `views` names a layer that is not there.
    """
    with atomic_write(source / "atlas") as folder:
        folder.mkdir()
        index = write_layer_sprites(source, folder, name, views)
        write_compact_json(folder / "atlas.json", index)
        n_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    log.info(
        "drew %d layers on %d images: %.1f MB", len(index["layers"]), len(index["images"]), n_bytes / 1e6
    )
    return index


def write_layer_sprites(source: Path, folder: Path, name: str, views: Mapping[str, Any]) -> ExplorerIndex:
    """Draw the sprites of a network into a folder.

    Args:
        source: The network's folder, results/<network>.
        folder: The folder to write to.
        name: The network's name in the config, for errors.
        views: `layers` and `atlas` of the network's `views`, and whether it `has_top_activations`.

    Returns:
        The content of atlas.json.

    Raises:
        UserError: `views` names a layer that is not there.
    """
    results = Results(source)
    levels = views["atlas"]["levels"]
    arrays = RecordedArrays(results)
    statistics = StatisticsWriter(results) if views.get("has_top_activations") else None
    selected = choose_explored_layers(results.layers, views, f"networks.{name}.views")
    names = [layer for layer in selected if arrays.can_draw(layer)]
    slugs = dict(zip(names, sprites.make_unique_slugs(names), strict=True))
    stages = assign_stages(results.layers)
    titles = title_images(results.images, results.network)
    layers = [
        LayerSprites(folder, arrays, layer, slugs[layer["name"]], levels, statistics).write(
            stages[layer["name"]]
        )
        for layer in results.layers
        if layer["name"] in slugs
    ]
    return ExplorerIndex(
        levels=levels,
        images=[
            ExplorerImage(
                name=image["name"],
                title=titles[image["name"]],
                label=describe_image(image, results.network, ", "),
            )
            for image in results.images
        ],
        inputs={
            image: _write_input(folder, image, outputs["input"], results.network["preprocessing"])
            for image, outputs in arrays.activations.items()
        },
        dataset_pass=statistics.dataset_pass if statistics else None,
        layers=layers,
    )


def write_compact_json(path: Path, value: Any) -> None:
    """Write JSON without spaces, for thousands of numbers.

    Args:
        path: The file; its folder is made where it is missing.
        value: What `json.dumps` accepts.

    Raises:
        ValueError: A number is NaN or infinite.
    """
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n", encoding="utf-8")


class RecordedArrays:
    """The arrays from which sprites are drawn, each read when it is drawn.

    Args:
        results: A network's results.

    Attributes:
        activations: The recorded outputs, by image.
        projections: The deconvnet projections, by image.
        filters: The weights, by module.
        preprocessing: How an image becomes the network's input.
        matches: The classical features that units match, by layer.
        layers: layers.json, by name.
    """

    def __init__(self, results: Results) -> None:
        names = [image["name"] for image in results.images]
        self.activations: Mapping[str, Npz] = {name: results.activations(name) for name in names}
        self.projections = {name: results.displayed_projections(name) for name in names}
        self.filters = results.filters
        self.preprocessing = results.network["preprocessing"]
        self.matches = results.unit_matches["layers"]
        self.layers = {layer["name"]: layer for layer in results.layers}

    def can_draw(self, layer: str) -> bool:
        """Return whether a layer's output is recorded and fits a sheet; log why it does not fit.

        Args:
            layer: Name of the layer.

        Returns:
            False also where the output is recorded for some of the images only, or is empty.
        """
        if not all(layer in outputs for outputs in self.activations.values()):
            return False
        shape = next(iter(self.activations.values()))[layer].shape
        is_volume = len(as_size(self.preprocessing["size"])) == VOLUME_AXES - 1  # of which slices are drawn
        max_axes = VOLUME_AXES if is_volume else MAX_SPRITE_AXES
        fits = len(shape) <= max_axes and max(shape[1:], default=1) <= sprites.MAX_SHEET_SIZE
        if fits and 0 not in shape:
            return True
        log.info("%s is not in the explorer: its output is %s", layer, format_shape(shape))
        return False


class LayerSprites:
    """Writer of the sheets and numbers of one layer.

    Args:
        folder: The folder to write to.
        arrays: The network's arrays.
        layer: The layer's entry in layers.json.
        slug: The layer's name in file names.
        levels: The number of grey levels of a sprite.
        statistics: The writer of the statistics over the data set, if the units are tracked.
    """

    def __init__(
        self,
        folder: Path,
        arrays: RecordedArrays,
        layer: Layer,
        slug: str,
        levels: int,
        statistics: StatisticsWriter | None = None,
    ) -> None:
        self.folder, self.arrays, self.layer = folder, arrays, layer
        self.slug, self.levels, self.statistics = slug, levels, statistics
        self.marked_projections: list[str] = []  # images with NaN or infinity in a projection

    def write(self, stage: str) -> SpriteLayer:
        """Write the sheets and units/<slug>.json.

        Args:
            stage: The stage of the network to which the layer belongs.

        Returns:
            The layer's entry in atlas.json.
        """
        name, layer = self.layer["name"], self.layer
        sheets, map_ranges, signed = self._write_maps()
        shape = next(iter(self.arrays.activations.values()))[name].shape
        n_units = shape[0] if shape else 1
        weight = self._read_weight(n_units)
        filters, filter_range = (None, None) if weight is None else self._write_filters(weight)
        deconv, magnitudes = self._write_projections()
        units = LayerUnits(
            maps=map_ranges, filters=filter_range, deconv=magnitudes, matches=self._list_matches()
        )
        summary = None if filters or weight is None else summarize_weights(weight)
        if summary:
            units["weights"] = summary
        elif weight is not None and not filters:
            log.info("the filters of %s are not drawn: %s", self.layer["name"], format_shape(weight.shape))
        if self.marked_projections:
            units["non_finite_deconv"] = self.marked_projections
        top_activations = None
        if self.statistics and name in self.statistics:
            units["dataset_pass"] = self.statistics.unit_statistics(layer)
            top_activations = self.statistics.write_sheets(self.folder / "strongest" / self.slug, name)
        write_compact_json(self.folder / f"units/{self.slug}.json", units)
        return SpriteLayer(
            name=name,
            slug=self.slug,
            stage=stage,
            type=layer["type"],
            kind=layer["kind"],
            role=layer["role"],
            ordinal=layer["ordinal"],
            receptive_field=layer["receptive_field"],
            parameters=layer["parameters"],
            within=layer["within"],
            inputs=layer["inputs"],
            shape=list(shape),
            units=n_units,
            signed=signed,
            **sheets,
            filters=filters,
            deconv=deconv,
            top_activations=top_activations,
        )

    def _list_matches(self) -> list[MatchSummary | None] | None:
        """List the classical feature that each unit matches; None of a layer that was not compared."""
        layer_matches = self.arrays.matches.get(self.layer["name"])
        if layer_matches is None:
            return None
        return [
            MatchSummary(description=match["description"], r=match["r"]) if match else None
            for match in layer_matches["units"]
        ]

    def _write_maps(self) -> tuple[SpriteSheets, dict[str, MapRange], bool]:
        """Write the feature maps on each image: their layout, their values, and whether any is negative."""
        sheets: SpriteSheets | None = None
        ranges: dict[str, MapRange] = {}
        signed = False
        for image, outputs in self.arrays.activations.items():
            values = sprites.to_planes(outputs[self.layer["name"]])
            maps = sprites.quantize_maps(values, self.levels)
            tiles, non_finite = maps.tiles, maps.non_finite
            if tiles.ndim == VOLUME_AXES:  # the numbers are those of all of it
                tiles = take_central_slice(tiles)
                non_finite = None if non_finite is None else take_central_slice(non_finite)
            sheets = self._write_sheets(f"maps/{self.slug}/{image}", tiles, non_finite)
            signed = signed or bool((maps.low < 0).any())
            ranges[image] = MapRange(
                min=sprites.round_significant(maps.low),
                max=sprites.round_significant(maps.high),
                mean=sprites.round_significant(maps.mean, DISPLAY_DIGITS),
                zero_fraction=_round(maps.zero_fraction, DISPLAY_DIGITS),
            )
            if maps.non_finite is not None:
                axes = tuple(range(1, values.ndim))
                ranges[image]["non_finite"] = maps.non_finite.sum(axes).tolist()
                ranges[image]["infinite"] = np.isinf(values).sum(axes).tolist()
        assert sheets is not None  # as a network has sample images
        return sheets, ranges, signed

    def _read_weight(self, n_units: int) -> np.ndarray | None:
        """Read the layer's weights, units first; None where it has none, or they are not by unit."""
        kind, module = self.layer["kind"], self.layer["module"]
        if kind not in ("conv", "linear") or module not in self.arrays.filters:
            return None
        weight = self.arrays.filters[module]
        if "Transpose" in self.layer["type"]:
            weight = weight.swapaxes(0, 1)
        if self.layer["ordinal"] == 1 and weight.ndim == 4:
            weight = order_as_rgb(weight, self.arrays.preprocessing)
        return arrange_on_maps(weight, self.layer, self.arrays.layers) if len(weight) == n_units else None

    def _write_filters(self, weight: np.ndarray) -> tuple[FilterSheets | None, FilterRange | None]:
        """Write the layer's filters, where it has weights that can be drawn as one tile per unit."""
        is_first = self.layer["ordinal"] == 1 and weight.ndim == 4
        rgb = is_first and takes_rgb(weight, self.arrays.preprocessing)
        tiles = sprites.make_filter_tiles(weight, self.levels, rgb)
        if tiles is None:
            return None, None
        sheets = self._write_sheets(f"filters/{self.slug}", tiles.tiles, tiles.non_finite)
        channels = None if tiles.channels is None else tiles.channels.tolist()
        filter_range = FilterRange(max_abs=_round(tiles.max_abs), channels=channels)
        if tiles.non_finite is not None:
            filter_range["non_finite"] = tiles.non_finite.sum((1, 2)).tolist()
        return FilterSheets(**sheets, rgb=rgb), filter_range

    def _write_projections(self) -> tuple[ProjectionSheets | None, dict[str, dict[str, list[float]]] | None]:
        """Write the projections of whole maps and then of peaks, as far as the layer was projected."""
        name = self.layer["name"]
        layout: ProjectionSheets | None = None
        units: dict[str, list[int]] = {}
        magnitudes: dict[str, dict[str, list[float]]] = {}
        for image, projections in self.arrays.projections.items():
            keys: dict[ProjectionKind, str] = {"map": name, "peak": f"{name}@peak"}
            kinds = [kind for kind, key in keys.items() if key in projections]
            values = [projections[keys[kind]] for kind in kinds]
            if not values or not values[0].size or max(values[0].shape[2:]) > sprites.MAX_SHEET_SIZE:
                return None, None
            rgb = values[0].shape[1] == 3
            quantile = SCALE_QUANTILE if rgb else 1
            joined = np.concatenate(values)
            tiles, max_abs = sprites.quantize_signed(joined, self.levels, quantile)
            tiles = tiles.transpose(0, 2, 3, 1) if rgb else tiles[:, 0]
            non_finite = sprites.find_non_finite_pixels(joined if rgb else joined[:, :1])
            sheets = self._write_sheets(f"deconv/{self.slug}/{image}", tiles, non_finite)
            self.marked_projections += [image] if non_finite is not None else []
            units[image] = projected_units(projections, name)
            layout = ProjectionSheets(units=units, kinds=kinds, **sheets, rgb=rgb)
            magnitudes[image] = {
                kind: _round(kind_max_abs)
                for kind, kind_max_abs in zip(kinds, max_abs.reshape(len(kinds), -1), strict=True)
            }
        return layout, magnitudes

    def _write_sheets(self, path: str, tiles: np.ndarray, non_finite: np.ndarray | None) -> SpriteSheets:
        """Write tiles as sheets, `path` with a suffix, and marks of NaN and infinity; return the layout."""
        layout = sprites.compute_sheet_layout(*tiles.shape[:3])
        suffix = sprites.write_sheets(self.folder / path, tiles, layout)
        if non_finite is not None:
            sprites.write_marks(self.folder / path, non_finite, layout)
        return SpriteSheets(
            tile_size=list(tiles.shape[1:3]),
            suffix=suffix,
            columns=layout.columns,
            rows=layout.rows,
            sheets=layout.sheets,
        )


def _write_input(folder: Path, name: str, values: np.ndarray, preprocessing: Preprocessing) -> ExplorerInput:
    """Write an input as it is shown: an image with its normalisation undone, in colour or in grey."""
    pixels = to_displayed_pixels(values, preprocessing)
    pixels = np.round(255 * np.clip(np.nan_to_num(pixels), 0, 1)).astype(np.uint8)
    path = folder / f"inputs/{name}.png"
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0]).save(path, format="png")
    return ExplorerInput(file=f"inputs/{name}.png", size=list(pixels.shape[1:]))


def _round(values: np.ndarray, digits: int = sprites.SIGNIFICANT_DIGITS) -> list[float]:
    """Round finite numbers to significant digits."""
    return cast(list[float], sprites.round_significant(values, digits))
