"""MNIST: four idx files under MNIST/raw/ (LeCun, Cortes, Burges, The MNIST database)."""

import gzip
import hashlib
import logging
import math
import shutil
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convatlas import UserError
from convatlas.datasets import download
from convatlas.datasets.base import ImageDataset
from convatlas.files import atomic_write, write_bytes, write_json

log = logging.getLogger(__name__)

MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
SOURCE_DESCRIPTIONS = {
    "embedded": (
        "Embedded handwritten digits",
        "A stand-in for MNIST that needs no download: real handwritten digits, scanned at 8 × 8 pixels "
        "(the test part of the UCI set Optical Recognition of Handwritten Digits, as scikit-learn ships "
        "it), enlarged here to 20 × 20, sharpened, and centred by mass in 28 × 28 as MNIST's are. "
        "Figures measured on it do not hold for MNIST.",
        "E. Alpaydin, C. Kaynak, UCI Machine Learning Repository, 1998; CC BY 4.0",
    ),
    "download": (
        "MNIST",
        "The MNIST database of handwritten digits, downloaded and verified by checksum.",
        "Y. LeCun, C. Cortes, C. J. C. Burges; usually stated as CC BY-SA 3.0",
    ),
    "directory": (
        "Digits from a directory",
        "idx files from a directory of the user's.",
        "as their owner states",
    ),
}


@dataclass(frozen=True, eq=False)
class MnistDataset(ImageDataset):
    """A split that is in memory, `images` (N, H, W) uint8."""

    images: np.ndarray

    def read_image(self, n: int, mode: str) -> Image.Image:
        """Give an image, "L" or "RGB"."""
        return Image.fromarray(self.images[n]).convert(mode)

    def read_images(
        self,
        mode: str,
        size: int,
        resize: int | str,
        indices: Sequence[int] | None = None,
        interpolation: str = "bilinear",
    ) -> np.ndarray:
        """Give images (N, C, H, W) uint8 as stored, whatever `size`: networks resize them in float."""
        chosen = self.images if indices is None else self.images[np.asarray(indices, np.int64)]
        return np.repeat(chosen[:, None], len(mode), axis=1)


def prepare(folder: Path, settings: dict[str, Any], key: str) -> None:
    """Make `folder`/MNIST/raw/ and `folder`/dataset.json, as datasets.prepare says.

    A directory source holds MNIST/raw/ with plain or gzipped idx files.
    """
    source, mirrors, key = settings["source"], settings["mirrors"], f"{key}.source"
    given = Path(source).expanduser()
    if (given / "MNIST").resolve() == (folder / "MNIST").resolve():
        raise UserError(f"{key}: {source} is the folder that is made here; move it and name the new place")
    packed = _download(folder, mirrors, key) if source == "download" else None
    with atomic_write(folder / "MNIST") as aside:
        raw = aside / "raw"
        raw.mkdir(parents=True)
        if packed:
            for path in packed:
                _unpack(path, raw / path.stem)
        elif source == "embedded":
            _write_embedded(raw)
        else:
            _link_files(raw, given, key)
        try:
            splits = {split: _read_split(raw, split) for split in MNIST_FILES}
        except UserError as error:  # it names the file where it lies now; the user knows the source
            raise UserError(f"{key}: {str(error).replace(str(aside), str(given / 'MNIST'))}") from error
        (folder / "dataset.json").unlink(missing_ok=True)  # it marks a whole data set: written last
    if packed:
        shutil.rmtree(packed[0].parent, ignore_errors=True)
    write_json(folder / "dataset.json", _build_description(splits, source))


def load(folder: Path, split: str) -> MnistDataset:
    """Read a split into memory."""
    images, labels = _read_split(folder / "MNIST/raw", split)
    names = [f"{split}-{n:05d}" for n in range(len(images))]
    return MnistDataset(labels.astype(np.int64), names, [None] * len(images), images)


