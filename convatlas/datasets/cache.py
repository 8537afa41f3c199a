"""A split's images at a network's size, decoded once and kept as arrays that are mapped into memory."""

import logging
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from convatlas import image_io
from convatlas.datasets import formats
from convatlas.datasets.base import PROGRESS_INTERVAL
from convatlas.datasets.oxford_pets import OxfordPetDataset
from convatlas.files import atomic_write

log = logging.getLogger(__name__)


def load_images(
    folder: str | Path, split: str, mode: str, size: int, resize: int | str, interpolation: str = "bilinear"
) -> np.ndarray:
    """Give a split's images, (N, C, size, size) uint8, as Examples.pixels does."""
    examples = formats.load(folder, split)
    if examples.paths[:1] == [None]:  # not of image files: there is nothing to decode
        return examples.read_images(mode, size, resize, interpolation=interpolation)

    def decoded(n: int) -> np.ndarray:
        return examples.read_images(mode, size, resize, [n], interpolation)[0]

    name = _cache_name(split, mode, size, resize, interpolation)
    return _load_or_decode(Path(folder), name, len(examples), (len(mode), size, size), decoded)


def find_cached_images(
    folder: str | Path, split: str, mode: str, size: int, resize: int | str, interpolation: str = "bilinear"
) -> np.ndarray | None:
    """What `pixels` has kept of the data set as it is now, if it has; nothing is decoded."""
    path = _cache_path(Path(folder), _cache_name(split, mode, size, resize, interpolation))
    return np.load(path, mmap_mode="c", allow_pickle=False) if path.exists() else None


def load_masks(folder: str | Path, split: str, size: int, resize: int | str) -> np.ndarray:
    """Give the masks of a split's images, (N, size, size) uint8: numbers of datasets.MASK_CLASSES."""
    examples = formats.load(folder, split)
    assert isinstance(examples, OxfordPetDataset)

    def decoded(n: int) -> np.ndarray:
        trimap = image_io.resize_labels_to(examples.read_trimap(n), size, resize)
        return np.where(trimap == 0, formats.IGNORE_INDEX, trimap - 1).astype(np.uint8)

    name = _cache_name(split, "masks", size, resize)
    return _load_or_decode(Path(folder), name, len(examples), (size, size), decoded)


def _cache_name(*about: str | int) -> str:
    """What an array is called, by all that it depends on beside the data set."""
    return "-".join(map(str, about))


def _load_or_decode(
    folder: Path, name: str, n: int, shape: tuple[int, ...], decoded: Callable[[int], np.ndarray]
) -> np.ndarray:
    """The array of this name of the data set as it is now, made if it is not there.

    It lies beside the data set, data/<dataset>/cache/<its hash>/; what was made of an earlier state of
    the data set is removed.
    """
    version = formats.describe(folder)["sha256"][:16]
    for old in (folder / "cache").glob("*"):
        if old.name != version:
            shutil.rmtree(old, ignore_errors=True)
    path = _cache_path(folder, name)
    if not path.exists():
        with atomic_write(path) as aside:
            array = np.lib.format.open_memmap(aside, "w+", np.uint8, (n, *shape))
            with ThreadPoolExecutor(2) as pool:  # Pillow decodes without Python's lock
                for place, image in enumerate(pool.map(decoded, range(n))):
                    array[place] = image
                    if (place + 1) % PROGRESS_INTERVAL == 0:
                        log.info("decoded %d of %d images", place + 1, n)
            array.flush()
    return np.load(path, mmap_mode="c", allow_pickle=False)  # never written, but torch asks that it could be


def _cache_path(folder: Path, name: str) -> Path:
    """Where an array of the data set as it is now lies, if it is kept."""
    return folder / "cache" / formats.describe(folder)["sha256"][:16] / f"{name}.npy"
