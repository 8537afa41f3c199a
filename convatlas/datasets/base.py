"""The examples of a split: images with labels, decoded when they are asked for."""

import csv
import io
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from convatlas import UserError, image_io
from convatlas.files import write_bytes

log = logging.getLogger(__name__)

PROGRESS_INTERVAL = 1000  # images between two lines of progress
SPLITS_COLUMNS = ["split", "label", "path"]


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """A split ("train" or "test") of a data set: labels (N,) int64, -1 where there are none.

    `names` tell the examples apart within the data set; `paths` are those of their files, None
    where an image has no file of its own. This class reads image files; others override it.
    """

    labels: np.ndarray
    names: list[str]
    paths: list[str | None]

    def __len__(self) -> int:
        return len(self.labels)

    def read_image(self, n: int, mode: str) -> Image.Image:
        """Give an image, "L" (grey) or "RGB", at its own size. Raises UserError where it cannot be read."""
        return image_io.read_image(str(self.paths[n]), mode)

    def read_images(
        self,
        mode: str,
        size: int,
        resize: int | str,
        indices: Sequence[int] | None = None,
        interpolation: str = "bilinear",
    ) -> np.ndarray:
        """Give images (N, C, size, size) uint8, each brought to `size` by pictures.fit; all by default."""
        chosen = range(len(self)) if indices is None else indices
        found = np.empty((len(chosen), len(mode), size, size), np.uint8)
        for place, n in enumerate(chosen):
            found[place] = image_io.resize_to(
                self.read_image(n, mode), size, resize, interpolation
            ).transpose(2, 0, 1)
            if (place + 1) % PROGRESS_INTERVAL == 0:
                log.info("read %d of %d images", place + 1, len(chosen))
        return found


def write_splits(folder: Path, rows: Iterable[tuple[str, int, str]]) -> None:
    """Write `folder`/splits.csv: split, label and path, relative to the folder, of each image file."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerows([SPLITS_COLUMNS, *rows])
    write_bytes(folder / "splits.csv", text.getvalue().encode(errors="surrogateescape"))


def read_splits(folder: Path, split: str) -> tuple[np.ndarray, list[str]]:
    """Read the labels (N,) int64 and paths of a split, in their order."""
    path = folder / "splits.csv"
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == split]
        labels = np.array([int(row["label"]) for row in rows], np.int64)
        return labels, [str(folder / row["path"]) for row in rows]
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; run the stage that writes it") from error
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run again") from error
