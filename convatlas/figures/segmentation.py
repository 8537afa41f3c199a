"""Plates of masks: what a network segments, and where among its layers the mask appears."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from convatlas.figures.context import (
    Array,
    CaptionedFigure,
    FigureContext,
    TileRow,
    count_tiles_per_row,
    join_names,
    split_into_chunks,
)
from convatlas.figures.projections import MIN_LABELLED_TILE_SIZE
from convatlas.plotting import charts
from convatlas.plotting.colormap import ColourScale
from convatlas.plotting.labelled_figure import ACCENT_COLOUR, COLOUR_BAR_COLUMN_WIDTH, TOP_MARGIN
from convatlas.plotting.montage import BACKGROUND_COLOUR, HAIRLINE, TILE_SIZE, Tile

PET, BACKGROUND, BORDER = 0, 1, 2  # the classes of a trimap, as in examples.npz
CLASS_COLOURS = {"pet": "#1f6a9a", "background": "#e3dccb", "border": "#e3a72f"}
# Agreement is quiet, a little darker on the pet, so that its shape is seen.
DIFFERENCE_COLOURS = {"right": "#efe9dc", "right, pet": "#cfc7b6", "missed pet": "#9c2f1a", "false pet": "#1f6a9a",
              "at the border": "#e3a72f"}  # fmt: skip
N_DEFAULT_LAYERS = 8  # layers whose best maps are shown where the views name none
MAX_SEPARATING_UNITS = 8  # units
MAX_IMAGES = 3  # images of the separating units
FADE_FRACTION = 0.82  # how far what lies outside a mask goes towards paper


def draw_segmentation_figures(desk: FigureContext) -> Iterator[CaptionedFigure]:
    """Draw the plates of masks of a network, none where it has no masks."""
    if not desk.masks:
        return
    if desk.masks["examples"]:
        yield draw_segmentation_examples(desk, desk.masks["examples"])
    if desk.masks["layers"]:
        yield draw_mask_emergence(desk, desk.masks)
    if desk.images:
        if found := _select_layers(desk, desk.masks["layers"]):
            yield draw_best_maps(desk, desk.images[0], found)
        if units := _select_separating_units(desk, desk.masks["layers"]):
            yield draw_separating_units(desk, units)


# What is segmented


def draw_segmentation_examples(desk: FigureContext, examples: list[dict[str, Any]]) -> CaptionedFigure:
    """An example a row: photograph, truth, prediction, and where the two differ."""
    photographs, truths, predictions = (
        desk.segmentation_examples[key] for key in ("photograph", "truth", "prediction")
    )
    lines: list[TileRow] = []
    labels = []
    for n, example in enumerate(examples):
        truth, predicted = truths[n], predictions[n]
        pictures = {
            "photograph": photographs[n] / 255,
            "truth": colour_classes(truth, list(CLASS_COLOURS.values())),
            "prediction": colour_classes(predicted, list(CLASS_COLOURS.values())),
            "difference": colour_classes(
                classify_differences(truth, predicted), list(DIFFERENCE_COLOURS.values())
            ),
        }
        lines.append([Tile(values, title=title) for title, values in pictures.items()])
        labels.append(_format_example_label(example))
    pixels = " × ".join(map(str, desk.masks["size"])) if desk.masks else ""
    text = (
        f"What the network segments: photographs of {len(examples)} test images, their truth, the "
        f"prediction, and where the two differ, at the network's input of {pixels} pixels. The first test "
        "image, and the best, the median and the worst by the IoU of the pet (intersection over union: 1 is "
        "perfect), which is printed beside each with those of background and border. In the difference, what "
        "agrees is pale; a pixel is at the border where one of the two calls it border, the other not."
    )
    plate = desk.make_montage("segmentation", "", lines, labels, [], text, tile_size=3 * TILE_SIZE)
    _draw_legends(plate.figure)
    return plate


def colour_classes(classes: Array, colours: list[str]) -> Array:
    """Colour classes (H, W), integers that count the colours, as (H, W, 3) in 0..1."""
    return np.array([to_rgb(colour) for colour in colours])[classes]


def classify_differences(truth: Array, predicted: Array) -> Array:
    """Tell how a prediction (H, W) of classes differs from the truth: (H, W), places in DIFFERENCE."""
    found = np.where(truth == PET, 1, 0)
    found[(truth == PET) & (predicted == BACKGROUND)] = 2
    found[(truth == BACKGROUND) & (predicted == PET)] = 3
    found[(truth != predicted) & ((truth == BORDER) | (predicted == BORDER))] = 4
    return found


def _format_example_label(example: dict[str, Any]) -> str:
    """What stands beside an example: which it is, and its IoUs; a class absent from both has none."""
    rows = [f"{name} {'–' if iou is None else f'{iou:.2f}'}" for name, iou in example["iou"].items()]
    return "\n".join([example["rank"], example["name"], "", "IoU", *rows, f"mean {example['mean_iou']:.2f}"])


def _draw_legends(figure: Figure) -> None:
    """Print what the colours mean, at the right of a montage, where other plates have their colour bars."""
    width, height = figure.get_size_inches() * figure.dpi
    parts = (("class", CLASS_COLOURS, 0), ("difference", DIFFERENCE_COLOURS, 190))
    for title, colours, down in parts:
        handles = [
            Rectangle((0, 0), 1, 1, facecolor=colour, edgecolor=np.divide(HAIRLINE, 255), linewidth=0.4)
            for colour in colours.values()
        ]
        place = 1 - (COLOUR_BAR_COLUMN_WIDTH - 4) / width, 1 - (TOP_MARGIN + 18 + down) / height
        figure.legend(handles, list(colours), title=title, loc="upper left", bbox_to_anchor=place,
                      frameon=False, fontsize=6.5, title_fontsize=6.5, alignment="left", borderpad=0,
                      borderaxespad=0, handlelength=1.2, handleheight=1.2, handletextpad=0.6)  # fmt: skip


# Where the mask appears


def draw_mask_emergence(desk: FigureContext, masks: dict[str, Any]) -> CaptionedFigure:
    """Over the convolutions in the order in which they run: agreement with the mask, and fine detail."""
    images, layers, reached = masks["images"], masks["layers"], masks["emergence"]
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
        f" Below, fine detail: the share of each layer's spectral energy above {masks['cutoff_frequency']:g} cycles "
        f"per image, which maps of at most {2 * masks['cutoff_frequency']:g} pixels cannot hold, and the "
        "correlation |r| with the image's edges (Sobel) of the map that follows them best."
    )
    if remark:
        text += f" Layer {remark['ordinal']}: {remark['text']}."
    caption = desk.make_caption(text)
    return desk.make_figure("mask", "", caption, charts.plot_mask_emergence(masks, remark, caption))


def draw_best_maps(
    desk: FigureContext, image: dict[str, Any], layers: list[dict[str, Any]]
) -> CaptionedFigure:
    """The best map of each layer on one image, and under it what its threshold keeps of the image."""
    shown, edge = desk.make_input_tile(image), _tile_size(desk)
    lines: list[TileRow] = []
    labels = []
    for n, some in enumerate(split_into_chunks(layers, count_tiles_per_row(edge))):
        maps: TileRow = [shown if n == 0 else None]
        kept: TileRow = [None]
        for layer in some:
            values = desk.activations[image["name"]][layer["name"]][layer["unit"]]
            name = f"{layer['ordinal']} {layer['name']}"
            iou = f"IoU {layer['iou']:.2f}"
            maps.append(Tile(values, ColourScale.from_values(values), f"unit {layer['unit']}", iou, name))
            kept.append(Tile(fade_outside_mask(_as_rgb(shown), values, layer, edge // desk.input_size)))
        lines += [maps, kept]
        labels += ["map", "what its\nthreshold\nkeeps"]
    text = (
        f"The map of each of {len(layers)} convolutions that agrees best with the mask of the pet, on "
        f"{image['name']}, and under it what the map's threshold keeps of the image. Over each stand the "
        "convolution's ordinal and name, the unit, and the IoU over the test images, not over this one. Unit "
        "and level were chosen on training images. Each map has a scale of its own, signed ones with white "
        "for zero."
    )
    return desk.make_montage(
        "mask", image["name"], lines, labels, [], text, tile_size=edge, group_starts=(1,)
    )


def fade_outside_mask(picture: Array, values: Array, layer: dict[str, Any], factor: int = 1) -> Array:
    """Fade a picture (H, W, 3) in 0..1 to paper where a map's threshold leaves it out, and outline the rest.

    The map (h, w) is brought to the picture's size bilinearly, as where its IoU was measured; `layer` is an
    entry of masks.json: where it is "at_least", values of at least its "threshold" are kept, else those below it.
    What is given is `factor` times as large, so that the outline can be fine.
    """
    size = picture.shape[1], picture.shape[0]
    large = np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    kept = (large >= layer["threshold"]) == layer["at_least"]
    paper = np.divide(BACKGROUND_COLOUR, 255)
    result = np.where(kept[..., None], picture, FADE_FRACTION * paper + (1 - FADE_FRACTION) * picture)
    kept, result = (array.repeat(factor, 0).repeat(factor, 1) for array in (kept, result))
    result[_find_outline(kept)] = to_rgb(ACCENT_COLOUR)
    return result


def _find_outline(kept: Array) -> Array:
    """The pixels of a mask (H, W) that have a neighbour outside it."""
    padded = np.pad(kept, 1, mode="edge")
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return kept & ~inner


def draw_separating_units(
    desk: FigureContext, units: list[tuple[dict[str, Any], int, float]]
) -> CaptionedFigure:
    """The units that best tell pet from background, on the images looked at."""
    images = desk.images[:MAX_IMAGES]
    edge = _tile_size(desk)
    lines: list[TileRow] = []
    for row, image in enumerate(images):
        line: TileRow = [desk.make_input_tile(image)]
        for layer, unit, auc in units:
            values = desk.activations[image["name"]][layer["name"]][unit]
            name = f"{layer['ordinal']} {layer['name']}" if row == 0 else ""
            line.append(Tile(values, ColourScale.from_values(values), f"unit {unit}", f"AUC {auc:.2f}", name))
        lines.append(line)
    text = (
        f"The {len(units)} units that best separate pet from background, of all convolutions, on "
        f"{join_names([image['name'] for image in images])}. Over each stand the convolution's ordinal and name, "
        "the unit, and the area under its ROC curve (AUC) over the pixels of the test images: 1 separates "
        "them wholly, 0.5 not at all, and below that the unit is lower on the pet. Units were chosen on "
        "training images. Each tile has a scale of its own, signed ones with white for zero."
    )
    labels = [desk.describe_image(image, "\n") for image in images]
    return desk.make_montage(
        "mask", images[0]["name"], lines, labels, [], text, "+units", tile_size=edge, group_starts=(1,)
    )


def _select_separating_units(
    desk: FigureContext, layers: list[dict[str, Any]]
) -> list[tuple[dict[str, Any], int, float]]:
    """The best separating units over all layers that were recorded: layer, unit, AUC."""
    recorded = desk.activations[desk.images[0]["name"]]
    found = [
        (layer, one["unit"], one["auc"])
        for layer in layers
        for one in layer["selective_units"]
        if layer["name"] in recorded
    ]
    found.sort(key=lambda entry: -abs(entry[2] - 0.5))
    return found[: min(MAX_SEPARATING_UNITS, count_tiles_per_row(_tile_size(desk)))]


def _select_layers(desk: FigureContext, layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The layers whose best maps are shown: the road's, else some evenly spaced, with the first and last."""
    recorded = desk.activations[desk.images[0]["name"]]
    there = [layer for layer in layers if layer["name"] in recorded and layer["unit"] is not None]
    on_road = [layer for layer in there if layer["name"] in desk.highlighted_layers]
    if on_road or not there:
        return on_road
    places = np.unique(np.linspace(0, len(there) - 1, N_DEFAULT_LAYERS).round().astype(int))
    return [there[place] for place in places]


def _tile_size(desk: FigureContext) -> int:
    """The pixels of a tile that has room for a layer's name: the input enlarged by a whole factor."""
    return desk.input_size * -(-MIN_LABELLED_TILE_SIZE // desk.input_size)


def _as_rgb(tile: Tile) -> Array:
    """The pixels of an input's tile, (H, W, 3) in 0..1, grey ones three times."""
    return tile.values if tile.values.ndim == 3 else np.repeat(tile.values[..., None], 3, axis=2)
