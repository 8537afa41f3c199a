"""What the figures of one network share: its results, the views of the config, captions and scales."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property

import numpy as np
from matplotlib.figure import Figure

from convatlas import records
from convatlas.figures.tiles import DEFAULT_OPTIONS, MontageOptions, value_range
from convatlas.image_io import (
    MAX_ROW_LENGTH,
    as_size,
    describe_display,
    order_as_rgb,
    take_central_slice,
    takes_rgb,
    to_displayed_pixels,
)
from convatlas.layer_selection import choose_layers
from convatlas.names import describe_image, make_file_name, make_unique_name, title_images
from convatlas.pipeline.config_types import ViewsConfig
from convatlas.plotting.colormap import NON_FINITE_NOTES, ColourScale, LayerScales, magnitude_quantile
from convatlas.plotting.labelled_figure import ColourBar, caption_height, list_formats, make_montage_figure
from convatlas.plotting.montage import TILE_SIZE, Tile, TileRow, assemble_montage, list_non_finite
from convatlas.results import Results, list_projection_keys

log = logging.getLogger(__name__)

VOLUME_AXES = 4  # of an output (units, D, H, W)
MIN_LABELLED_TILE_SIZE = 168  # pixels of a tile that has the name of a layer above it, at least


@dataclass(frozen=True)
class Caption:
    """The texts of a figure.

    Attributes:
        line: One line without the network's name: the layer, what is drawn, the image and the scale. It is
            drawn into the figure.
        explanation: Sentences on how to read the figure.
    """

    line: str
    explanation: str = ""


@dataclass(frozen=True)
class CaptionedFigure:
    """A figure with its file name and texts.

    Attributes:
        file: Name of the PNG.
        kind: A key of FIGURE_KINDS.
        subject: The layer or image that it shows, or "".
        caption: One line, which is drawn into it: the network, the layer, what is drawn, the image and the
            scale.
        explanation: Sentences on how to read it.
        alt: A text for readers who cannot see it.
        figure: The drawing.
        tile_layout: Where its tiles are, of a figure whose tiles the pages rearrange.
    """

    file: str
    kind: str
    subject: str
    caption: str
    explanation: str
    alt: str
    figure: Figure = field(repr=False)
    tile_layout: records.TileLayout | None = None

    def to_dict(self, formats: Sequence[records.FigureFormat]) -> records.Figure:
        """Return the figure's entry in figures/figures.json.

        Args:
            formats: `views.formats` of the config.

        Returns:
            The file names, the texts, the sizes in pixels of the PNG, and where the tiles are, if the pages
            rearrange them.
        """
        width, height = (round(float(side)) for side in self.figure.get_size_inches() * self.figure.dpi)
        entry: records.Figure = {
            "file": self.file,
            "formats": list_formats(formats),
            "kind": self.kind,
            "subject": self.subject,
            "caption": self.caption,
            "explanation": self.explanation,
            "alt": self.alt,
            "width": width,
            "height": height,
            "caption_height": caption_height(self.caption, width),
        }
        if self.tile_layout is not None:
            entry["tile_layout"] = self.tile_layout
        return entry


class FigureContext:
    """The results of a network, as the views of the config select them.

    Arrays are read when they are drawn: memory holds one layer, or the projections of one image.

    Args:
        results: The network's results.
        views: `views` of the network's config.

    Raises:
        UserError: The views name a layer that is not there, or a file is missing or damaged.

    Attributes:
        layers: The entries of layers.json by name.
        images: The sample images that are drawn; `results.images` has all.
        layer_names: The layers that are drawn, in execution order.
        highlighted_layers: Those of `views.highlight`.
        conv_names: Those of `layer_names` that are convolutions.
        activations: Opens the activations of an image by its name.
        projections: Opens the projections of an image by its name, in the channels that are shown.
    """

    def __init__(self, results: Results, views: ViewsConfig) -> None:
        self.results, self.views = results, views
        self.network, self.name = results.network, results.name
        self.activations, self.projections = cache(results.activations), cache(results.displayed_projections)
        self._logged_subjects: set[str] = set()
        self._file_names: set[str] = set()
        self.layers = {layer["name"]: layer for layer in results.layers}
        self.images = results.images[: self.limit_count(views["n_images"], len(results.images), "images")]
        key = f"networks.{self.name}.views"
        self.layer_names = choose_layers(results.layers, views["layers"], f"{key}.layers")
        highlight = views.get("highlight")
        self.highlighted_layers = (
            choose_layers(results.layers, highlight, f"{key}.highlight") if highlight else []
        )
        self.conv_names = [name for name in self.layer_names if self._has_kernels(name)]

    def _has_kernels(self, layer: str) -> bool:
        return self.layers[layer]["kind"] == "conv" and self.layers[layer]["module"] in self.results.filters

    # Arrays

    @property
    def dataset_statistics(self) -> records.DatasetStatistics | None:
        """What the top activations were computed on; None where the views ask for none."""
        if self.views.get("strongest") is None or not self.network["dataset"]:
            return None
        return self.results.dataset_statistics

    def output_ndim(self, layer: str) -> int:
        """Return the number of axes of a layer's output; maps of one pixel count as values, 1.

        Args:
            layer: Name of the layer.

        Returns:
            1 for values (units,), 2 for tokens (vectors, values) or the rows (units, L) of an input with one
            axis, 3 for feature maps (units, H, W) and the slices of volumes, 4 for other outputs.
        """
        shape = self.map_shape(layer)
        return len(shape) if any(side > 1 for side in shape[1:]) else 1

    def map_shape(self, layer: str) -> list[int]:
        """Return the shape of what is drawn of a layer's output: of volumes (units, D, H, W) without D.

        Args:
            layer: Name of the layer.
        """
        shape = self.layers[layer]["output_shape"]
        return [shape[0], *shape[2:]] if self._is_volume(shape) else shape

    def _is_volume(self, shape: Sequence[int]) -> bool:
        """Return whether an output of this shape holds volumes (units, D, H, W), as the input does."""
        return len(shape) == VOLUME_AXES and self.input_axes == VOLUME_AXES - 1

    def describe_slice(self, layer: str) -> str:
        """Return a sentence on the slice that is drawn of a layer's volumes; "" of other outputs.

        Args:
            layer: Name of the layer.
        """
        shape = self.layers[layer]["output_shape"]
        if not self._is_volume(shape) or shape[1] == 1:
            return ""
        return f" Of a depth of {shape[1]} the central slice, {shape[1] // 2}, is drawn."

    def outputs(self, layer: str) -> list[np.ndarray]:
        """Return the output of a layer on each image that is drawn.

        Args:
            layer: Name of the layer.

        Returns:
            An array (units, ...) per image, in the order of `images`; of volumes the central slice.

        Raises:
            UserError: A file of the results is missing or damaged.
        """
        return [self.output(layer, image["name"]) for image in self.images]

    def output(self, layer: str, image: str) -> np.ndarray:
        """Return the output of a layer on one image; of volumes the central slice.

        Args:
            layer: Name of the layer.
            image: Name of the sample image.

        Raises:
            UserError: A file of the results is missing or damaged.
        """
        values = self.activations(image)[layer]
        return take_central_slice(values) if self._is_volume(values.shape) else values

    def weight(self, layer: str) -> np.ndarray:
        """Return the filters of a layer, units first, of a transposed convolution as well.

        Args:
            layer: Name of a layer that has filters.

        Returns:
            (units, channels, ...), for a 2D convolution (units, channels, h, w); those that apply to the
            channels of an image itself in the order red, green, blue.

        Raises:
            UserError: A file of the results is missing or damaged.
        """
        weight = self.results.filters[self.layers[layer]["module"]]
        if "Transpose" in self.layers[layer]["type"]:
            return weight.swapaxes(0, 1)
        is_first = self.layers[layer]["ordinal"] == 1 and weight.ndim == 4
        return order_as_rgb(weight, self.network["preprocessing"]) if is_first else weight

    def has_rgb_filters(self, layer: str) -> bool:
        """Return whether the filters of a layer apply to the red, green and blue of the image itself.

        Args:
            layer: Name of a convolution.

        Returns:
            True for the first convolution if its filters have the three channels of the image.

        Raises:
            UserError: A file of the results is missing or damaged.
        """
        weight = self.weight(layer)
        is_first = self.layers[layer]["ordinal"] == 1 and weight.ndim == 4
        return is_first and takes_rgb(weight, self.network["preprocessing"])

    def find_inactive_units(self, image: str, layer: str) -> set[int]:
        """Return the units of a layer that are inactive on an image: without a positive activation.

        A unit with NaN or infinite activations is not inactive.

        Args:
            image: Name of a sample image.
            layer: Name of the layer.

        Returns:
            Their numbers, from 0.

        Raises:
            UserError: A file of the results is missing or damaged.
        """
        output = self.activations(image)[layer]
        values = output.reshape(len(output), -1)
        is_inactive = (values.max(1) <= 0) & np.isfinite(values.min(1))  # comparisons with NaN are False
        return set(np.flatnonzero(is_inactive).tolist())

    def select_units(self, layer: str, available: int) -> range:
        """Return the units of a layer that are drawn, the first `views.n_filters`.

        Args:
            layer: Name of the layer, for the log.
            available: The number of its units.

        Returns:
            Their numbers, from 0.
        """
        return range(self.limit_count(self.views["n_filters"], available, f"units in {layer}"))

    def limit_count(self, requested: int | str, available: int, subject: str) -> int:
        """Return how many of the available are drawn; log once where fewer are available than requested.

        Args:
            requested: The number in the config, or "all".
            available: How many there are.
            subject: What is counted, in the plural, for the log.
        """
        if isinstance(requested, int) and requested > available and subject not in self._logged_subjects:
            self._logged_subjects.add(subject)
            log.info("%d %s requested, %d available: drawing all", requested, subject, available)
        return available if requested == "all" else min(int(requested), available)

    # Scales

    def make_weight_scales(self, layer: str) -> LayerScales:
        """Return the scales of a layer's filters, centred on zero.

        Args:
            layer: Name of a convolution.

        Returns:
            Scales with `layer` as a key. In mode "shared" they span the filters of all layers that are drawn,
            otherwise all filters of this layer.

        Raises:
            UserError: A file of the results is missing or damaged.
        """
        if self.views["scale"] == "shared":
            return self._shared_weight_scales
        return LayerScales(self.views["scale"], {layer: [self.weight(layer)]}, signed=True)

    def make_map_scales(self, layer: str) -> LayerScales:
        """Return the scales of a layer's feature maps.

        Args:
            layer: Name of a layer whose output is (units, H, W).

        Returns:
            Scales with `layer` as a key. They span the feature maps, on all images that are drawn, of this
            layer or, in mode "shared", of all layers that are drawn.

        Raises:
            UserError: A file of the results is missing or damaged.
        """
        if self.views["scale"] == "shared":
            return self._shared_map_scales
        return LayerScales(self.views["scale"], {layer: self.outputs(layer)})

    def make_projection_scales(self, images: Sequence[str]) -> LayerScales:
        """Return the scales of the projections of some images together.

        A scale that all layers share spans all sample images. RGB projections are scaled to the 99th
        percentile of their nonzero magnitudes.

        Args:
            images: Names of the images, at least one; the projections of each are present.

        Returns:
            Scales centred on zero, whose keys are those of the projections, <layer> and <layer>@peak.

        Raises:
            UserError: A file of the results is missing or damaged.
        """
        is_shared = self.views["scale"] == "shared"
        scaled_images = [image["name"] for image in self.results.images] if is_shared else images
        keys = list_projection_keys(self.projections(images[0]))
        as_rgb = self.projections(images[0])[keys[0]].shape[1] == 3
        find_range = symmetric_range if as_rgb else value_range
        ranges = {key: [find_range(self.projections(name)[key]) for name in scaled_images] for key in keys}
        return LayerScales(self.views["scale"], ranges, signed=True, as_rgb=as_rgb)

    @cached_property
    def _shared_weight_scales(self) -> LayerScales:
        ranges = {layer: [value_range(self.weight(layer))] for layer in self.conv_names}
        return LayerScales("shared", ranges, signed=True)

    @cached_property
    def _shared_map_scales(self) -> LayerScales:
        layers = [layer for layer in self.layer_names if self.output_ndim(layer) == 3]
        ranges = {layer: [value_range(output) for output in self.outputs(layer)] for layer in layers}
        return LayerScales("shared", ranges)

    # Texts

    @cached_property
    def image_titles(self) -> dict[str, str]:
        """The title of each sample image, such as "dog, test image 47", by its name."""
        return title_images(self.results.images, self.network)

    @property
    def image_list(self) -> str:
        """The titles of the images that are drawn, as in a list."""
        return "; ".join(self.image_titles[image["name"]] for image in self.images)

    @property
    def image_phrase(self) -> str:
        """The title of the image that is drawn, or the number of images, for a line."""
        if len(self.images) > 1:
            return f"{len(self.images)} images"
        return "; ".join(self.image_titles[image["name"]] for image in self.images)

    def describe_image(self, image: records.SampleImage, separator: str) -> str:
        """Return an image's title, which has its class, and the network's prediction.

        Args:
            image: An entry of images.json.
            separator: Stands between the parts, such as ", " or a newline.
        """
        return describe_image(image, self.network, separator)

    @property
    def rectification_note(self) -> str:
        """A sentence for the captions of projections that are rectified at every activation, or ""."""
        if not self.views["deconv"]["rectify"]:
            return ""
        return " Rectified at activations other than ReLU too, where the method is undefined."

    @property
    def display_note(self) -> str:
        """A sentence for captions about the channels that are shown, or ""."""
        text = describe_display(self.network["preprocessing"])
        return f" {text[0].upper()}{text[1:]}." if text else ""

    def format_line(self, caption: Caption) -> str:
        """Return the line that is drawn into a figure, with the name of the network.

        Args:
            caption: The texts of the figure.
        """
        return f"{self.name}, {caption.line}."

    # Tiles and figures

    @property
    def input_axes(self) -> int:
        """The number of spatial axes of the input: 2 of images, 1 of audio and series, 3 of volumes."""
        return len(as_size(self.network["preprocessing"]["size"]))

    @property
    def input_size(self) -> int:
        """The longer side of the input as it is drawn, in pixels."""
        return min(max(as_size(self.network["preprocessing"]["size"])[-2:]), MAX_ROW_LENGTH)

    @property
    def tile_size(self) -> int:
        """The pixels of a tile of the input's size, enlarged by a whole factor to about TILE_SIZE."""
        return self.input_size * max(1, round(TILE_SIZE / self.input_size))

    @property
    def labelled_tile_size(self) -> int:
        """The pixels of a tile of the input's size, enlarged so that a layer's name fits above it."""
        return self.input_size * -(-MIN_LABELLED_TILE_SIZE // self.input_size)

    def make_input_tile(self, image: str, title: str = "input") -> Tile:
        """Return the tile of a network's input, without normalisation: grey, or RGB in 0..1.

        Args:
            image: Name of a sample image.
            title: A text above the tile.

        Returns:
            A tile of the three channels that are shown, as RGB (H, W, 3), or of one (H, W), in grey.

        Raises:
            UserError: A file of the results is missing or damaged.
        """
        x = self.activations(image)["input"]
        pixels = np.clip(to_displayed_pixels(x, self.network["preprocessing"]), 0, 1)
        if len(pixels) == 3:
            return Tile(pixels.transpose(1, 2, 0), title=title)
        return Tile(pixels[0], ColourScale(0.0, 1.0, "gray"), title=title)

    def make_titled_input_tile(self, image: str) -> Tile:
        """Return the tile of an image with its number or file above it, and above that its class.

        Args:
            image: Name of a sample image.
        """
        entry = next(entry for entry in self.results.images if entry["name"] == image)
        number = f"image {entry['index']}" if entry["index"] is not None else image
        class_name = self.image_titles[image].rpartition(", ")[0]
        return replace(self.make_input_tile(image, number), note=class_name)

    def make_montage(
        self,
        kind: str,
        subject: str,
        rows: Sequence[TileRow],
        labels: Sequence[str],
        bars: Sequence[ColourBar],
        caption: Caption,
        options: MontageOptions = DEFAULT_OPTIONS,
        suffix: str = "",
    ) -> CaptionedFigure:
        """Return a figure of tiles.

        Args:
            kind: A key of FIGURE_KINDS.
            subject: The layer or image that it shows, or "".
            rows: The tiles.
            labels: A label of each row.
            bars: The colour bars.
            caption: The texts.
            options: How the tiles are arranged.
            suffix: As in `make_figure`.
        """
        notes = [NON_FINITE_NOTES[name] for name in list_non_finite(rows)]
        caption = replace(caption, explanation=" ".join([caption.explanation, *notes]).strip())
        montage = assemble_montage(
            rows,
            tile_size=options.tile_size,
            header_height=options.header_height,
            gap=options.gap,
            group_starts=options.group_starts,
        )
        figure = make_montage_figure(montage, labels, bars, self.format_line(caption))
        return self.make_figure(kind, subject, caption, figure, suffix)

    def make_figure(
        self, kind: str, subject: str, caption: Caption, figure: Figure, suffix: str = ""
    ) -> CaptionedFigure:
        """Return a drawing with the name of its file and its alternative text.

        Args:
            kind: A key of FIGURE_KINDS.
            subject: The layer or image that it shows, or "".
            caption: The texts; the line is the alternative text.
            figure: The drawing.
            suffix: Distinguishes the figures of one kind and subject; begins with "+", which no image's
                name contains.
        """
        stem = "-".join(filter(None, (kind, make_file_name(subject)))) + suffix
        stem = make_unique_name(stem, self._file_names)
        line = self.format_line(caption)
        return CaptionedFigure(f"{stem}.png", kind, subject, line, caption.explanation, caption.line, figure)


def symmetric_range(values: np.ndarray) -> np.ndarray:
    """Return ± the 99th percentile of the nonzero magnitudes, (2,).

    Args:
        values: Signed values of any shape; those that are zero or not finite do not count.
    """
    end = magnitude_quantile(values)
    return np.array([-end, end])
