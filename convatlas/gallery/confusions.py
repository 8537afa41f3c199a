"""The predictions of a classifier by true and predicted class: the cells of its confusion matrix."""

from collections.abc import Sequence
from dataclasses import dataclass

from convatlas.records import ImagePrediction


@dataclass(frozen=True)
class ConfusionCell:
    """A cell of the confusion matrix with at least one image.

    Attributes:
        label: Number of the true class.
        prediction: Number of the predicted class.
        rows: Its images: errors from the highest probability down, correct predictions from the lowest up.
        share: Share of the true class's images.
    """

    label: int
    prediction: int
    rows: Sequence[ImagePrediction]
    share: float

    @property
    def is_error(self) -> bool:
        """Whether the prediction is wrong."""
        return self.label != self.prediction

    @property
    def anchor(self) -> str:
        """The id of the section with its images."""
        return f"cell-{self.label}-{self.prediction}"


def is_error(row: ImagePrediction) -> bool:
    """Return whether the class of an image is predicted wrongly.

    Args:
        row: A row of predictions.csv, of a classifier.
    """
    return row["prediction"] != row["label"]


def sort_by_confidence(rows: Sequence[ImagePrediction], descending: bool) -> list[ImagePrediction]:
    """Sort images by the probability of their predictions; of equal ones, that with the higher loss first.

    Args:
        rows: Rows of predictions.csv, of a classifier.
        descending: Whether the highest probability comes first.
    """
    sign = -1 if descending else 1
    return sorted(rows, key=lambda row: (sign * (row["probability"] or 0), -(row["loss"] or 0), row["index"]))


def group_by_cell(rows: Sequence[ImagePrediction]) -> list[ConfusionCell]:
    """Group images by true and predicted class.

    Args:
        rows: Rows of predictions.csv, of a classifier.

    Returns:
        The cells with images: the errors, that with most images first, then the correct predictions by class.
    """
    groups: dict[tuple[int, int], list[ImagePrediction]] = {}
    totals: dict[int, int] = {}
    for row in rows:
        label, prediction = row["label"], row["prediction"]
        if label is None or prediction is None:
            continue
        groups.setdefault((label, prediction), []).append(row)
        totals[label] = totals.get(label, 0) + 1
    cells = [
        ConfusionCell(
            label,
            prediction,
            sort_by_confidence(members, descending=label != prediction),
            len(members) / totals[label],
        )
        for (label, prediction), members in groups.items()
    ]

    def rank(cell: ConfusionCell) -> tuple[bool, int, int, int]:
        n_errors = len(cell.rows) if cell.is_error else 0
        return not cell.is_error, -n_errors, cell.label, cell.prediction

    return sorted(cells, key=rank)
