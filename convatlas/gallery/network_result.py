"""The result on the first screen of a network's page: a sample image, a map over it, scores and findings."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from convatlas.gallery.attribution_data import AttributionReader
from convatlas.gallery.attribution_pictures import render_input
from convatlas.gallery.class_scores import ScoreBar, list_class_scores, list_iou_scores, title_scores
from convatlas.gallery.context import GalleryContext
from convatlas.gallery.main_findings import Finding, list_main_findings
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.pages.attribution import has_attribution
from convatlas.gallery.preview import compress_cover
from convatlas.gallery.result_overlay import (
    Overlay,
    make_attribution_overlay,
    make_feature_map_overlay,
    make_mask_overlay,
)
from convatlas.image_io import to_displayed_pixels
from convatlas.names import describe_image, describe_prediction
from convatlas.records import SampleImage

MAX_SHARED_SIDE = 64  # pixels up to which the exact file of the explorer is light enough
MAX_IMAGES = 8  # among which the first screen switches
NO_MAP = {
    True: "No layer has recorded maps that could lie over the image.",
    False: "The input is no image; the outputs of the layers are in the explorer.",
}


@dataclass(frozen=True)
class ResultImage:
    """A sample image with what the network makes of it.

    Attributes:
        name: Its name.
        title: What it is called, such as "dog, test image 47".
        alt: The image in words.
        file: The path of its picture in the site.
        size: (width, height) in pixels.
        label: Its label, "" without one.
        prediction: What the network predicts, "" without class scores.
        score_title: What the bars show.
        scores: Classes with their scores.
        overlay: What lies over it.
    """

    name: str
    title: str
    alt: str
    file: str
    size: tuple[int, int]
    label: str
    prediction: str
    score_title: str
    scores: Sequence[ScoreBar]
    overlay: Overlay | None


@dataclass(frozen=True)
class NetworkResult:
    """The result of a network.

    Attributes:
        images: Its first sample images.
        first_image: The name of the one that is shown first: that of the explorer.
        n_images: The number of all sample images.
        findings: Its main findings.
        no_map: Why nothing lies over an image without an overlay.
        pictures: The pictures that the result shows, by their paths in the site.
    """

    images: Sequence[ResultImage]
    first_image: str
    n_images: int
    findings: Sequence[Finding]
    no_map: str
    pictures: dict[str, bytes] = field(default_factory=dict)


def read_result(context: GalleryContext, network: NetworkData, is_card: bool = False) -> NetworkResult:
    """Read the result of a network.

    Args:
        context: The run that the site shows.
        network: One of its networks.
        is_card: Whether only the image that is shown first is read.
    """
    analysis = network.results.attribution if has_attribution(context, network) else None
    reader = AttributionReader(network, analysis) if analysis else None
    pictures: dict[str, bytes] = {}
    selected = network.images[:MAX_IMAGES]
    explorer = context.explorers.get(network.name)
    initial = explorer.network["initial"]["image"] if explorer else ""
    first_image = next((image for image in selected if image["name"] == initial), selected[0])
    images = []
    for image in [first_image] if is_card else selected:
        result = _read_image(context, network, image, reader, pictures)
        if result.overlay:
            pictures[result.overlay.file] = result.overlay.picture
        images.append(result)
    return NetworkResult(
        images=images,
        first_image=first_image["name"],
        n_images=len(network.images),
        findings=list_main_findings(context, network),
        no_map=NO_MAP[network.takes_images],
        pictures=pictures,
    )


def _read_image(
    context: GalleryContext,
    network: NetworkData,
    image: SampleImage,
    reader: AttributionReader | None,
    pictures: dict[str, bytes],
) -> ResultImage:
    """Read what is shown of an image, and add its picture where the explorer has none."""
    name, description = image["name"], network.description
    overlay = None
    if network.takes_images:
        overlay = make_mask_overlay(network, image, context.data)
        overlay = overlay or (make_attribution_overlay(reader, image) if reader else None)
        overlay = overlay or make_feature_map_overlay(network, image)
    explorer = context.explorers.get(network.name)
    entry = explorer.network["inputs"][name] if explorer else None
    file = f"result/{network.name}/{name}.webp"
    if entry and max(entry["size"]) <= MAX_SHARED_SIDE:
        file, (height, width) = f"explorer/{network.name}/{entry['file']}", entry["size"]
    elif entry:
        pictures[file] = compress_cover(network.results.folder / "atlas" / entry["file"])
        height, width = entry["size"]
    else:
        pixels = to_displayed_pixels(network.results.activations(name)["input"], description["preprocessing"])
        height, width = pixels.shape[1:]
        pictures[file] = render_input(pixels)
    ious = list_iou_scores(network, image)
    classes = description["dataset_classes"]
    return ResultImage(
        name=name,
        title=network.image_titles[name],
        alt=describe_image(image, description, ", "),
        file=file,
        size=(width, height),
        label=classes[image["label"]] if image["label"] is not None and classes else "",
        prediction=describe_prediction(image, description),
        score_title="IoU on this image" if ious else title_scores(network),
        scores=ious or list_class_scores(network, image),
        overlay=overlay,
    )
