"""Plates of masks: what a network segments, and where among its layers the mask appears."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from convatlas.figures.context import Array, Desk, Line, Plate, chunks, fitting, listed
from convatlas.figures.projections import WIDE
from convatlas.plotting import charts
from convatlas.plotting.colormap import Scale
from convatlas.plotting.labelled_figure import ACCENT, BARS, HEAD
from convatlas.plotting.montage import EDGE, HAIRLINE, PAPER, Tile

PET, BACKGROUND, BORDER = 0, 1, 2  # the classes of a trimap, as in examples.npz
CLASSES = {"pet": "#1f6a9a", "background": "#e3dccb", "border": "#e3a72f"}
# Agreement is quiet, a little darker on the pet, so that its shape is seen.
DIFFERENCE = {"right": "#efe9dc", "right, pet": "#cfc7b6", "missed pet": "#9c2f1a", "false pet": "#1f6a9a",
              "at the border": "#e3a72f"}  # fmt: skip
ROAD = 8  # layers whose best maps are shown where the views name none
SEPARATING = 8  # units
ROWS = 3  # images of the separating units
FADED = 0.82  # how far what lies outside a mask goes towards paper


def draw(desk: Desk) -> Iterator[Plate]:
    """Draw the plates of masks of a network, none where it has no masks."""
    if not desk.masks:
        return
    if desk.masks["examples"]:
        yield segmentation(desk, desk.masks["examples"])
    if desk.masks["layers"]:
        yield curve(desk, desk.masks)
    if desk.images:
        if found := _road(desk, desk.masks["layers"]):
            yield best_maps(desk, desk.images[0], found)
        if units := _separating(desk, desk.masks["layers"]):
            yield separating(desk, units)


# What is segmented


def segmentation(desk: Desk, examples: list[dict[str, Any]]) -> Plate:
    """An example a row: photograph, truth, prediction, and where the two differ."""
    photographs, truths, predictions = (desk.examples[key] for key in ("photograph", "truth", "prediction"))
    lines: list[Line] = []
    labels = []
    for n, example in enumerate(examples):
        truth, predicted = truths[n], predictions[n]
        pictures = {
            "photograph": photographs[n] / 255,
            "truth": painted(truth, list(CLASSES.values())),
            "prediction": painted(predicted, list(CLASSES.values())),
            "difference": painted(difference(truth, predicted), list(DIFFERENCE.values())),
        }
        lines.append([Tile(values, number=title) for title, values in pictures.items()])
        labels.append(_label(example))
    pixels = " × ".join(map(str, desk.masks["size"])) if desk.masks else ""
    text = (
        f"What the network segments: photographs of {len(examples)} test images, their truth, the "
        f"prediction, and where the two differ, at the network's input of {pixels} pixels. The first test "
        "image, and the best, the median and the worst by the IoU of the pet (intersection over union: 1 is "
        "perfect), which is printed beside each with those of background and border. In the difference, what "
        "agrees is pale; a pixel is at the border where one of the two calls it border, the other not."
    )
    plate = desk.montage("segmentation", "", lines, labels, [], text, edge=3 * EDGE)
    _legends(plate.figure)
    return plate


def painted(classes: Array, colours: list[str]) -> Array:
    """Colour classes (H, W), integers that count the colours, as (H, W, 3) in 0..1."""
    return np.array([to_rgb(colour) for colour in colours])[classes]


def difference(truth: Array, predicted: Array) -> Array:
    """Tell how a prediction (H, W) of classes differs from the truth: (H, W), places in DIFFERENCE."""
    found = np.where(truth == PET, 1, 0)
    found[(truth == PET) & (predicted == BACKGROUND)] = 2
    found[(truth == BACKGROUND) & (predicted == PET)] = 3
    found[(truth != predicted) & ((truth == BORDER) | (predicted == BORDER))] = 4
    return found


def _label(example: dict[str, Any]) -> str:
    """What stands beside an example: which it is, and its IoUs; a class absent from both has none."""
    rows = [f"{name} {'–' if iou is None else f'{iou:.2f}'}" for name, iou in example["iou"].items()]
    return "\n".join([example["which"], example["name"], "", "IoU", *rows, f"mean {example['mean_iou']:.2f}"])


def _legends(figure: Figure) -> None:
    """Print what the colours mean, at the right of a montage, where other plates have their colour bars."""
    width, height = figure.get_size_inches() * figure.dpi
    parts = (("class", CLASSES, 0), ("difference", DIFFERENCE, 190))
    for title, colours, down in parts:
        handles = [
            Rectangle((0, 0), 1, 1, facecolor=colour, edgecolor=np.divide(HAIRLINE, 255), linewidth=0.4)
            for colour in colours.values()
        ]
        place = 1 - (BARS - 4) / width, 1 - (HEAD + 18 + down) / height
        figure.legend(handles, list(colours), title=title, loc="upper left", bbox_to_anchor=place,
                      frameon=False, fontsize=6.5, title_fontsize=6.5, alignment="left", borderpad=0,
                      borderaxespad=0, handlelength=1.2, handleheight=1.2, handletextpad=0.6)  # fmt: skip


# Where the mask appears


def curve(desk: Desk, masks: dict[str, Any]) -> Plate:
    """Over the convolutions in the order in which they run: agreement with the mask, and fine detail."""
    images, layers, reached = masks["images"], masks["layers"], masks["reached"]
    remark = desk.views.get("remark")
    if remark and remark["ordinal"] > layers[-1]["ordinal"]:
        remark = None
    text = (
        f"Where the mask appears in {len(layers)} convolutions: how well the best single map of each, "
        f"thresholded, agrees with the mask of the pet (IoU over {images['test']:,} test images; map and "
        f"level chosen on {images['train']:,} training images). Chance is the same search on masks shuffled "
        f"between images; to call every pixel pet gives {masks['pet_share']:.2f}."
    )
    if reached:
        text += (
            f" {reached['layer']} ({reached['ordinal']}) is the first to reach 90 % of the last one's "
            f"{masks['final']['iou']:.2f}."
        )
    text += (
        f" Below, fine detail: the share of each layer's spectral energy above {masks['frequency']:g} cycles "
        f"per image, which maps of at most {2 * masks['frequency']:g} pixels cannot hold, and the "
        "correlation |r| with the image's edges (Sobel) of the map that follows them best."
    )
    if remark:
        text += f" Layer {remark['ordinal']}: {remark['words']}."
    caption = desk.caption(text)
    return desk.plate("mask", "", caption, charts.emergence(masks, remark, caption))


def best_maps(desk: Desk, image: dict[str, Any], layers: list[dict[str, Any]]) -> Plate:
    """The best map of each layer on one image, and under it what its threshold keeps of the image."""
    shown, edge = desk.input(image), _edge(desk)
    lines: list[Line] = []
    labels = []
    for n, some in enumerate(chunks(layers, fitting(edge))):
        maps: Line = [shown if n == 0 else None]
        kept: Line = [None]
        for layer in some:
            values = desk.activations[image["name"]][layer["name"]][layer["unit"]]
            name = f"{layer['ordinal']} {layer['name']}"
            iou = f"IoU {layer['iou']:.2f}"
            maps.append(Tile(values, Scale.of(values), f"unit {layer['unit']}", iou, name))
            kept.append(Tile(cut_out(_in_colour(shown), values, layer, edge // desk.side)))
        lines += [maps, kept]
        labels += ["map", "what its\nthreshold\nkeeps"]
    text = (
        f"The map of each of {len(layers)} convolutions that agrees best with the mask of the pet, on "
        f"{image['name']}, and under it what the map's threshold keeps of the image. Over each stand the "
        "convolution's ordinal and name, the unit, and the IoU over the test images, not over this one. Unit "
        "and level were chosen on training images. Each map has a scale of its own, signed ones with white "
        "for zero."
    )
    return desk.montage("mask", image["name"], lines, labels, [], text, edge=edge, apart=(1,))


def cut_out(picture: Array, values: Array, layer: dict[str, Any], factor: int = 1) -> Array:
    """Fade a picture (H, W, 3) in 0..1 to paper where a map's threshold leaves it out, and outline the rest.

    The map (h, w) is brought to the picture's size bilinearly, as where its IoU was measured; `layer` is an
    entry of masks.json: where it is "above", values of at least its "level" are kept, else those below it.
    What is given is `factor` times as large, so that the outline can be fine.
    """
    size = picture.shape[1], picture.shape[0]
    large = np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    kept = (large >= layer["level"]) == layer["above"]
    paper = np.divide(PAPER, 255)
    result = np.where(kept[..., None], picture, FADED * paper + (1 - FADED) * picture)
    kept, result = (array.repeat(factor, 0).repeat(factor, 1) for array in (kept, result))
    result[_outline(kept)] = to_rgb(ACCENT)
    return result


def _outline(kept: Array) -> Array:
    """The pixels of a mask (H, W) that have a neighbour outside it."""
    padded = np.pad(kept, 1, mode="edge")
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return kept & ~inner


def separating(desk: Desk, units: list[tuple[dict[str, Any], int, float]]) -> Plate:
    """The units that best tell pet from background, on the images looked at."""
    images = desk.images[:ROWS]
    edge = _edge(desk)
    lines: list[Line] = []
    for row, image in enumerate(images):
        line: Line = [desk.input(image)]
        for layer, unit, auc in units:
            values = desk.activations[image["name"]][layer["name"]][unit]
            name = f"{layer['ordinal']} {layer['name']}" if row == 0 else ""
            line.append(Tile(values, Scale.of(values), f"unit {unit}", f"AUC {auc:.2f}", name))
        lines.append(line)
    text = (
        f"The {len(units)} units that best separate pet from background, of all convolutions, on "
        f"{listed([image['name'] for image in images])}. Over each stand the convolution's ordinal and name, "
        "the unit, and the area under its ROC curve (AUC) over the pixels of the test images: 1 separates "
        "them wholly, 0.5 not at all, and below that the unit is lower on the pet. Units were chosen on "
        "training images. Each tile has a scale of its own, signed ones with white for zero."
    )
    labels = [desk.seen_as(image, "\n") for image in images]
    return desk.montage("mask", images[0]["name"], lines, labels, [], text, "+units", edge=edge, apart=(1,))


def _separating(desk: Desk, layers: list[dict[str, Any]]) -> list[tuple[dict[str, Any], int, float]]:
    """The best separating units over all layers that were recorded: layer, unit, AUC."""
    recorded = desk.activations[desk.images[0]["name"]]
    found = [
        (layer, one["unit"], one["auc"])
        for layer in layers
        for one in layer["separation"]
        if layer["name"] in recorded
    ]
    found.sort(key=lambda entry: -abs(entry[2] - 0.5))
    return found[: min(SEPARATING, fitting(_edge(desk)))]


def _road(desk: Desk, layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The layers whose best maps are shown: the road's, else some evenly spaced, with the first and last."""
    recorded = desk.activations[desk.images[0]["name"]]
    there = [layer for layer in layers if layer["name"] in recorded and layer["unit"] is not None]
    on_road = [layer for layer in there if layer["name"] in desk.road]
    if on_road or not there:
        return on_road
    places = np.unique(np.linspace(0, len(there) - 1, ROAD).round().astype(int))
    return [there[place] for place in places]


def _edge(desk: Desk) -> int:
    """The pixels of a tile that has room for a layer's name: the input enlarged by a whole factor."""
    return desk.side * -(-WIDE // desk.side)


def _in_colour(tile: Tile) -> Array:
    """The pixels of an input's tile, (H, W, 3) in 0..1, grey ones three times."""
    return tile.values if tile.values.ndim == 3 else np.repeat(tile.values[..., None], 3, axis=2)
