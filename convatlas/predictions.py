"""predictions.csv: what a network predicts for each test image, one row per image. No torch here."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from convatlas.files import damaged_file_error, missing_file_error
from convatlas.records import ImagePrediction

COLUMNS = ["split", "index", "file", "label", "prediction", "probability", "loss"]
INTERSECTION, UNION = "intersection_", "union_"  # before the name of a class, in names of columns


def format_predictions(rows: Iterable[ImagePrediction], mask_classes: Sequence[str] = ()) -> bytes:
    """Return the content of predictions.csv; what does not apply is empty.

    Args:
        rows: The images, in the order of the split.
        mask_classes: The classes of the pixels of a segmentation network: there is a column with the
            intersection and one with the union of each, and one with the mean IoU.
    """
    columns = list(COLUMNS)
    if mask_classes:
        columns.append("mean_iou")
        columns += [prefix + name for prefix in (INTERSECTION, UNION) for name in mask_classes]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        values: list[object] = [row["split"], row["index"], row["file"], row["label"], row["prediction"]]
        values += [_format_number(row["probability"]), _format_number(row["loss"])]
        if mask_classes:
            values += [_format_number(row["mean_iou"]), *row["intersections"], *row["unions"]]
        writer.writerow(values)
    return text.getvalue().encode(errors="surrogateescape")


def read_predictions(path: Path) -> list[ImagePrediction]:
    """Read predictions.csv.

    Args:
        path: The file.

    Returns:
        Its rows; none where the network was not evaluated on the test split.

    Raises:
        UserError: The file is missing or damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            header, *lines = csv.reader(file)
            return [_parse_row(header, values) for values in lines]
    except FileNotFoundError as error:
        raise missing_file_error(path) from error
    except (csv.Error, KeyError, ValueError) as error:
        raise damaged_file_error(path, error) from error


def _parse_row(header: Sequence[str], values: Sequence[str]) -> ImagePrediction:
    """Return a row of the file with its numbers."""
    row = dict(zip(header, values, strict=True))
    prediction: ImagePrediction = {
        "split": "train" if row["split"] == "train" else "test",
        "index": int(row["index"]),
        "file": row["file"] or None,
        "label": int(row["label"]) if row["label"] else None,
        "prediction": int(row["prediction"]) if row["prediction"] else None,
        "probability": float(row["probability"]) if row["probability"] else None,
        "loss": float(row["loss"]) if row["loss"] else None,
    }
    if "mean_iou" in row:
        # By place, as two classes may have one name.
        pairs = list(zip(header, values, strict=True))
        prediction["mean_iou"] = float(row["mean_iou"]) if row["mean_iou"] else None
        prediction["intersections"] = [int(n) for name, n in pairs if name.startswith(INTERSECTION)]
        prediction["unions"] = [int(n) for name, n in pairs if name.startswith(UNION)]
    return prediction


def _format_number(value: float | None) -> str:
    """Return the shortest text of a float32 from which it is read again."""
    return "" if value is None else str(np.float32(value))
