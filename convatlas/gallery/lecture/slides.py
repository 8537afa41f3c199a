"""The slides of a lecture: the path of one image through a network, as far as its layers are recorded."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from convatlas.gallery.class_scores import list_class_scores
from convatlas.gallery.explorer_data import ExplorerData
from convatlas.gallery.lecture.activation import ActivationContent, make_activation
from convatlas.gallery.lecture.maps import make_deconvnet, make_deeper_layer
from convatlas.gallery.lecture.output import read_output
from convatlas.gallery.lecture.path import (
    choose_deeper_layers,
    find_activation,
    find_first_convolution,
    find_max_pool,
    has_same_units,
    rank_units,
)
from convatlas.gallery.lecture.pictures import Picture, PictureFolder
from convatlas.gallery.lecture.windows import make_convolution, make_pooling
from convatlas.gallery.network_data import NetworkData
from convatlas.image_io import to_displayed_pixels
from convatlas.names import describe_prediction, format_shape
from convatlas.records import Layer, SampleImage

TOP_CLASSES = 3  # on the slide of the image
POOLING_PARTS = 3  # the first window, the second, all


@dataclass(frozen=True)
class Slide:
    """A slide.

    Attributes:
        kind: What it shows: "image", "convolution", "activation", "pooling", "deeper", "output", "deconvnet"
            or "summary".
        title: Its heading.
        subtitle: Layer and unit.
        content: What its template shows.
        parts: In how many parts it appears.
        takeaway: What it teaches, as a sentence of the summary; "" for none.
        link: A page that says more, relative to the lecture's, and its title.
    """

    kind: str
    title: str
    subtitle: str = ""
    content: Any = None
    parts: int = 1
    takeaway: str = ""
    link: tuple[str, str] | None = None


@dataclass(frozen=True)
class Lecture:
    """The lecture on one image.

    Attributes:
        image: The image.
        picture: The network's input.
        slides: The slides, in order.
        files: The pictures, by their places in the site.
    """

    image: SampleImage
    picture: Picture
    slides: list[Slide] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)


class LectureBuilder:
    """Builder of a network's lecture on one image.

    Args:
        network: The network.
        image: The image.
        explorer: The network's explorer, which has pictures of the inputs; None without one.
    """

    def __init__(self, network: NetworkData, image: SampleImage, explorer: ExplorerData | None) -> None:
        self.network, self.image, self.explorer = network, image, explorer
        self.outputs = network.results.activations(image["name"])
        self.pictures = PictureFolder(f"lecture/{network.name}/{image['name']}")

    def build(self) -> Lecture:
        """Build the slides that the recorded layers allow, and a summary of them."""
        picture = self._add_input()
        slides = [self._make_image_slide(), *self._make_convolution_slides()]
        slides += [*self._make_output_slide(), *self._make_deconvnet_slide()]
        slides.append(Slide("summary", "Summary", self.network.name, [s for s in slides if s.takeaway]))
        return Lecture(self.image, picture, slides, self.pictures.files)

    def _add_input(self) -> Picture:
        """Return the picture of the input, that of the explorer where there is one."""
        name = self.image["name"]
        alt = f"{self.network.image_titles[name]}, network input"
        if self.explorer and name in self.explorer.network["inputs"]:
            source = self.explorer.network["inputs"][name]
            height, width = source["size"]
            return Picture(f"explorer/{self.network.name}/{source['file']}", width, height, alt)
        pixels = to_displayed_pixels(self.outputs["input"], self.network.description["preprocessing"])
        return self.pictures.add_image("input", pixels, alt)

    def _make_image_slide(self) -> Slide:
        """Make the slide of the image, with the network's prediction."""
        label, dataset_classes = self.image["label"], self.network.description["dataset_classes"]
        content = {
            "label": dataset_classes[label] if label is not None and dataset_classes else "",
            "prediction": describe_prediction(self.image, self.network.description),
            "top": list_class_scores(self.network, self.image)[:TOP_CLASSES],
            "shape": format_shape(self.outputs["input"].shape),
        }
        return Slide("image", "The image", self.network.image_titles[self.image["name"]], content)

    def _make_convolution_slides(self) -> Iterator[Slide]:
        """Yield the slides from the first convolution to deeper layers."""
        layers, outputs = self.network.layers, self.outputs
        convolution = find_first_convolution(layers, outputs)
        if convolution is None:
            return
        unit = rank_units(outputs[convolution["name"]])[0]
        yield from self._make_convolution_slide(convolution, unit)
        activation = find_activation(layers, convolution, outputs)
        content = activation and make_activation(activation, convolution, unit, outputs, self.pictures)
        if content:
            yield self._make_activation_slide(content)
        yield from self._make_pooling_slide(convolution, unit)
        yield from self._make_deeper_slide(convolution)

    def _make_convolution_slide(self, layer: Layer, unit: int) -> Iterator[Slide]:
        name = self.image["name"]
        content = make_convolution(self.network, layer, unit, name, self.pictures)
        if content is None:
            return
        n_units = layer["output_shape"][0]
        kernel = format_shape(content.example.kernel.shape[1:])
        channels = len(content.example.kernel)
        size = f"{kernel} × {channels} channels" if channels > 1 else kernel
        takeaway = (
            f"A convolution multiplies a window by a kernel and sums the products: {layer['name']} has "
            f"{n_units} kernels of {size}, each applied at every position."
        )
        link = ("../primer.html#filter", "Filters")
        subtitle = f"{layer['name']}, unit {unit}"
        yield Slide("convolution", "Convolution", subtitle, content, len(content.stops), takeaway, link)

    def _make_activation_slide(self, content: ActivationContent) -> Slide:
        name, (before, after) = content.layer["type"], content.n_negative
        takeaway = (
            f"{name} acts on each value alone: of {before:,} values below zero, {after:,} remain below zero."
        )
        if after == 0 and content.n_zero:
            takeaway = (
                f"{name} sets values below zero to zero: {content.n_zero:,} of {content.n_values:,} here."
            )
        link = ("../primer.html#feature-map", "Feature maps")
        subtitle = f"{content.layer['name']}, unit {content.unit}"
        return Slide("activation", name, subtitle, content, 2, takeaway, link)

    def _make_pooling_slide(self, convolution: Layer, unit: int) -> Iterator[Slide]:
        layer = find_max_pool(self.network.layers, self.outputs)
        if layer is None:
            return
        if not has_same_units(self.network.layers, layer, convolution):
            unit = rank_units(self.outputs[layer["inputs"][0]])[0]
        content = make_pooling(layer, unit, self.outputs, self.pictures)
        if content is None:
            return
        before, after = (format_shape(shape[1:]) for shape in (layer["input_shape"], layer["output_shape"]))
        window = format_shape(layer["kernel"] or [])
        takeaway = (
            f"Max pooling keeps the maximum of each {window} window ({before} → {after}); "
            "the switches remember where it was."
        )
        link = ("../primer.html#pooling", "Pooling")
        parts = min(POOLING_PARTS, len(content.windows))
        yield Slide("pooling", "Max pooling", f"{layer['name']}, unit {unit}", content, parts, takeaway, link)

    def _make_deeper_slide(self, convolution: Layer) -> Iterator[Slide]:
        chosen = choose_deeper_layers(self.network.layers, convolution, self.outputs)
        columns = [
            make_deeper_layer(layer, self.outputs, self.pictures, f"deeper-{n}")
            for n, layer in enumerate(chosen)
        ]
        if not columns:
            return
        first, last = columns[0], columns[-1]
        takeaway = (
            f"Receptive fields grow with depth: {first.field} in {first.layer['name']}, {last.field} in "
            f"{last.layer['name']}."
        )
        if first.field == last.field:
            takeaway = f"The receptive field of a unit of {last.layer['name']}: {last.field}."
        link = ("../primer.html#receptive-field", "Receptive fields")
        subtitle = "the most active units and their receptive fields"
        yield Slide("deeper", "Deeper layers", subtitle, columns, len(columns), takeaway, link)

    def _make_output_slide(self) -> Iterator[Slide]:
        content = read_output(self.network, self.image, self.outputs, self.pictures)
        if content is None:
            return
        has_classes = self.network.description["output"]["kind"] != "none"
        title = "Segmentation" if content.mask else "Class scores" if has_classes else "Output"
        takeaway = ""
        prediction = describe_prediction(self.image, self.network.description)
        if prediction:
            takeaway = f"The output on this image: {prediction}."
        elif content.mask:
            takeaway = "The output is a class for each pixel."
        yield Slide("output", title, content.subtitle, content, 1, takeaway)

    def _make_deconvnet_slide(self) -> Iterator[Slide]:
        content = make_deconvnet(self.network, self.image["name"], self.outputs, self.pictures)
        if content is None:
            return
        start = "the maximum" if content.is_peak else "the map"
        takeaway = (
            f"The deconvnet projects {start} of unit {content.unit} of {content.layer} back to the pixels "
            "that contributed to it on this image."
        )
        link = ("../primer.html#deconvnet", "Deconvnet")
        subtitle = f"{content.layer}, unit {content.unit}"
        parts = len(content.steps) + 1
        yield Slide("deconvnet", "Deconvnet", subtitle, content, parts, takeaway, link)
