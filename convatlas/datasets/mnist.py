"""MNIST: four idx files under MNIST/raw/ (LeCun, Cortes, Burges, The MNIST database)."""

import hashlib
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convatlas import UserError, download
from convatlas.datasets.base import ImageDataset, SourceDescription, remove_description, write_description
from convatlas.datasets.embedded_digits import write_embedded_digits
from convatlas.datasets.idx import read_idx
from convatlas.files import atomic_write
from convatlas.image_io import Size
from convatlas.paths import expand_home
from convatlas.pipeline.config_types import DatasetConfig
from convatlas.pixels import PixelFormat
from convatlas.records import DatasetDescription
from convatlas.unpacking import unpack_gzip
from convatlas.value_ranges import scale_to_bytes

log = logging.getLogger(__name__)

SPLIT_FILES = {  # images and labels of each split
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
FILE_NAMES = [name for names in SPLIT_FILES.values() for name in names]
EXPECTED_LAYOUT = f"a directory that holds MNIST/raw/ with {', '.join(FILE_NAMES)}"

TITLE = "MNIST"
LAYOUT = "MNIST layout: MNIST/raw/*-ubyte"
MASK_CLASSES: Sequence[str] = ()
CHANNELS = 1
INPUT_SIZE: int | None = 28
IMAGE_COUNT = 70_000
SOURCE_PATTERNS: Sequence[str] = ("MNIST/raw/*-ubyte*",)
OUTPUT_FILES: Sequence[str] = [f"MNIST/raw/{name}" for name in FILE_NAMES]
OUTPUT_FOLDERS: Sequence[str] = ()
THREADS = 1
CODE_PATTERNS: Sequence[str] = ()

SOURCE_DESCRIPTIONS = {
    "embedded": SourceDescription(
        "Embedded handwritten digits",
        "A stand-in for MNIST that needs no download: real handwritten digits, scanned at 8 × 8 pixels "
        "(the test part of the UCI set Optical Recognition of Handwritten Digits, as scikit-learn ships "
        "it), enlarged here to 20 × 20, sharpened, and centred by mass in 28 × 28 as MNIST's are. "
        "Results measured on it do not hold for MNIST.",
        "E. Alpaydin, C. Kaynak, UCI Machine Learning Repository, 1998; CC BY 4.0",
    ),
    "download": SourceDescription(
        "MNIST",
        "The MNIST database of handwritten digits, downloaded and verified by checksum.",
        "Y. LeCun, C. Cortes, C. J. C. Burges; usually stated as CC BY-SA 3.0",
    ),
    "directory": SourceDescription(
        "Digits from a directory",
        "idx files from a directory of the user's.",
        "as their owner states",
    ),
}


@dataclass(frozen=True, eq=False)
class MnistDataset(ImageDataset):
    """A split that is in memory: `images` (N, H, W) uint8."""

    images: np.ndarray

    def read_pixels(self, index: int, pixel_format: PixelFormat) -> np.ndarray:
        """Return an image at its stored size.

        Args:
            index: The image's index in the split.
            pixel_format: One channel, or three, which repeats it; and the range of values.

        Returns:
            Pixels (28, 28, C), uint8 or float32 in 0..255.
        """
        pixels: np.ndarray = self.read_images(pixel_format, (28, 28), "cover", [index])[0].transpose(1, 2, 0)
        return pixels

    def read_images(
        self,
        pixel_format: PixelFormat,
        size: Size,
        resize: int | str,
        indices: Sequence[int] | None = None,
        interpolation: str = "bilinear",
    ) -> np.ndarray:
        """Return images at their stored size: `Preprocessing` resizes them, as floats.

        Args:
            pixel_format: One channel, or three, which repeats it; and the range of values.
            size: Not used, as `resize` and `interpolation`.
            resize: Not used.
            indices: Indices in the split; all images by default.
            interpolation: Not used.

        Returns:
            Pixels (N, C, H, W), uint8 or float32 in 0..255, as `get_dtype` says.
        """
        images = self.images if indices is None else self.images[np.asarray(indices, np.int64)]
        if pixel_format.value_range is not None:
            images = scale_to_bytes(images, *pixel_format.value_range)
        return np.repeat(images[:, None], pixel_format.channels, axis=1)


def prepare(folder: Path, settings: DatasetConfig, key: str) -> None:
    """Write `folder`/MNIST/raw/ and `folder`/dataset.json; see `formats.prepare`.

    A directory source holds MNIST/raw/ with plain or gzipped idx files.

    Args:
        folder: The data set's folder, data/<name>.
        settings: The data set's section of the config.
        key: The place of that section in the config, for error messages.

    Raises:
        UserError: The source is missing, incomplete or damaged, or cannot be downloaded.
    """
    source, mirrors, key = settings["source"], settings["mirrors"], f"{key}.source"
    directory = expand_home(source)
    if (directory / "MNIST").resolve() == (folder / "MNIST").resolve():
        raise UserError(f"{key}: {source} is the output folder; move it and name the new place")
    archives = _download(folder, mirrors, key) if source == "download" else []
    with atomic_write(folder / "MNIST") as temporary:
        raw = temporary / "raw"
        raw.mkdir(parents=True)
        if source == "embedded":
            write_embedded_digits(raw, SPLIT_FILES)
        elif source == "download":
            for path in archives:
                unpack_gzip(path, raw / path.stem)
        else:
            _link_files(raw, directory, key)
        try:
            splits = {split: _read_split(raw, split) for split in SPLIT_FILES}
        except UserError as error:  # name the user's file, not the temporary one
            text = str(error).replace(str(temporary), str(directory / "MNIST"))
            raise UserError(f"{key}: {text}") from error
        remove_description(folder)
    if archives:
        shutil.rmtree(archives[0].parent, ignore_errors=True)
    write_description(folder, _build_description(splits, source))


def list_classes(folder: Path, settings: DatasetConfig) -> list[str] | None:
    """Return the ten digits, except of a directory, whose labels are not read; see `formats.DatasetFormat`.

    Args:
        folder: The data set's folder, data/<name>.
        settings: The data set's section of the config.
    """
    return [str(digit) for digit in range(10)] if settings["source"] in SOURCE_DESCRIPTIONS else None


def load(folder: Path, split: str) -> MnistDataset:
    """Read a split into memory.

    Args:
        folder: The data set's folder, data/<name>.
        split: "train" or "test".

    Raises:
        UserError: An idx file cannot be read, or images and labels do not match.
    """
    images, labels = _read_split(folder / "MNIST/raw", split)
    names = [f"{split}-{n:05d}" for n in range(len(images))]
    return MnistDataset(labels.astype(np.int64), names, [None] * len(images), images)


def _read_split(raw: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the images (N, H, W) and labels (N,) of a split and check that they match."""
    images, labels = (read_idx(raw / name) for name in SPLIT_FILES[split])
    path = raw / SPLIT_FILES[split][0]
    if images.ndim != 3 or labels.ndim != 1:
        raise UserError(
            f"{path}: expected (N, H, W) images and (N,) labels, found {images.shape}, {labels.shape}"
        )
    if len(images) != len(labels) or not len(images):
        raise UserError(
            f"{path}: {len(images)} images, but {len(labels)} labels; both must be the same number above 0"
        )
    return images, labels


def _build_description(splits: dict[str, tuple[np.ndarray, np.ndarray]], source: str) -> DatasetDescription:
    """Describe the data set for dataset.json; its hash is that of all images and labels."""
    kind = source if source in SOURCE_DESCRIPTIONS else "directory"
    texts = SOURCE_DESCRIPTIONS[kind]
    classes = 1 + max(int(labels.max()) for _, labels in splits.values())
    digest = hashlib.sha256()
    for images, labels in splits.values():
        digest.update(images.tobytes() + labels.tobytes())
    return {
        "format": "mnist",
        "source": kind,
        "title": texts.title,
        "description": texts.description,
        "licence": texts.licence,
        "classes": [str(label) for label in range(classes)],
        "counts": {
            split: np.bincount(labels, minlength=classes).tolist() for split, (_, labels) in splits.items()
        },
        "image_shape": [1, *splits["train"][0].shape[1:]],
        "image_sizes": None,
        "target": None,
        "sha256": digest.hexdigest(),
    }


def _link_files(raw: Path, source: Path, key: str) -> None:
    """Link the idx files of a directory; unpack those that are gzipped."""
    if not source.is_dir():
        raise UserError(f"{key}: no directory {str(source)!r}; give embedded, download or {EXPECTED_LAYOUT}")
    for name in FILE_NAMES:
        plain = source / "MNIST/raw" / name
        archive = plain.with_name(f"{name}.gz")
        if plain.is_file():
            (raw / name).symlink_to(plain.resolve())
        elif archive.is_file():
            unpack_gzip(archive, raw / name)
        else:
            raise UserError(f"{key}: {plain} is missing (and so is {name}.gz); give {EXPECTED_LAYOUT}")


def _download(folder: Path, mirrors: list[str], key: str) -> list[Path]:
    """Download torchvision's gzipped MNIST files from the mirrors, then from torchvision's own."""
    from torchvision.datasets import MNIST  # noqa: PLC0415  seconds to import, for downloads only

    alternative = "give a directory that holds MNIST/raw/"
    return download.fetch(folder, dict(MNIST.resources), mirrors + MNIST.mirrors, key, alternative)
