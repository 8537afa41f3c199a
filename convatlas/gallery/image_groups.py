"""How well a network does on the test images of each class and subclass."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from convatlas.gallery.confusions import is_error
from convatlas.records import ImagePrediction


@dataclass(frozen=True)
class ImageGroup:
    """The test images of a class or subclass.

    Attributes:
        name: Its name.
        rows: Its rows of predictions.csv.
    """

    name: str
    rows: Sequence[ImagePrediction]

    @property
    def n_errors(self) -> int:
        """Number of the images that a classifier classifies wrongly."""
        return sum(map(is_error, self.rows))

    @property
    def accuracy(self) -> float:
        """Share of the images that a classifier classifies correctly."""
        return 1 - self.n_errors / len(self.rows)

    @property
    def mean_iou(self) -> float | None:
        """Mean over the images of the mean IoU of a segmentation network; None where no image has one."""
        values = [value for row in self.rows if (value := row.get("mean_iou")) is not None]
        return fmean(values) if values else None

    @property
    def score(self) -> float:
        """The mean IoU where there is one, or else the accuracy."""
        iou = self.mean_iou
        return self.accuracy if iou is None else iou


def group_by_class(rows: Sequence[ImagePrediction], classes: Sequence[str]) -> list[ImageGroup]:
    """Group images by class.

    Args:
        rows: Rows of predictions.csv.
        classes: Names of the classes.

    Returns:
        The classes with images, that with the lowest score first.
    """
    groups: dict[int, list[ImagePrediction]] = {}  # by number, as two classes may have one name
    for row in rows:
        if row["label"] is not None:
            groups.setdefault(row["label"], []).append(row)
    return _sort([ImageGroup(classes[label], members) for label, members in groups.items()])


def group_by_subclass(
    rows: Sequence[ImagePrediction], classes: Sequence[str], subclasses: Sequence[str] | None
) -> list[ImageGroup]:
    """Group images by subclass.

    Args:
        rows: Rows of predictions.csv.
        classes: Names of the classes.
        subclasses: The subclass of each image of the split; None of a data set without any.

    Returns:
        The subclasses, named with their class, that with the lowest score first; none where they divide no
        class.
    """
    if subclasses is None or len(subclasses) <= max(row["index"] for row in rows):
        return []
    labelled = [row for row in rows if row["label"] is not None]
    names = [f"{subclasses[row['index']]} ({classes[row['label'] or 0]})" for row in labelled]
    if len(set(names)) == len({row["label"] for row in labelled}):
        return []
    groups: dict[str, list[ImagePrediction]] = {}
    for row, name in zip(labelled, names, strict=True):
        groups.setdefault(name, []).append(row)
    return _sort([ImageGroup(name, members) for name, members in groups.items()])


def _sort(groups: Sequence[ImageGroup]) -> list[ImageGroup]:
    """Sort groups, that with the lowest score first."""
    return sorted(groups, key=lambda group: (group.score, group.name))
