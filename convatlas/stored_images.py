"""Image files as they are stored: any number of channels, any data type, any range of values, without torch.

NumPy files (.npy, .npz) are read without pickles; TIFF files by tifffile, page by page and sample by sample;
all others by Pillow. What a file is is decided by its content, not by its suffix.
"""

import logging
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image, ImageOps, UnidentifiedImageError

from convatlas import UserError
from convatlas.image_files import open_image, require_regular_file
from convatlas.stored_arrays import check_bytes, load_array

EXACT_MODES = ("L", "I;16", "I;16B", "I", "F", "RGB", "RGBA")  # of TIFF, whose values Pillow does not change
NPY_MAGIC, ZIP_MAGIC = b"\x93NUMPY", b"PK\x03\x04"
TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# How an image that is stored in an orientation of EXIF 2.3, section 4.6.4, is turned upright.
UPRIGHT: Mapping[int, Callable[[np.ndarray], np.ndarray]] = {
    2: np.fliplr,
    3: lambda values: np.rot90(values, 2),
    4: np.flipud,
    5: lambda values: values.swapaxes(0, 1),
    6: lambda values: np.rot90(values, -1),
    7: lambda values: np.rot90(values, 2).swapaxes(0, 1),
    8: np.rot90,
}


@dataclass(frozen=True)
class StoredImage:
    """The values of an image file.

    Attributes:
        values: (H, W, C), bool, integers or floats.
        declared_max: The largest value that the file declares, of its significant bits; None without.
        declared_by: What declares it, such as "BitsPerSample".
        has_alpha: Whether the last channel is opacity.
        reduced_bits: Bits of a value in the file, where Pillow reduces them to 8.
    """

    values: np.ndarray
    declared_max: int | None = None
    declared_by: str = ""
    has_alpha: bool = False
    reduced_bits: int | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the values are 8 bits, 0..255."""
        return bool(self.values.dtype == np.uint8)


def read_stored_image(path: str | Path, channels: int | None = None) -> StoredImage:
    """Read the values of an image file, upright (EXIF orientation), the first frame of an animation.

    Args:
        path: The image file.
        channels: The number of channels that is asked for. It decides which axis of a NumPy array holds the
            channels: the first of (C, H, W), or the last of (H, W, C) where only that has this length.

    Raises:
        UserError: The file cannot be read, or does not hold one image.
    """
    try:
        require_regular_file(path)
        with Path(path).open("rb") as file:
            magic = file.read(8)
        if magic.startswith((NPY_MAGIC, ZIP_MAGIC)):
            values = _drop_batch_axis(load_array(path, "image"), Path(path))
            return StoredImage(_order_channels_last(values, channels))
        if magic.startswith(TIFF_MAGICS):
            return _read_tiff(Path(path))
        with open_image(path) as image:
            return _to_stored_image(image)
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is no image that can be read") from error
    except Exception as error:  # readers raise many types for damaged files
        raise UserError(f"cannot read the image {path}: {error}") from error


# Pillow


def _to_stored_image(image: Image.Image) -> StoredImage:
    """Return the values of an image that Pillow has opened: colours as RGB, opacity as the last channel."""
    codecs = [str(tile.args) for tile in getattr(image, "tile", [])]
    reduced_bits = 16 if any(";16" in codec and not codec.startswith("I") for codec in codecs) else None
    upright = ImageOps.exif_transpose(image)
    mode = upright.mode
    if mode.startswith("I") or mode == "F":
        values = np.asarray(upright)
        if mode == "I" and image.format != "TIFF" and values.min() >= 0:  # 16 bits in PNG and PGM
            values = values.astype(np.uint16)
        return StoredImage(_add_channel_axis(values))
    has_alpha = upright.has_transparency_data
    is_grey = mode in ("1", "L", "LA", "La")
    target = ("LA" if has_alpha else "L") if is_grey else ("RGBA" if has_alpha else "RGB")
    if mode != target:
        upright = upright.convert(target)
    return StoredImage(_add_channel_axis(np.asarray(upright)), has_alpha=has_alpha, reduced_bits=reduced_bits)


def _add_channel_axis(values: np.ndarray) -> np.ndarray:
    """Return values (H, W) or (H, W, C) as (H, W, C)."""
    return values[..., None] if values.ndim == 2 else values


# NumPy


def _drop_batch_axis(values: np.ndarray, path: Path) -> np.ndarray:
    """Return an array that can be one image, without the axis of a batch; raise UserError for others."""
    image = values
    while image.ndim > 3 and image.shape[0] == 1:
        image = image[0]
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise UserError(
            f"{path} holds an array of shape {values.shape}; an image is (height, width), (channels, height, "
            "width) or (height, width, channels)"
        )
    return image


def _order_channels_last(values: np.ndarray, channels: int | None) -> np.ndarray:
    """Return an array (H, W), (C, H, W) or (H, W, C) as (H, W, C)."""
    if values.ndim == 2:
        return values[..., None]
    first, last = values.shape[0], values.shape[2]
    is_first = first <= last if channels not in (first, last) else first == channels
    return np.moveaxis(values, 0, 2) if is_first else values


# TIFF


def _read_tiff(path: Path) -> StoredImage:
    """Return the image of a TIFF file: the pages of its first series, and their samples, are the channels."""
    with _raise_page_errors(path), tifffile.TiffFile(path) as file:
        if not file.series:
            raise UserError(f"{path} is no image that can be read")
        series = file.series[0]
        page: Any = series.keyframe
        check_bytes(series.nbytes, path)
        orientation = int(page.tags.valueof("Orientation", 1) or 1)
        if _is_plain_tiff(series, page) and not _is_misread_by_pillow(page, orientation):
            with open_image(path) as image:
                return _to_stored_image(image)
        values = _order_tiff_channels(_decode_tiff(series, path), series.axes)
        if orientation in UPRIGHT:
            values = UPRIGHT[orientation](values)
        has_alpha = values.shape[2] in (2, 4) and any(int(kind) in (1, 2) for kind in page.extrasamples)
        stored = StoredImage(values, has_alpha=has_alpha)
        stored = replace(stored, **_find_declared_max(page, values.dtype))
        return _invert(stored) if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE else stored


@contextmanager
def _raise_page_errors(path: Path) -> Iterator[None]:
    """Raise UserError where tifffile only logs that pages are missing, as in a file that is cut off."""
    errors = _PageErrors()
    logger = logging.getLogger("tifffile")
    logger.addHandler(errors)
    try:
        yield
    finally:
        logger.removeHandler(errors)
    if errors.messages:
        raise UserError(f"cannot read the image {path}: pages are missing or damaged ({errors.messages[0]})")


class _PageErrors(logging.Handler):
    """Collects what tifffile logs in this thread about the list of pages of a file."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.thread, self.messages = threading.get_ident(), list[str]()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.thread == self.thread and "TiffPages" in message:
            self.messages.append(message)


