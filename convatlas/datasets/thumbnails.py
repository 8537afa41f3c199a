"""Small versions of a data set's images, for pages. No torch here."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from convatlas import UserError
from convatlas.datasets import formats
from convatlas.datasets.base import ImageDataset
from convatlas.files import Npz, write_npz
from convatlas.pixels import RGB, can_convert
from convatlas.records import DatasetDescription
from convatlas.stored_images import read_stored_image
from convatlas.value_ranges import scale_to_bytes

LOSSLESS_MAX_SIDE = 64  # pixels up to which an image is kept as it is, without loss
WEBP_QUALITY = 70
PAGE_SIDE = 96  # pixels of the longer side of a thumbnail on most pages
STORED_FILE = "thumbnails.npz"  # in results/_datasets/<name>
MAX_STORED = 2000  # images of a split whose thumbnails are stored; the pages make those of others


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


def write_thumbnails(data: Path, folder: Path) -> int:
    """Write the thumbnails of the first test images, PAGE_SIDE pixels wide, into one file.

    Args:
        data: The data set's folder, data/<name>.
        folder: The existing folder to write STORED_FILE into.

    Returns:
        The number of thumbnails; images that cannot be read have none.
    """
    dataset, description = formats.load(data, "test"), formats.describe(data)
    thumbnails: dict[int, Thumbnail] = {}
    for index in range(min(len(dataset), MAX_STORED)):
        try:
            thumbnails[index] = make_thumbnail(dataset, index, description, PAGE_SIDE)
        except UserError:  # the pages that would show the image say why
            continue
    stored = thumbnails.values()
    arrays = {
        "index": np.array([*thumbnails], np.int64),
        "end": np.cumsum([len(thumbnail.content) for thumbnail in stored], dtype=np.int64),
        "suffix": np.array([thumbnail.suffix for thumbnail in stored], "U8"),
        "size": np.array([thumbnail.size for thumbnail in stored], np.int64).reshape(-1, 2),
        "image_size": np.array([thumbnail.image_size for thumbnail in stored], np.int64).reshape(-1, 2),
        "content": np.frombuffer(b"".join(thumbnail.content for thumbnail in stored), np.uint8),
    }
    write_npz(folder / STORED_FILE, arrays)
    return len(thumbnails)


def read_thumbnails(folder: Path) -> dict[int, Thumbnail]:
    """Read the thumbnails that `write_thumbnails` wrote, by the number of the image; none without the file.

    Args:
        folder: The folder, results/_datasets/<name>.
    """
    path = folder / STORED_FILE
    if not path.is_file():
        return {}
    arrays = Npz(path)
    content, ends = arrays["content"].tobytes(), arrays["end"].tolist()
    rows = zip(
        arrays["index"].tolist(),
        [0, *ends],
        ends,
        arrays["suffix"].tolist(),
        arrays["size"].tolist(),
        arrays["image_size"].tolist(),
        strict=False,
    )
    return {
        index: Thumbnail(content[start:end], suffix, (size[0], size[1]), (image_size[0], image_size[1]))
        for index, start, end, suffix, size, image_size in rows
    }


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
