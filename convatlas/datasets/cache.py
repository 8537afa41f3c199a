"""The images and masks of a split at a network's input size, decoded once and kept in memory-mapped files."""

import logging
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convatlas.datasets import formats
from convatlas.datasets.base import PROGRESS_INTERVAL, SegmentationDataset
from convatlas.files import atomic_write
from convatlas.image_io import Size
from convatlas.pixels import PixelFormat

log = logging.getLogger(__name__)

DECODING_THREADS = 2  # Pillow releases the interpreter's lock while it decodes
VERSION_LENGTH = 16  # digits of the data set's hash that name its folder in the cache


def load_images(
    folder: str | Path,
    split: str,
    pixel_format: PixelFormat,
    size: Size,
    resize: int | str,
    interpolation: str = "bilinear",
) -> np.ndarray:
    """Return the images of a split, decoded the first time and mapped from data/<name>/cache/ after that.

    Args:
        folder: The data set's folder, data/<name>.
        split: "train" or "test".
        pixel_format: The channels, and the range of values.
        size: Height and width (H, W) of the result.
        resize: As in `image_io.resize_to`.
        interpolation: Pillow's name of the interpolation.

    Returns:
        Pixels (N, C, H, W), the same as of `ImageDataset.read_images`; writing to it changes only the copy in
        memory.

    Raises:
        UserError: An image cannot be read, or the cache cannot be written.
    """
    dataset = formats.load(folder, split)
    if not dataset.has_image_files:
        return dataset.read_images(pixel_format, size, resize, interpolation=interpolation)

    def decode(index: int) -> np.ndarray:
        pixels: np.ndarray = dataset.read_images(pixel_format, size, resize, [index], interpolation)[0]
        return pixels

    name = _cache_name(split, str(pixel_format), size, resize, interpolation)
    shape, dtype = (len(dataset), pixel_format.channels, *size), dataset.get_dtype(pixel_format)
    return _load_or_decode(Path(folder), name, shape, decode, dtype)


def find_cached_images(
    folder: str | Path,
    split: str,
    pixel_format: PixelFormat,
    size: Size,
    resize: int | str,
    interpolation: str = "bilinear",
) -> np.ndarray | None:
    """Return what `load_images` has cached of the present state of the data set, or None; decode nothing.

    Args:
        folder: The data set's folder, data/<name>.
        split: "train" or "test".
        pixel_format: The channels, and the range of values.
        size: Height and width (H, W) of the images.
        resize: As in `image_io.resize_to`.
        interpolation: Pillow's name of the interpolation.
    """
    path = _cache_path(Path(folder), _cache_name(split, str(pixel_format), size, resize, interpolation))
    return _map_array(path) if path.exists() else None


def load_masks(folder: str | Path, split: str, size: Size, resize: int | str) -> np.ndarray:
    """Return the masks of a split, decoded the first time and mapped from data/<name>/cache/ after that.

    Args:
        folder: The data set's folder, data/<name>.
        split: "train" or "test".
        size: Height and width (H, W) of the result.
        resize: As in `image_io.resize_to`.

    Returns:
        Indices into `formats.mask_classes`, or IGNORE_INDEX: (N, H, W) uint8.

    Raises:
        UserError: A mask cannot be read, or the cache cannot be written.
        TypeError: The data set has no masks.
    """
    dataset = formats.load(folder, split)
    if not isinstance(dataset, SegmentationDataset):
        raise TypeError(f"the data set in {folder} has no masks")

    def decode(index: int) -> np.ndarray:
        return dataset.read_mask(index, size, resize)

    name = _cache_name(split, "masks", size, resize)
    return _load_or_decode(Path(folder), name, (len(dataset), *size), decode)


def _load_or_decode(
    folder: Path,
    name: str,
    shape: tuple[int, ...],
    decode: Callable[[int], np.ndarray],
    dtype: npt.DTypeLike = np.uint8,
) -> np.ndarray:
    """Return the cached array of this name, decoded first if it is not there.

    What was cached of an earlier state of the data set is removed.
    """
    path = _cache_path(folder, name)
    for version in (folder / "cache").glob("*"):
        if version != path.parent:
            shutil.rmtree(version, ignore_errors=True)
    if not path.exists():
        with atomic_write(path) as temporary:
            array = np.lib.format.open_memmap(temporary, "w+", dtype, shape)
            with ThreadPoolExecutor(DECODING_THREADS) as pool:
                for index, image in enumerate(pool.map(decode, range(len(array)))):
                    array[index] = image
                    if (index + 1) % PROGRESS_INTERVAL == 0:
                        log.info("decoded %d of %d images", index + 1, len(array))
            array.flush()
    return _map_array(path)


def _map_array(path: Path) -> np.ndarray:
    """Map an array copy-on-write: nothing is written to the file, but torch wants writable memory."""
    array: np.ndarray = np.load(path, mmap_mode="c", allow_pickle=False)
    return array


def _cache_name(split: str, kind: str, size: Size, *settings: str | int) -> str:
    """Name a cached array by everything that it depends on besides the data set."""
    return "-".join(map(str, (split, kind, *size, *settings)))


def _cache_path(folder: Path, name: str) -> Path:
    """Return where an array of the present state of the data set is cached."""
    return folder / "cache" / formats.describe(folder)["sha256"][:VERSION_LENGTH] / f"{name}.npy"