def _is_plain_tiff(series: Any, page: Any) -> bool:
    """Return whether a TIFF file is a picture of 8 bits or less in one page, which Pillow reads."""
    channels = series.size // max(1, page.imagelength * page.imagewidth)
    samples = 1 if page.photometric in (0, 1) else 4 if page.photometric == 5 else 3
    alpha = any(int(kind) in (1, 2) for kind in page.extrasamples)
    bits = page.bitspersample
    bits = max(bits) if isinstance(bits, tuple) else bits
    return bool(bits <= 8 and series.dtype.kind in "bu" and channels in (page.samplesperpixel, 1)
                and page.samplesperpixel <= samples + alpha)  # fmt: skip


def _is_misread_by_pillow(page: Any, orientation: int) -> bool:
    """Return whether Pillow (13.0) takes height for width, in images on their side without compression."""
    return orientation > 4 and page.compression == tifffile.COMPRESSION.NONE


def _decode_tiff(series: Any, path: Path) -> np.ndarray:
    """Return the values of a series of pages, with the axes of `series.axes`."""
    try:
        values: np.ndarray = series.asarray()
        return values
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
    pages = []
    with open_image(path) as image:  # which has codecs, such as LZW, that tifffile leaves to imagecodecs
        for page in series.pages:
            image.seek(page.index)
            if (
                image.mode not in EXACT_MODES
                or page.shape != np.asarray(image).shape
                or page.dtype == np.uint32
            ):
                raise UserError(
                    f"{path} is compressed as {page.compression.name}, which is not supported for "
                    f"{page.samplesperpixel} samples of the type {page.dtype}: save it without compression, "
                    "or with deflate"
                )
            pages.append(np.asarray(image).astype(page.dtype))
    return np.stack(pages).reshape(series.shape)


def _order_tiff_channels(values: np.ndarray, axes: str) -> np.ndarray:
    """Return values with these axes, Y and X among them, as (H, W, C): the others in order are channels."""
    height, width = axes.index("Y"), axes.index("X")
    values = np.moveaxis(values, (height, width), (0, 1))
    return values.reshape(*values.shape[:2], -1)


def _find_declared_max(page: Any, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return the largest value that the tags declare, where they declare fewer bits than the data type has.

    MaxSampleValue counts only as a power of 2 less 1: some programs write the maximum of this one image, by
    which images of one camera would differ.
    """
    if dtype.kind != "u":
        return {}
    bits = page.bitspersample
    bits = max(bits) if isinstance(bits, tuple) else int(bits)
    if bits < 8 * dtype.itemsize:
        return {"declared_max": 2**bits - 1, "declared_by": "BitsPerSample"}
    declared = page.tags.valueof("MaxSampleValue")
    largest = int(np.max(declared)) if declared is not None else 0
    if 255 <= largest < 2 ** (8 * dtype.itemsize) - 1 and math.log2(largest + 1).is_integer():
        return {"declared_max": largest, "declared_by": "MaxSampleValue"}
    return {}


def _invert(stored: StoredImage) -> StoredImage:
    """Return an image whose zero is white as one whose zero is black, as Pillow does for 8 bits."""
    if stored.values.dtype.kind != "u":
        return stored
    largest = stored.declared_max or np.iinfo(stored.values.dtype).max
    return replace(stored, values=(largest - stored.values).astype(stored.values.dtype))
