"""What the pages show of a network's attribution maps: pictures with their scales, numbers and charts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from convatlas.gallery.attribution_charts import (
    CurveArea,
    describe_weak_baseline,
    draw_perturbation,
    draw_randomisation,
    list_areas,
)
from convatlas.gallery.attribution_pictures import (
    SCALE_QUANTILE,
    MapScale,
    name_input_picture,
    name_pictures,
    render_input,
    render_map,
    sum_channels,
)
from convatlas.gallery.attribution_text import (
    describe_checks,
    describe_score,
    describe_settings,
    describe_strongest,
    describe_values,
)
from convatlas.gallery.diagrams.small_chart import SmallChart
from convatlas.gallery.local_paths import hide_local_paths
from convatlas.gallery.network_data import NetworkData
from convatlas.image_io import to_displayed_pixels
from convatlas.names import describe_prediction, format_shape
from convatlas.plotting.sprites import make_unique_slugs
from convatlas.records import (
    AttributionAnalysis,
    AttributionMap,
    AttributionMethod,
    AttributionTarget,
    SampleImage,
)

FIRST_METHODS = ("grad_cam", "grad_cam_plus_plus")  # whose maps are shown first
MethodKey = tuple[str, str | None]  # name, and layer of a method that has layers


@dataclass(frozen=True)
class MapTile:
    """A map as a page shows it.

    Attributes:
        key: The method, with the layer if that is not the default: the part of `member` before the class.
        method: Its method.
        layer: Its layer with the size of its maps, "" without one.
        file: The path of its picture in the site.
        size: (width, height) in pixels.
        scale: Its colour scale.
        facts: Its numbers, as sentences without a full stop.
        areas: The areas under its deletion and insertion curves.
        chart: These curves.
        alt: The map in words.
        member: The array that it shows, of the image's npz file.
    """

    key: str
    method: AttributionMethod
    layer: str
    file: str
    size: tuple[int, int]
    scale: MapScale
    facts: list[str]
    areas: list[CurveArea]
    chart: SmallChart | None
    alt: str
    member: str


@dataclass(frozen=True)
class TargetMaps:
    """The maps for one class.

    Attributes:
        number: Number of the class.
        name: Its name.
        score: Its score, in words.
        remark: Why the deletion and insertion curves say little; "" otherwise.
        tiles: The maps.
    """

    number: int
    name: str
    score: str
    remark: str
    tiles: list[MapTile]


@dataclass(frozen=True)
class ImageMaps:
    """The maps of a sample image.

    Attributes:
        name: Its name.
        title: What it is called, with its class.
        label: The network's prediction, "" where there is none.
        file: The path in the site of the input's picture.
        size: (width, height) in pixels.
        targets: The maps by target class.
        missing: The methods and classes of which it has no map, and why.
    """

    name: str
    title: str
    label: str
    file: str
    size: tuple[int, int]
    targets: list[TargetMaps]
    missing: Sequence[str] = ()

    @property
    def n_tiles(self) -> int:
        """Return the number of maps."""
        return sum(len(target.tiles) for target in self.targets)


@dataclass(frozen=True)
class MethodNotes:
    """What a page says of a method: its settings and the curve of its randomisation test."""

    method: AttributionMethod
    anchor: str
    layer: str
    settings: str
    chart: SmallChart | None


class AttributionReader:
    """Reader of a network's attribution maps for the pages.

    Args:
        network: The network.
        analysis: Its attribution.json.

    Attributes:
        pictures: The pictures of the images that were read, by their paths in the site.
    """

    def __init__(self, network: NetworkData, analysis: AttributionAnalysis) -> None:
        self.network, self.analysis = network, analysis
        self.pictures: dict[str, bytes] = {}
        self._methods = {_get_key(method): method for method in analysis["methods"]}
        self._shapes = {layer["name"]: layer["output_shape"] for layer in network.layers}

    @property
    def defined_methods(self) -> list[AttributionMethod]:
        """Return the methods that have maps."""
        return [method for method in self.analysis["methods"] if method["undefined"] is None]

    @property
    def undefined_methods(self) -> list[AttributionMethod]:
        """Return the methods that are not defined for the network."""
        return [hide_local_paths(m) for m in self.analysis["methods"] if m["undefined"] is not None]

    @property
    def images_left_out(self) -> list[tuple[str, str]]:
        """Return what each sample image without maps is called, and why it has none."""
        titles, left_out = self.network.image_titles, self.analysis.get("left_out", {})
        return [(titles[name], hide_local_paths(reason)) for name, reason in left_out.items()]

    @cached_property
    def anchors(self) -> dict[MethodKey, str]:
        """Return the anchor of each method's notes."""
        names = ["-".join(part for part in key if part) for key in self._methods]
        return {
            key: f"method-{slug}" for key, slug in zip(self._methods, make_unique_slugs(names), strict=True)
        }

    @cached_property
    def _signed_methods(self) -> set[MethodKey]:
        """The methods with negative values on some image: their scales are diverging on all."""
        maps = [entry for image in self.analysis["images"].values() for entry in image["maps"]]
        negative = {_get_map_key(entry) for entry in maps if entry["min"] is None or entry["min"] < 0}
        return negative | {key for key, method in self._methods.items() if method["returns"] == "pixels"}

    def read_image(self, image: SampleImage, method: AttributionMethod | None = None) -> ImageMaps:
        """Read the maps of an image, and render them.

        Args:
            image: Its entry in images.json; `attribution.json` has it.
            method: The only method of the maps; None for all.
        """
        name = image["name"]
        analysis = self.analysis["images"][name]
        arrays = self.network.results.attribution_maps(name)
        entries = [
            entry for entry in analysis["maps"] if method is None or _get_map_key(entry) == _get_key(method)
        ]
        planes = {entry["member"]: sum_channels(arrays[entry["member"]]) for entry in entries}
        scales = self._make_scales(entries, planes)
        files = name_pictures(self.network.name, name, [entry["member"] for entry in analysis["maps"]])
        targets = []
        for target in analysis["targets"]:
            tiles = []
            for entry in entries:
                if entry["class"] != target["class"]:
                    continue
                plane, scale = planes[entry["member"]], scales[_get_map_key(entry)]
                file = files[entry["member"]]
                self.pictures[file] = render_map(plane, scale.colours)
                tiles.append(self._make_tile(entry, name, target, plane, scale, file))
            remark = describe_weak_baseline(analysis, target["class"])
            targets.append(TargetMaps(target["class"], target["name"], describe_score(target), remark, tiles))
        pixels = to_displayed_pixels(
            self.network.results.activations(name)["input"], self.network.description["preprocessing"]
        )
        input_file = name_input_picture(self.network.name, name)
        self.pictures[input_file] = render_input(pixels)
        title = self.network.image_titles[name]
        label = describe_prediction(image, self.network.description)
        height, width = pixels.shape[1:]
        missing = hide_local_paths(analysis.get("missing", []))
        return ImageMaps(name, title, label, input_file, (width, height), targets, missing)

    def _make_scales(
        self, maps: Sequence[AttributionMap], planes: Mapping[str, np.ndarray]
    ) -> dict[MethodKey, MapScale]:
        """Return the scale of each method, which its maps for all targets share."""
        by_method: dict[MethodKey, list[np.ndarray]] = {}
        for entry in maps:
            by_method.setdefault(_get_map_key(entry), []).append(planes[entry["member"]])
        return {
            key: MapScale.from_maps(
                method_planes,
                key in self._signed_methods,
                SCALE_QUANTILE if self._methods[key]["returns"] == "pixels" else 1,
            )
            for key, method_planes in by_method.items()
        }

    def _make_tile(
        self,
        entry: AttributionMap,
        image: str,
        target: AttributionTarget,
        plane: np.ndarray,
        scale: MapScale,
        file: str,
    ) -> MapTile:
        """Describe a map."""
        method, analysis = self._methods[_get_map_key(entry)], self.analysis["images"][image]
        height, width = plane.shape
        return MapTile(
            key=entry["member"].rpartition("@")[0],
            method=method,
            layer=self._describe_layer(method),
            file=file,
            size=(width, height),
            scale=scale,
            facts=[describe_values(plane), *describe_checks(entry["checks"])],
            areas=list_areas(entry, analysis),
            chart=draw_perturbation(entry, analysis, self.analysis["fractions"]),
            alt=f"{method['title']} for {target['name']} on {self.network.image_titles[image]}: "
            f"{describe_values(plane)}{describe_strongest(plane)}",
            member=entry["member"],
        )

    def _describe_layer(self, method: AttributionMethod) -> str:
        """Name the layer of a method with the size of its maps; "" without one."""
        layer = method["layer"]
        if layer is None:
            return ""
        shape = self._shapes.get(layer) or []
        return (
            f"{layer}, {format_shape(shape[1:])}".replace(" × ", "\u00a0×\u00a0")
            if len(shape) == 3
            else layer
        )

    def describe_methods(self) -> list[MethodNotes]:
        """Describe the methods that have maps."""
        return [
            MethodNotes(
                method,
                self.anchors[_get_key(method)],
                self._describe_layer(method),
                ", ".join(describe_settings(method["settings"])),
                draw_randomisation(method),
            )
            for method in self.defined_methods
        ]

    def get_anchor(self, method: AttributionMethod) -> str:
        """Return the anchor of a method's notes.

        Args:
            method: The method.
        """
        return self.anchors[_get_key(method)]


