"""Near-duplicates between the splits of a data set: test images that are, or nearly are, training images.

Images are compared by the correlation of their grey values, first at 16 × 16 pixels, all with all, then the
candidates at 64 × 64. Images of the same pixels are exact duplicates. No torch here.
"""

import hashlib
import heapq
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypedDict

import numpy as np
from PIL import Image

from convatlas.datasets import formats
from convatlas.datasets.base import ImageDataset
from convatlas.datasets.thumbnails import PAGE_SIDE, make_thumbnail, read_display_image
from convatlas.names import make_printable
from convatlas.records import DatasetDescription, Split

COARSE_SIDE, FINE_SIDE = 16, 64  # pixels at which images are compared
MIN_COARSE_CORRELATION = 0.95
# The most similar images of both splits are no duplicates in MNIST (0.992), the embedded digits (0.994) and
# Oxford-IIIT Pet (0.979).
MIN_CORRELATION = 0.995
MAX_SHOWN_PAIRS = 24  # with thumbnails
MAX_IMAGE_FILES = 8000  # of a split that are decoded
MAX_CANDIDATES = 2000  # that are compared at 64 × 64
TEST_BLOCK = 256  # test images that are compared with all training images at a time


class NearDuplicate(TypedDict):
    """A test image and the training image that it resembles: their indices in the splits."""

    test: int
    train: int
    correlation: float
    is_exact: bool  # whether all pixels are equal


class NearDuplicates(TypedDict):
    """near_duplicates.json: the near-duplicates between the splits of a data set."""

    min_correlation: float
    test: int  # images that were compared
    train: int
    pairs: list[NearDuplicate]  # the most similar first, one for each test image
    images: dict[str, "DuplicateImage"]  # of the first pairs, by "<split>-<index>"


class DuplicateImage(TypedDict):
    """An image of a pair, with its thumbnail."""

    name: str
    label: int  # -1 without a label
    file: str
    size: list[int]  # (width, height) of the thumbnail in pixels


@dataclass(frozen=True)
class _Descriptors:
    """What images are compared by: indices in the split, grey values (N, 256) of norm 1, hashes of pixels."""

    indices: list[int]
    vectors: np.ndarray
    hashes: list[bytes]


def write_near_duplicates(data: Path, folder: Path) -> NearDuplicates:
    """Find near-duplicates between the splits of a data set, and write thumbnails of the first pairs.

    Args:
        data: The data set's folder, data/<name>.
        folder: The existing folder to write the thumbnails into.

    Returns:
        The content of near_duplicates.json.

    Raises:
        UserError: The data set is not prepared, or an image cannot be read.
    """
    splits: dict[Split, ImageDataset] = {
        "test": formats.load(data, "test"),
        "train": formats.load(data, "train"),
    }
    description = formats.describe(data)
    duplicates = find_near_duplicates(splits["test"], splits["train"], description)
    for pair in duplicates["pairs"][:MAX_SHOWN_PAIRS]:
        for split, dataset in splits.items():
            index = pair[split]
            key = f"{split}-{index:05d}"
            thumbnail = make_thumbnail(dataset, index, description, PAGE_SIDE)
            file = f"duplicate-{key}{thumbnail.suffix}"
            (folder / file).write_bytes(thumbnail.content)
            duplicates["images"][key] = {
                "name": make_printable(dataset.names[index]),
                "label": int(dataset.labels[index]),
                "file": file,
                "size": list(thumbnail.size),
            }
    return duplicates


def find_near_duplicates(
    test: ImageDataset, train: ImageDataset, description: DatasetDescription
) -> NearDuplicates:
    """Find the test images of a data set that are, or nearly are, training images.

    Args:
        test: The test split.
        train: The training split.
        description: dataset.json.

    Raises:
        UserError: An image cannot be read.
    """
    if not len(test) or not len(train):
        return {"min_correlation": MIN_CORRELATION, "test": 0, "train": 0, "pairs": [], "images": {}}
    test_images, train_images = (_describe(dataset, description) for dataset in (test, train))

    @lru_cache(maxsize=4096)
    def describe_finely(split: Split, index: int) -> np.ndarray:
        dataset = test if split == "test" else train
        return _normalize(_resize_grey(read_display_image(dataset, index, description), FINE_SIDE))

    by_hash = {key: index for index, key in zip(train_images.indices, train_images.hashes, strict=True)}
    pairs: dict[int, NearDuplicate] = {}
    for index, key in zip(test_images.indices, test_images.hashes, strict=True):
        if key in by_hash:
            pairs[index] = {"test": index, "train": by_hash[key], "correlation": 1.0, "is_exact": True}
    for _, test_index, train_index in _find_candidates(test_images, train_images):
        if test_index in pairs and pairs[test_index]["is_exact"]:
            continue
        similarity = float(describe_finely("test", test_index) @ describe_finely("train", train_index))
        best = pairs.get(test_index)
        if similarity >= MIN_CORRELATION and (best is None or similarity > best["correlation"]):
            correlation = round(min(similarity, 1.0), 4)
            pairs[test_index] = {
                "test": test_index,
                "train": train_index,
                "correlation": correlation,
                "is_exact": False,
            }
    return {
        "min_correlation": MIN_CORRELATION,
        "test": len(test_images.indices),
        "train": len(train_images.indices),
        "pairs": sorted(pairs.values(), key=lambda pair: (-pair["correlation"], pair["test"])),
        "images": {},
    }


def _describe(dataset: ImageDataset, description: DatasetDescription) -> _Descriptors:
    """Describe the images of a split; of many image files some, at equal distances."""
    limit = MAX_IMAGE_FILES if dataset.has_image_files else len(dataset)
    step = max(1, -(-len(dataset) // max(limit, 1)))
    indices = list(range(0, len(dataset), step))
    vectors = np.empty((len(indices), COARSE_SIDE**2), np.float32)
    hashes = []
    for n, index in enumerate(indices):
        image = read_display_image(dataset, index, description)
        vectors[n] = _normalize(_resize_grey(image, COARSE_SIDE))
        hashes.append(hashlib.blake2b(image.tobytes(), person=repr(image.size).encode()).digest())
    return _Descriptors(indices, vectors, hashes)


def _resize_grey(image: Image.Image, side: int) -> np.ndarray:
    """Return the grey values of an image at a size of side × side pixels, flat."""
    resized = image.convert("L").resize((side, side), Image.Resampling.BOX)
    return np.asarray(resized, np.float32).ravel()


def _normalize(values: np.ndarray) -> np.ndarray:
    """Return values less their mean, of norm 1, whose products are correlations; zeros if all are equal."""
    centred = values - values.mean()
    norm = float(np.linalg.norm(centred))
    return centred / norm if norm > 1e-3 else np.zeros_like(centred)


def _find_candidates(test: _Descriptors, train: _Descriptors) -> list[tuple[float, int, int]]:
    """Return the most similar pairs at 16 × 16 pixels: correlation, index in the test and training split."""
    candidates: list[tuple[float, int, int]] = []
    for start in range(0, len(test.indices), TEST_BLOCK):
        similarities = test.vectors[start : start + TEST_BLOCK] @ train.vectors.T
        rows, columns = np.nonzero(similarities >= MIN_COARSE_CORRELATION)
        values = similarities[rows, columns].tolist()
        pairs = zip(
            values,
            [test.indices[start + row] for row in rows.tolist()],
            [train.indices[column] for column in columns.tolist()],
            strict=True,
        )
        candidates = heapq.nlargest(MAX_CANDIDATES, [*candidates, *pairs])
    return candidates
