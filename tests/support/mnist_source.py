"""A small data set in MNIST's layout: its arrays, its files, and how it is prepared and checked."""

import gzip
import struct
from pathlib import Path

import numpy as np

from convatlas.datasets import formats
from convatlas.pixels import GREY

KEY = "datasets.d.source"
RNG = np.random.default_rng(0)
ARRAYS = {
    "train-images-idx3-ubyte": RNG.integers(0, 256, (12, 28, 28), np.uint8),
    "train-labels-idx1-ubyte": np.arange(12, dtype=np.uint8) % 10,
    "t10k-images-idx3-ubyte": RNG.integers(0, 256, (5, 28, 28), np.uint8),
    "t10k-labels-idx1-ubyte": np.array([3, 1, 4, 1, 5], np.uint8),
}
IMAGES, LABELS = "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"  # two of the files, to damage


def pack_idx(array: np.ndarray) -> bytes:
    """Pack unsigned bytes in the idx format."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", length) for length in array.shape)
    return header + bytes(array.ravel().tolist())


FILES = {name: pack_idx(array) for name, array in ARRAYS.items()}
PACKED = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in FILES.items()}


def write_source(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files into MNIST/raw/ of a folder."""
    (folder / "MNIST/raw").mkdir(parents=True)
    for name, content in files.items():
        (folder / "MNIST/raw" / name).write_bytes(content)
    return folder


def prepare_mnist(folder: Path | str, source: str, mirrors: list[str] | None = None) -> None:
    """Prepare a data set named d."""
    settings = {"format": "mnist", "source": source, "mirrors": mirrors or []}
    formats.prepare(folder, settings, "datasets.d")


def read_split(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (N, 1, H, W) and labels (N,) of a split."""
    dataset = formats.load(folder, split)
    return dataset.read_images(GREY, (28, 28), 28), dataset.labels


def check_prepared(folder: Path) -> None:
    """Check that the folder holds ARRAYS and nothing else."""
    for split, prefix in {"train": "train", "test": "t10k"}.items():
        images, labels = read_split(folder, split)
        np.testing.assert_array_equal(images[:, 0], ARRAYS[f"{prefix}-images-idx3-ubyte"])
        np.testing.assert_array_equal(labels, ARRAYS[f"{prefix}-labels-idx1-ubyte"])
    assert {path.name for path in folder.iterdir()} == {"MNIST", "dataset.json"}
    assert {path.name for path in (folder / "MNIST").rglob("*")} == {"raw", *FILES}


def flip_byte(content: bytes, position: int) -> bytes:
    """Invert the bits of one byte."""
    return content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :]