def choose_method(analysis: AttributionAnalysis) -> AttributionMethod | None:
    """Choose the method whose maps are shown first: Grad-CAM, or that with the best order of the pixels.

    Args:
        analysis: attribution.json.

    Returns:
        Grad-CAM, else Grad-CAM++, else the method with the largest area between its insertion and deletion
        curves over all maps; None where no method is defined for the network.
    """
    methods = [method for method in analysis["methods"] if method["undefined"] is None]
    for name in FIRST_METHODS:
        for method in methods:
            if method["name"] == name:
                return method
    maps = [entry for image in analysis["images"].values() for entry in image["maps"]]

    def measure_order(method: AttributionMethod) -> float:
        areas = [
            entry["insertion"]["auc"] - entry["deletion"]["auc"]
            for entry in maps
            if _get_map_key(entry) == _get_key(method) and entry["deletion"] and entry["insertion"]
        ]
        return sum(areas) / len(areas) if areas else -math.inf

    return max(methods, key=measure_order, default=None)


def _get_key(method: AttributionMethod) -> MethodKey:
    """Return what identifies a method."""
    return method["name"], method["layer"]


def _get_map_key(entry: AttributionMap) -> MethodKey:
    """Return what identifies the method of a map."""
    return entry["method"], entry["layer"]
