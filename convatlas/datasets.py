"""Data sets, whatever their source, in their official on-disk layout.

MNIST: four idx files under MNIST/raw/ (LeCun, Cortes, Burges, The MNIST database).
"""

import gzip
import hashlib
import http.client
import logging
import math
import shutil
import socket
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convatlas import UserError
from convatlas.files import read_json, whole, write_bytes, write_json

log = logging.getLogger(__name__)

MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
TITLES = {
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
ATTEMPTS = 3  # rounds over all mirrors
TIMEOUT = 30  # seconds without a byte


def prepare_mnist(folder: str | Path, source: str, mirrors: list[str], key: str = "source") -> None:
    """Make `folder`/MNIST/raw/ and `folder`/dataset.json from a source.

    `source` is "embedded", "download" or a directory that holds MNIST/raw/ with plain or
    gzipped idx files. Everything is verified before it takes its place. Raises UserError,
    which names `key`, the place in the config.
    """
    folder = Path(folder)
    given = Path(source).expanduser()
    if (given / "MNIST").resolve() == (folder / "MNIST").resolve():
        raise UserError(f"{key}: {source} is the folder that is made here; move it and name the new place")
    with whole(folder / "MNIST") as aside:
        raw = aside / "raw"
        raw.mkdir(parents=True)
        if source == "embedded":
            _write_embedded(raw)
        elif source == "download":
            _download(raw, mirrors, key)
        else:
            _link(raw, given, key)
        try:
            splits = {split: _read_split(raw, split) for split in MNIST_FILES}
        except UserError as error:  # it names the file where it lies now; the user knows the source
            raise UserError(f"{key}: {str(error).replace(str(aside), str(given / 'MNIST'))}") from error
        description = _described(splits, source)
    write_json(folder / "dataset.json", description)


def describe(folder: str | Path) -> dict[str, Any]:
    """Give what a made data set says of itself: title, classes, counts, sha256, ..."""
    return read_json(Path(folder) / "dataset.json")


def load(folder: str | Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a split ("train" or "test"): images (N, 1, H, W) uint8 and labels (N,) int64."""
    images, labels = _read_split(Path(folder) / "MNIST/raw", split)
    return images[:, None], labels.astype(np.int64)


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


def _described(splits: dict[str, tuple[np.ndarray, np.ndarray]], source: str) -> dict[str, Any]:
    title, text, licence = TITLES[source if source in TITLES else "directory"]
    classes = 1 + max(int(labels.max()) for _, labels in splits.values())
    digest = hashlib.sha256()
    for images, labels in splits.values():
        digest.update(images.tobytes() + labels.tobytes())
    return {
        "format": "mnist",
        "source": source if source in TITLES else "directory",
        "title": title,
        "description": text,
        "licence": licence,
        "classes": [str(label) for label in range(classes)],
        "image_shape": [1, *splits["train"][0].shape[1:]],
        "counts": {
            split: np.bincount(labels, minlength=classes).tolist() for split, (_, labels) in splits.items()
        },
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


def _link(raw: Path, source: Path, key: str) -> None:
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


def _download(raw: Path, mirrors: list[str], key: str) -> None:
    """Fetch torchvision's MNIST files, verified by its MD5s, from the first mirror that serves them."""
    from torchvision.datasets import MNIST  # noqa: PLC0415  seconds to import, for downloads only

    mirrors = [mirror.rstrip("/") + "/" for mirror in mirrors] + MNIST.mirrors
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # torchvision's download sets none
    try:
        for name, md5 in MNIST.resources:
            _fetch(raw, name, md5, mirrors, key)
            _unpack(raw / name, raw / name.removesuffix(".gz"))
            (raw / name).unlink()
    finally:
        socket.setdefaulttimeout(before)


def _fetch(folder: Path, name: str, md5: str, mirrors: list[str], key: str) -> None:
    from torchvision.datasets.utils import download_url  # noqa: PLC0415

    faults: dict[str, str] = {}
    for attempt in range(ATTEMPTS):
        for mirror in mirrors:
            try:
                log.info("fetching %s%s", mirror, name)
                return download_url(mirror + name, str(folder), name, md5)
            except (OSError, RuntimeError, ValueError, http.client.HTTPException) as error:
                (folder / name).unlink(missing_ok=True)
                faults[mirror] = str(error)
                log.info("  failed: %s", error)
        if attempt < ATTEMPTS - 1:
            time.sleep(2**attempt)
    tried = "".join(f"\n  {mirror}{name}: {fault}" for mirror, fault in faults.items())
    raise UserError(
        f"{key}: could not download {name}, tried {ATTEMPTS} times:{tried}\n"
        "  Try again later, name another address under mirrors, or give a directory that holds MNIST/raw/."
    )


def _write_embedded(raw: Path) -> None:
    from sklearn.datasets import load_digits  # noqa: PLC0415  a second to import, here only
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    digits = load_digits()
    images = np.stack([like_mnist(image) for image in digits.images])
    train, test = train_test_split(
        np.arange(len(images)), test_size=360, stratify=digits.target, random_state=0
    )
    for split, chosen in {"train": train, "test": test}.items():
        images_name, labels_name = MNIST_FILES[split]
        write_idx(raw / images_name, images[chosen])
        write_idx(raw / labels_name, digits.target[chosen])


def like_mnist(digit: np.ndarray) -> np.ndarray:
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
    return _centred_by_mass(np.asarray(reduced), 28)


def _centred_by_mass(image: np.ndarray, side: int) -> np.ndarray:
    canvas = np.zeros((3 * side, 3 * side))
    centre = [
        float((image.sum(axis=1 - axis) * np.arange(n)).sum() / image.sum())
        for axis, n in enumerate(image.shape)
    ]
    top, left = (round(1.5 * side - 0.5 - c) for c in centre)
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return np.round(255 * canvas[side : 2 * side, side : 2 * side]).astype(np.uint8)
