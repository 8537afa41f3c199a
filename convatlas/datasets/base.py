"""What all data set formats share: the images of a split, and the files splits.csv and dataset.json."""

import csv
import io
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from convatlas import UserError, image_io
from convatlas.files import damaged_file_error, missing_file_error, read_json, write_bytes, write_json
from convatlas.pixels import PixelFormat, read_pixels, resize_pixels_to
from convatlas.records import DatasetDescription

log = logging.getLogger(__name__)

PROGRESS_INTERVAL = 1000  # images between two progress messages
SPLITS_COLUMNS = ["split", "label", "path"]
DESCRIPTION_FILE = "dataset.json"
IGNORE_INDEX = 255  # value of a mask's pixels whose class is unknown: ignored by loss and metrics


@dataclass(frozen=True)
class SourceDescription:
    """What the data set's page says about a source of a format."""

    title: str
    description: str
    licence: str


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """The images of a split ("train" or "test") with their labels, decoded on access.

    This class reads image files; formats that store images otherwise override its methods.

    Attributes:
        labels: Class indices (N,) int64; -1 for an image without a label.
        names: A name for each image, unique in the data set.
        paths: The path of each image's file; None for an image that has no file of its own.
        is_plain: Whether all images have 8 bits.
    """

    labels: np.ndarray
    names: Sequence[str]
    paths: Sequence[str | None]
    is_plain: bool = field(default=True, kw_only=True)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def has_image_files(self) -> bool:
        """Whether every image has a file of its own, which has to be decoded."""
        return None not in self.paths

    @property
    def subclasses(self) -> Sequence[str] | None:
        """The finer class of each image, such as the breed of a pet; None of a format without any."""
        return None

    def read_pixels(self, index: int, pixel_format: PixelFormat) -> np.ndarray:
        """Return an image at its original size.

        Args:
            index: The image's index in the split.
            pixel_format: The channels, and the range of values.

        Returns:
            Pixels (H, W, C), uint8 or float32 in 0..255, as `pixels.read_pixels`.

        Raises:
            UserError: The file cannot be read.
        """
        return read_pixels(str(self.paths[index]), pixel_format)

    def get_dtype(self, pixel_format: PixelFormat) -> npt.DTypeLike:
        """Return the type of the pixels that `read_images` returns: uint8, or float32 in 0..255."""
        return np.uint8 if self.is_plain and pixel_format.value_range is None else np.float32

    def read_images(
        self,
        pixel_format: PixelFormat,
        size: image_io.Size,
        resize: int | str,
        indices: Sequence[int] | None = None,
        interpolation: str = "bilinear",
    ) -> np.ndarray:
        """Return images, each brought to the network's input size by `image_io.resize_to`.

        Args:
            pixel_format: The channels, and the range of values.
            size: Height and width (H, W) of the result.
            resize: As in `image_io.resize_to`.
            indices: Indices in the split; all images by default.
            interpolation: Pillow's name of the interpolation, such as "bilinear".

        Returns:
            Pixels (N, C, H, W), uint8 or float32 in 0..255, as `get_dtype` says.

        Raises:
            UserError: A file cannot be read, or has another number of channels.
        """
        if indices is None:
            indices = range(len(self))
        dtype = self.get_dtype(pixel_format)
        pixels = np.empty((len(indices), pixel_format.channels, *size), dtype)
        for n, index in enumerate(indices):
            image = resize_pixels_to(self.read_pixels(index, pixel_format), size, resize, interpolation)
            pixels[n] = self._cast(image, dtype, index).transpose(2, 0, 1)
            if (n + 1) % PROGRESS_INTERVAL == 0:
                log.info("read %d of %d images", n + 1, len(indices))
        return pixels

    def _cast(self, pixels: np.ndarray, dtype: npt.DTypeLike, index: int) -> np.ndarray:
        """Return the pixels of an image, of which some of a data set may have 8 bits, others more."""
        if pixels.dtype == np.uint8 and dtype == np.float32:
            return pixels.astype(np.float32)
        if pixels.dtype != dtype:
            raise UserError(
                f"{self.paths[index]} has changed since the data set was prepared: it has more than 8 bits "
                "now; run again"
            )
        return pixels


@dataclass(frozen=True, eq=False)
class SegmentationDataset(ImageDataset):
    """A split whose images have a mask: the class of each pixel."""

    def read_mask(self, index: int, size: image_io.Size, resize: int | str) -> np.ndarray:
        """Return the mask of an image, brought to the network's input size as the image is.

        Args:
            index: The image's index in the split.
            size: Height and width (H, W) of the result.
            resize: As in `image_io.resize_to`.

        Returns:
            Indices into the format's MASK_CLASSES, or IGNORE_INDEX: (H, W) uint8.

        Raises:
            UserError: The mask's file cannot be read.
        """
        raise NotImplementedError


def write_splits(folder: Path, rows: Iterable[tuple[str, int, str]]) -> None:
    """Write `folder`/splits.csv.

    Args:
        folder: The data set's folder, data/<name>.
        rows: Split, label, and path relative to the folder, of each image file.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerows([SPLITS_COLUMNS, *rows])
    write_bytes(folder / "splits.csv", text.getvalue().encode(errors="surrogateescape"))


def read_splits(folder: Path, split: str) -> tuple[np.ndarray, list[str]]:
    """Return the labels (N,) int64 and the paths of a split, in the order of splits.csv.

    Args:
        folder: The data set's folder, data/<name>.
        split: "train" or "test".

    Raises:
        UserError: The file is missing or damaged.
    """
    path = folder / "splits.csv"
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == split]
        labels = np.array([int(row["label"]) for row in rows], np.int64)
        return labels, [str(folder / row["path"]) for row in rows]
    except FileNotFoundError as error:
        raise missing_file_error(path) from error
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise damaged_file_error(path, error) from error


def remove_description(folder: Path) -> None:
    """Remove dataset.json, before the files that it describes are replaced.

    It marks a complete data set, so it is removed first and written last.

    Args:
        folder: The data set's folder, data/<name>.
    """
    (folder / DESCRIPTION_FILE).unlink(missing_ok=True)


def write_description(folder: Path, description: DatasetDescription) -> None:
    """Write dataset.json, after all other files of the data set.

    Args:
        folder: The data set's folder, data/<name>.
        description: The contents of the file.

    Raises:
        UserError: The file cannot be written.
    """
    write_json(folder / DESCRIPTION_FILE, description)


def read_description(folder: str | Path) -> DatasetDescription:
    """Return the contents of dataset.json.

    Args:
        folder: The data set's folder, data/<name>.

    Raises:
        UserError: The file is missing or damaged.
    """
    return cast(DatasetDescription, read_json(Path(folder) / DESCRIPTION_FILE))
