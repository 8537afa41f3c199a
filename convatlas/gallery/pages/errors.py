"""The page of a network's errors on the test split: which images, of which classes, how confident."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from convatlas.gallery.confusions import ConfusionCell, group_by_cell, is_error, sort_by_confidence
from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.image_groups import group_by_class, group_by_subclass
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.prediction_images import ImageSheet, PredictedImage
from convatlas.records import ImagePrediction, Split

MAX_FIRST_IMAGES = 24  # the most confident errors, or the images with the lowest IoU
MAX_LAST_IMAGES = 12  # the least confident correct predictions, or the images with the highest IoU
MAX_CORRECT_PER_CLASS = 3  # correct predictions of a class
MAX_MATRIX_CLASSES = 40  # with a row and a column each; of more, the most frequent confusions are listed
MAX_LISTED_CONFUSIONS = 50
MAX_LINKED_CONFUSIONS = 5  # on the network's page
MAX_GROUPS = 120  # rows of a table of classes or subclasses


@dataclass(frozen=True)
class ShownCell:
    """A cell of the confusion matrix, and those of its images that the page shows."""

    cell: ConfusionCell
    images: Sequence[PredictedImage]


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the page of each network that was evaluated on a test split.

    Args:
        context: The run that the site shows.
    """
    for network in context.networks:
        name, dataset = network.description["dataset"], network.dataset
        if not has_errors(network) or name is None or dataset is None:
            continue
        rows = network.results.predictions
        sheet = ImageSheet(name, context.data / name, context.get_previews_folder(name), dataset)
        is_segmentation = "mean_iou" in rows[0]
        choose = choose_segmented if is_segmentation else choose_classified
        classes = (dataset if is_segmentation else network.description)["classes"]
        explorer = context.explorers.get(network.name)
        values = {
            "network": network,
            "is_segmentation": is_segmentation,
            "n_images": len(rows),
            "classes": classes,
            "by_class": group_by_class(rows, classes) if classes else [],
            "by_subclass": group_by_subclass(rows, classes, sheet.subclasses) if classes else [],
            "max_groups": MAX_GROUPS,
            "explored_images": list_explored_images(network) if explorer else {},
            "first_layer": next(iter(explorer.slugs)) if explorer else "",
            **choose(network, rows, sheet),
        }
        title = f"{network.name}: errors"
        path = f"networks/{network.name}-errors.html"
        yield SitePage(
            path,
            "errors.html",
            title,
            values,
            generated_files=sheet.thumbnails,
            network=network.name,
            tab="Errors",
        )


def has_errors(network: NetworkData) -> bool:
    """Return whether a network was evaluated on a test split, so that it has the page of its errors.

    Args:
        network: The network.
    """
    return bool(network.results.predictions and network.dataset)


def list_confusions(network: NetworkData) -> list[ConfusionCell]:
    """List the most frequent confusions of a classifier, which its page links to.

    Args:
        network: The network.
    """
    rows = network.results.predictions
    if not rows or "mean_iou" in rows[0]:
        return []
    return [cell for cell in group_by_cell(rows) if cell.is_error][:MAX_LINKED_CONFUSIONS]


def list_explored_images(network: NetworkData, split: Split = "test") -> dict[int, str]:
    """Return the names of the sample images that are images of a split, by their numbers in the split.

    Args:
        network: The network.
        split: The split.
    """
    images = [image for image in network.images if image["split"] == split]
    return {image["index"]: image["name"] for image in images if image["index"] is not None}


def choose_classified(
    network: NetworkData, rows: Sequence[ImagePrediction], sheet: ImageSheet
) -> Mapping[str, object]:
    """Choose what the page of a classifier shows.

    Args:
        network: The network.
        rows: Its predictions.csv.
        sheet: Where the images are added.

    Returns:
        Variables of the template.
    """
    cells = group_by_cell(rows)
    wrong = sort_by_confidence([row for row in rows if is_error(row)], descending=True)
    correct = sort_by_confidence([row for row in rows if not is_error(row)], descending=False)
    first_images = sheet.add(wrong[:MAX_FIRST_IMAGES])
    last_images = sheet.add(correct[:MAX_LAST_IMAGES])
    _add_in_turn(sheet, [cell.rows for cell in cells if cell.is_error])
    _add_in_turn(sheet, [cell.rows[:MAX_CORRECT_PER_CLASS] for cell in cells if not cell.is_error])
    shown = [ShownCell(cell, images) for cell in cells if (images := sheet.select(cell.rows))]
    has_matrix = len(network.description["classes"]) <= MAX_MATRIX_CLASSES
    return {
        "n_errors": len(wrong),
        "first_images": first_images,
        "last_images": last_images,
        "matrix": arrange_cells(cells, len(network.description["classes"])) if has_matrix else None,
        "listed_cells": [cell for cell in cells if cell.is_error][:MAX_LISTED_CONFUSIONS],
        "shown_cells": shown,
        "anchors": {shown_cell.cell.anchor for shown_cell in shown},
    }


def choose_segmented(
    network: NetworkData, rows: Sequence[ImagePrediction], sheet: ImageSheet
) -> Mapping[str, object]:
    """Choose what the page of a segmentation network shows: the images with the lowest IoU.

    Args:
        network: The network.
        rows: Its predictions.csv.
        sheet: Where the images are added.

    Returns:
        Variables of the template.
    """
    classes = list(network.metrics["iou"])
    measured = [row for row in rows if row["mean_iou"] is not None]
    ordered = sorted(measured, key=lambda row: (row["mean_iou"] or 0, row["index"]))
    n_first = min(MAX_FIRST_IMAGES, (len(ordered) + 1) // 2)
    return {
        "n_measured": len(ordered),
        "mask_classes": classes,
        "first_images": sheet.add(ordered[:n_first]),
        "last_images": sheet.add(ordered[n_first:][: -MAX_LAST_IMAGES - 1 : -1]),
    }


def arrange_cells(cells: Sequence[ConfusionCell], n_classes: int) -> list[list[ConfusionCell | None]]:
    """Arrange cells as the confusion matrix.

    Args:
        cells: The cells with images.
        n_classes: Number of the classes.

    Returns:
        A row for each true class with a cell for each predicted class; None without an image.
    """
    matrix: list[list[ConfusionCell | None]] = [[None] * n_classes for _ in range(n_classes)]
    for cell in cells:
        matrix[cell.label][cell.prediction] = cell
    return matrix


def _add_in_turn(sheet: ImageSheet, groups: Sequence[Sequence[ImagePrediction]]) -> None:
    """Add the first image of each group, then the second of each, and so on, until the sheet is full."""
    for rank in range(max(map(len, groups), default=0)):
        if sheet.is_full:
            return
        sheet.add(group[rank] for group in groups if rank < len(group))
