"""The figure of what a network segments: ground truth, prediction and their difference."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from convatlas.figures.context import Caption, CaptionedFigure, FigureContext
from convatlas.figures.tiles import MontageOptions
from convatlas.names import format_shape
from convatlas.plotting.labelled_figure import COLOUR_BAR_COLUMN_WIDTH, HAIRLINE_RGB, SMALL_POINTS, TOP_MARGIN
from convatlas.plotting.montage import TILE_SIZE, Tile, TileRow
from convatlas.records import SegmentationAnalysis, SegmentationExample

PET, BACKGROUND, BORDER = 0, 1, 2  # the classes of a trimap, as in masks/examples.npz
CLASS_COLOURS = {"pet": "#1f6a9a", "background": "#e3dccb", "border": "#e3a72f"}
# Correct pixels are pale, a little darker on the pet, so that its shape is visible.
DIFFERENCE_COLOURS = {
    "correct": "#efe9dc",
    "correct, pet": "#cfc7b6",
    "missed pet": "#9c2f1a",
    "false pet": "#1f6a9a",
    "at the border": "#e3a72f",
}


def draw_examples(context: FigureContext, analysis: SegmentationAnalysis) -> CaptionedFigure:
    """Draw an example per row: photograph, ground truth, prediction and difference.

    Args:
        context: The network's results and views.
        analysis: masks.json, with at least one example.

    Returns:
        A figure of kind "segmentation", with the legends of the classes and the differences on its right.

    Raises:
        UserError: A file of the results is missing or damaged.
    """
    arrays, examples = context.results.segmentation_examples, analysis["examples"]
    photographs, truths, predictions = (arrays[key] for key in ("photograph", "truth", "prediction"))
    rows: list[TileRow] = []
    for n in range(len(examples)):
        difference = classify_differences(truths[n], predictions[n])
        pictures = {
            "photograph": photographs[n] / 255,
            "ground truth": colour_classes(truths[n], CLASS_COLOURS),
            "prediction": colour_classes(predictions[n], CLASS_COLOURS),
            "difference": colour_classes(difference, DIFFERENCE_COLOURS),
        }
        rows.append([Tile(values, title=title) for title, values in pictures.items()])
    labels = [_format_example_label(example) for example in examples]
    caption = Caption(
        f"output: ground truth and prediction of {len(examples)} test images, "
        f"{format_shape(analysis['size'])} pixels each",
        "Rows: the first test image, and the best, the median and the worst by the IoU of the pet "
        "(intersection over union: 1 is perfect); beside each the IoU of every class. Difference: correct "
        "pixels are pale; a pixel is at the border where only one of ground truth and prediction is border.",
    )
    options = MontageOptions(tile_size=3 * TILE_SIZE)
    figure = context.make_montage("segmentation", "", rows, labels, [], caption, options)
    _draw_legends(figure.figure)
    return figure


def colour_classes(classes: npt.NDArray[np.integer], colours: Mapping[str, str]) -> npt.NDArray[np.float64]:
    """Return the colours of classes.

    Args:
        classes: (H, W), numbers of the entries of `colours`, from 0.
        colours: Matplotlib colours by name.

    Returns:
        (H, W, 3) in 0..1.
    """
    pixels: npt.NDArray[np.float64] = np.array([to_rgb(colour) for colour in colours.values()])[classes]
    return pixels


def classify_differences(
    truth: npt.NDArray[np.integer], prediction: npt.NDArray[np.integer]
) -> npt.NDArray[np.int64]:
    """Return how a prediction differs from the truth.

    Args:
        truth: Classes PET, BACKGROUND and BORDER, (H, W).
        prediction: The predicted classes, likewise (H, W).

    Returns:
        (H, W), numbers of the entries of DIFFERENCE_COLOURS.
    """
    differences = np.where(truth == PET, 1, 0)
    differences[(truth == PET) & (prediction == BACKGROUND)] = 2
    differences[(truth == BACKGROUND) & (prediction == PET)] = 3
    differences[(truth != prediction) & ((truth == BORDER) | (prediction == BORDER))] = 4
    return differences


def _format_example_label(example: SegmentationExample) -> str:
    """Return the label of an example; a class absent from truth and prediction has no IoU."""
    rows = [f"{name} {'–' if iou is None else f'{iou:.2f}'}" for name, iou in example["iou"].items()]
    title = f"test image {example['index']}"
    return "\n".join([example["rank"], title, "", "IoU", *rows, f"mean {example['mean_iou']:.2f}"])


def _draw_legends(figure: Figure) -> None:
    """Draw the legends right of a montage, in the column of colour bars."""
    width, height = figure.get_size_inches() * figure.dpi
    for title, colours, offset in (("class", CLASS_COLOURS, 0), ("difference", DIFFERENCE_COLOURS, 190)):
        handles = [
            Rectangle((0, 0), 1, 1, facecolor=colour, edgecolor=HAIRLINE_RGB, linewidth=0.4)
            for colour in colours.values()
        ]
        anchor = 1 - (COLOUR_BAR_COLUMN_WIDTH - 4) / width, 1 - (TOP_MARGIN + 18 + offset) / height
        figure.legend(
            handles,
            list(colours),
            title=title,
            loc="upper left",
            bbox_to_anchor=anchor,
            frameon=False,
            fontsize=SMALL_POINTS,
            title_fontsize=SMALL_POINTS,
            alignment="left",
            borderpad=0,
            borderaxespad=0,
            handlelength=1.2,
            handleheight=1.2,
            handletextpad=0.6,
        )