def _read_split(raw: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = (read_idx(raw / name) for name in MNIST_FILES[split])
    where = raw / MNIST_FILES[split][0]
    if images.ndim != 3 or labels.ndim != 1:
        raise UserError(
            f"{where}: expected (N, H, W) images and (N,) labels, found {images.shape}, {labels.shape}"
        )
    if len(images) != len(labels) or not len(images):
        raise UserError(
            f"{where}: {len(images)} images, but {len(labels)} labels; both must be one number above 0"
        )
    return images, labels


def _build_description(splits: dict[str, tuple[np.ndarray, np.ndarray]], source: str) -> dict[str, Any]:
    title, text, licence = SOURCE_DESCRIPTIONS[source if source in SOURCE_DESCRIPTIONS else "directory"]
    classes = 1 + max(int(labels.max()) for _, labels in splits.values())
    digest = hashlib.sha256()
    for images, labels in splits.values():
        digest.update(images.tobytes() + labels.tobytes())
    return {
        "format": "mnist",
        "source": source if source in SOURCE_DESCRIPTIONS else "directory",
        "title": title,
        "description": text,
        "licence": licence,
        "classes": [str(label) for label in range(classes)],
        "counts": {
            split: np.bincount(labels, minlength=classes).tolist() for split, (_, labels) in splits.items()
        },
        "image_shape": [1, *splits["train"][0].shape[1:]],
        "image_sizes": None,
        "target": None,
        "sha256": digest.hexdigest(),
    }


# The idx format: two zero bytes, a type (8: unsigned bytes), the number of axes, then the
# length of each axis as a big-endian 32-bit integer, then the values.


def write_idx(path: str | Path, array: np.ndarray) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    write_bytes(path, header + array.astype(np.uint8).tobytes())


def read_idx(path: str | Path) -> np.ndarray:
    """Read an idx file of unsigned bytes. Raises UserError where it is not one, whole."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08" or not 1 <= content[3] <= 4:
        raise UserError(
            f"{path} is no idx file of unsigned bytes: it starts with {content[:4].hex(' ') or 'nothing'}"
        )
    axes = content[3]
    start = 4 + 4 * axes
    if len(content) < start:
        raise UserError(f"{path} is truncated: it ends within its header")
    shape = struct.unpack(f">{axes}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise UserError(
            f"{path} is truncated or altered: its header promises {math.prod(shape):,} values "
            f"{shape}, it holds {len(content) - start:,}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _link_files(raw: Path, source: Path, key: str) -> None:
    """Link the idx files of a directory; unpack those that are gzipped."""
    expected = "a directory that holds MNIST/raw/ with " + ", ".join(sum(MNIST_FILES.values(), ()))
    if not source.is_dir():
        raise UserError(f"{key}: no directory {str(source)!r}; give embedded, download or {expected}")
    for name in sum(MNIST_FILES.values(), ()):
        plain = source / "MNIST/raw" / name
        packed = plain.with_name(f"{name}.gz")
        if plain.is_file():
            (raw / name).symlink_to(plain.resolve())
        elif packed.is_file():
            _unpack(packed, raw / name)
        else:
            raise UserError(f"{key}: {plain} is missing (nor is there a .gz); give {expected}")


def _unpack(packed: Path, plain: Path) -> None:
    try:
        with gzip.open(packed) as source, plain.open("wb") as target:
            shutil.copyfileobj(source, target)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{packed} is truncated or altered: {error}") from error


def _download(folder: Path, mirrors: list[str], key: str) -> list[Path]:
    """Fetch torchvision's gzipped MNIST files from the mirrors, then from its own."""
    from torchvision.datasets import MNIST  # noqa: PLC0415  seconds to import, for downloads only

    instead = "give a directory that holds MNIST/raw/"
    return download.fetch(folder, dict(MNIST.resources), mirrors + MNIST.mirrors, key, instead)


def _write_embedded(raw: Path) -> None:
    from sklearn.datasets import load_digits  # noqa: PLC0415  a second to import, here only
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    digits = load_digits()
    images = np.stack([convert_to_mnist_style(image) for image in digits.images])
    train, test = train_test_split(
        np.arange(len(images)), test_size=360, stratify=digits.target, random_state=0
    )
    for split, chosen in {"train": train, "test": test}.items():
        images_name, labels_name = MNIST_FILES[split]
        write_idx(raw / images_name, images[chosen])
        write_idx(raw / labels_name, digits.target[chosen])


def convert_to_mnist_style(digit: np.ndarray) -> np.ndarray:
    """Enlarge an 8x8 digit (values 0 to 16) to MNIST's manner: (28, 28) uint8.

    A cubic spline enlarges it tenfold and a contrast curve makes its strokes crisp; it is cut
    out, reduced so that its longer side fills 20 pixels, and centred by mass in 28x28.
    """
    from scipy import ndimage  # noqa: PLC0415

    large = ndimage.zoom(np.pad(digit / 16, 1), 10, order=3, mode="grid-constant", grid_mode=True)
    large = np.clip((large - 0.35) / 0.3, 0, 1)
    large = large * large * (3 - 2 * large)  # smoothstep
    rows, columns = (np.flatnonzero(large.max(axis=axis)) for axis in (1, 0))
    large = large[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = 20 / max(large.shape)
    height, width = (max(1, round(side * scale)) for side in large.shape)
    reduced = Image.fromarray(large.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    return _centre_by_mass(np.asarray(reduced), 28)


def _centre_by_mass(image: np.ndarray, side: int) -> np.ndarray:
    canvas = np.zeros((3 * side, 3 * side))
    centre = [
        float((image.sum(axis=1 - axis) * np.arange(n)).sum() / image.sum())
        for axis, n in enumerate(image.shape)
    ]
    top, left = (round(1.5 * side - 0.5 - c) for c in centre)
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return np.round(255 * canvas[side : 2 * side, side : 2 * side]).astype(np.uint8)
