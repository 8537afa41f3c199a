"""Small versions of a data set's images, for pages. No torch here."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from convatlas.datasets.base import ImageDataset
from convatlas.pixels import RGB, can_convert
from convatlas.records import DatasetDescription
from convatlas.stored_images import read_stored_image
from convatlas.value_ranges import scale_to_bytes

LOSSLESS_MAX_SIDE = 64  # pixels up to which an image is kept as it is, without loss
WEBP_QUALITY = 70


@dataclass(frozen=True)
class Thumbnail:
    """An encoded image.

    Attributes:
        content: The content of its file.
        suffix: The suffix of its file.
        size: Its (width, height) in pixels.
        image_size: The (width, height) of the image that it is made of.
    """

    content: bytes
    suffix: str
    size: tuple[int, int]
    image_size: tuple[int, int]


def make_thumbnail(
    dataset: ImageDataset, index: int, description: DatasetDescription, max_side: int
) -> Thumbnail:
    """Make a small version of an image: a PNG at its own size, or a WebP of an image of more than 64 pixels.

    Args:
        dataset: The split.
        index: The image's index in the split.
        description: dataset.json.
        max_side: Pixels of the longer side of a WebP.

    Raises:
        UserError: The image cannot be read.
    """
    image = read_display_image(dataset, index, description)
    if max(image.size) <= LOSSLESS_MAX_SIDE:
        return Thumbnail(encode_lossless(image), ".png", image.size, image.size)
    size = fit_size(*image.size, max_side)
    content = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(content, "webp", quality=WEBP_QUALITY, method=6)
    return Thumbnail(content.getvalue(), ".webp", size, image.size)


def read_display_image(dataset: ImageDataset, index: int, description: DatasetDescription) -> Image.Image:
    """Return an image as RGB; of other channels than grey or RGB the first three, or the first of two.

    Values of more than 8 bits are shown from the minimum to the maximum over the data set.

    Args:
        dataset: The split.
        index: The image's index in the split.
        description: dataset.json.

    Raises:
        UserError: The image cannot be read.
    """
    groups = {(group["dtype"], group["channels"]): group for group in description.get("values", [])}
    stored = read_stored_image(str(dataset.paths[index])) if groups else None
    if stored is None or (stored.is_plain and can_convert(stored.values.shape[2], stored.has_alpha, 3)):
        return Image.fromarray(dataset.read_pixels(index, RGB))
    group = groups[str(stored.values.dtype), stored.values.shape[2]]
    shown = stored.values[..., :3] if stored.values.shape[2] >= 3 else stored.values[..., [0, 0, 0]]
    is_byte = stored.is_plain or group["min"] == group["max"]
    low, high = group["range"] if is_byte else (group["min"], group["max"])
    return Image.fromarray(np.round(scale_to_bytes(shown, low, high)).astype(np.uint8))


def encode_lossless(image: Image.Image) -> bytes:
    """Encode an RGB image as PNG, in grey where its channels are equal.

    Args:
        image: The image.
    """
    grey, content = image.convert("L"), io.BytesIO()
    is_grey = np.array_equal(np.asarray(image), np.asarray(grey.convert("RGB")))
    (grey if is_grey else image).save(content, "png")
    return content.getvalue()


def fit_size(width: int, height: int, max_side: int) -> tuple[int, int]:
    """Return the size of an image that is reduced to a longer side of at most `max_side`, never enlarged.

    Args:
        width: Its width in pixels.
        height: Its height in pixels.
        max_side: Pixels of the longer side.

    Returns:
        Width and height in pixels, at least 1.
    """
    scale = min(1.0, max_side / max(width, height))
    return max(1, round(scale * width)), max(1, round(scale * height))
