"""Image files: listed, resized to a network's input as torchvision resizes them, and shown, without torch."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from convatlas import UserError
from convatlas.names import join_names
from convatlas.paths import expand_home
from convatlas.records import Preprocessing

Size = tuple[int, ...]  # height and width in pixels

MAX_RESIZED_PIXELS = 100_000_000  # of a resized image before the crop; of more, the crop alone is resized
MAX_ROW_LENGTH = 2048  # values of a row that is drawn as pixels
ROW_ASPECT = 8  # width of rows that are drawn as a plane, to their height
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".npy", ".npz"}


def resize_to(
    image: Image.Image, size: Size | int, resize: int | str, interpolation: str = "bilinear"
) -> npt.NDArray[np.uint8]:
    """Resize and crop an image, with the exact values of torchvision's resize and center_crop.

    Args:
        image: The image, C channels.
        size: Height and width (H, W) of the result, or one number for a square.
        resize: What precedes the crop of the centre: "cover" resizes the image, at its aspect ratio, to the
            smallest size that covers `size`; a number is the length to which the shorter side is resized
            (black is added around an image smaller than the crop); "stretch" resizes both sides to `size`.
        interpolation: A resampling filter of Pillow: "bilinear", "bicubic", ...

    Returns:
        Pixels, (H, W, C).
    """
    height, width = as_size(size)
    resampling = Image.Resampling[interpolation.upper()]
    resized = _compute_resized_size(image.size, (width, height), resize)
    left, top = (_compute_crop_offset(*sides) for sides in zip(resized, (width, height), strict=True))
    if math.prod(resized) > max(MAX_RESIZED_PIXELS, math.prod(image.size)):
        return _resize_crop(image, (width, height), (left, top), resized, resampling)
    if resized != image.size:
        image = image.resize(resized, resampling)
    image = image.crop((left, top, left + width, top + height))
    return np.asarray(image).reshape(height, width, -1)


def _resize_crop(
    image: Image.Image,
    size: tuple[int, int],
    corner: tuple[int, int],
    resized: tuple[int, int],
    resampling: Image.Resampling,
) -> npt.NDArray[np.uint8]:
    """Resize only what the crop shows of an image that would be too large otherwise; sizes (width, height).

    Of a thin image, such as 1 × 20,000 pixels, which is resized to cover 224 × 224 by 224 × 4,480,000. Values
    differ from those of `resize_to` by rounding alone.
    """
    starts = [max(0, start) for start in corner]
    ends = [min(side, start + length) for side, start, length in zip(resized, corner, size, strict=True)]
    scales = [side / full for side, full in zip(image.size, resized, strict=True)]
    box = (*(s * scale for s, scale in zip(starts, scales, strict=True)),
           *(e * scale for e, scale in zip(ends, scales, strict=True)))  # fmt: skip
    lengths = (ends[0] - starts[0], ends[1] - starts[1])
    shown = image.resize(lengths, resampling, box=(box[0], box[1], box[2], box[3]))
    left, top = (start - offset for start, offset in zip(starts, corner, strict=True))
    padded = shown.crop((-left, -top, size[0] - left, size[1] - top))
    return np.asarray(padded).reshape(size[1], size[0], -1)


def as_size(size: int | Sequence[int]) -> Size:
    """Return a size (H, W) that may be given as one number, for a square.

    Args:
        size: The number, or height and width; of an input that is no image (L,) or (D, H, W), unchanged.
    """
    return (size, size) if isinstance(size, int) else tuple(size)


def is_image_input(preprocessing: Preprocessing) -> bool:
    """Return whether a network takes images, not inputs with one axis (audio) or three (volumes, video).

    Args:
        preprocessing: Of network.json.
    """
    return len(as_size(preprocessing["size"])) == 2


def _compute_resized_size(
    image: tuple[int, int], target: tuple[int, int], resize: int | str
) -> tuple[int, int]:
    """Return the size to which an image is resized before the crop; all sizes are (width, height)."""
    if resize == "stretch":
        return target
    width, height = image
    if resize == "cover" and target[0] * height > target[1] * width:  # the width is what is short
        resized_height = int(target[0] * height / width)
        return target[0], max(resized_height, target[1])
    if resize == "cover":
        resized_width = int(target[1] * width / height)
        return max(resized_width, target[0]), target[1]
    shorter = int(resize)
    longer = int(shorter * max(width, height) / min(width, height))
    return (shorter, longer) if width <= height else (longer, shorter)


def compute_visible_box(
    image: tuple[int, int], size: Size | int, resize: int | str
) -> tuple[float, float, float, float]:
    """Return the part of an image that `resize_to` passes on.

    Args:
        image: The (width, height) of the image.
        size: As in `resize_to`.
        resize: As in `resize_to`.

    Returns:
        Left, top, right and bottom in shares of the image's sides; below 0 and above 1 where the image is
        smaller than the crop.
    """
    height, width = as_size(size)
    resized = _compute_resized_size(image, (width, height), resize)
    left, top = (_compute_crop_offset(*sides) for sides in zip(resized, (width, height), strict=True))
    right, bottom = left + width, top + height
    return left / resized[0], top / resized[1], right / resized[0], bottom / resized[1]


def resize_labels_to(labels: Image.Image, size: Size | int, resize: int | str) -> npt.NDArray[np.uint8]:
    """Resize and crop a map of labels as `resize_to` does its image, by nearest neighbour.

    Args:
        labels: The map, mode "L".
        size: As in `resize_to`.
        resize: As in `resize_to`; where the image is smaller than the crop, labels are 0.

    Returns:
        Labels, (H, W).
    """
    return resize_to(labels, size, resize, "nearest")[..., 0]


def _compute_crop_offset(side: int, size: int) -> int:
    """Return the first pixel of a centre crop of a side; negative where the side is smaller than the crop."""
    return round((side - size) / 2) if side >= size else -((size - side) // 2)


def denormalize(x: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Undo the normalisation of a network's input.

    Args:
        x: Input, (C, H, W).
        preprocessing: Of network.json.

    Returns:
        Pixels in 0..1, except for rounding, (C, H, W).
    """
    axes = (-1,) + (1,) * len(as_size(preprocessing["size"]))
    mean = np.array(preprocessing["mean"], np.float32).reshape(axes)
    std = np.array(preprocessing["std"], np.float32).reshape(axes)
    return x * std + mean


def to_displayed_pixels(x: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Return what is shown of a network's input.

    Args:
        x: Input, (C, H, W), or (C, L) or (C, D, H, W) where it is no image.
        preprocessing: Of network.json.

    Returns:
        Pixels in 0..1: of an image (1, H, W) or (3, H, W), its normalisation undone. An input that is no
        image is grey from its minimum to its maximum: (1, h, w), its channels as `draw_rows` returns them, or
        (1, H, W), the central slice of the displayed channel of a volume.
    """
    values = denormalize(x, preprocessing)
    if is_image_input(preprocessing):
        return select_display(values, preprocessing)
    plane = (
        draw_rows(values) if values.ndim == 2 else take_central_slice(values)[get_display(preprocessing)[0]]
    )
    low, high = float(values.min()), float(values.max())
    scaled: np.ndarray = (plane[None] - low) / ((high - low) or 1.0)
    return scaled


def shorten_rows(values: np.ndarray) -> np.ndarray:
    """Return rows that are not longer than MAX_ROW_LENGTH: each value is the mean of some neighbours.

    Args:
        values: (rows, L).

    Returns:
        (rows, l), of means of ceil(L / MAX_ROW_LENGTH) values, the last of the rest; short rows unchanged.
    """
    length = values.shape[1]
    starts = np.arange(0, length, count_averaged(length))
    if len(starts) == length:
        return values
    counts = np.diff(np.append(starts, length))
    means: np.ndarray = np.add.reduceat(values, starts, axis=1, dtype=np.float64) / counts
    return means.astype(values.dtype)


def draw_rows(values: np.ndarray) -> np.ndarray:
    """Return rows as a plane to be drawn: shortened, and repeated until it is an eighth as high as wide.

    Args:
        values: (rows, L).

    Returns:
        (h, w), each row of `shorten_rows` h / rows times.
    """
    rows = shorten_rows(values)
    height, width = rows.shape
    return np.repeat(rows, max(1, round(width / (ROW_ASPECT * height))), axis=0)


def count_averaged(length: int) -> int:
    """Return how many neighbouring values of a row `shorten_rows` averages.

    Args:
        length: The number of values in the row.
    """
    return -(-length // MAX_ROW_LENGTH)


def take_central_slice(values: np.ndarray) -> np.ndarray:
    """Return the central slice of volumes along their depth.

    Args:
        values: (units, D, H, W).

    Returns:
        (units, H, W), of the index D // 2.
    """
    return values[:, values.shape[1] // 2]


def get_display(preprocessing: Preprocessing) -> list[int]:
    """Return the channels of a network's input that are shown: one in grey, or those in red, green and blue.

    Args:
        preprocessing: Of network.json.

    Returns:
        Indices of channels as the network takes them: `input.display` of the config, or the first three, or
        the first of fewer; of BGR images those of red, green and blue.
    """
    if "display" in preprocessing:
        return preprocessing["display"]
    if len(preprocessing["mean"]) < 3:
        return [0]
    return [2, 1, 0] if preprocessing.get("channels") == "bgr" else [0, 1, 2]


def select_display(values: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Return the channels of values in input space that are shown.

    Args:
        values: Pixels, projections or filters (..., C, H, W).
        preprocessing: Of network.json.

    Returns:
        (..., 1, H, W), to be shown in grey, or (..., 3, H, W) in the order red, green, blue.
    """
    channels = get_display(preprocessing)
    if channels == list(range(values.shape[-3])):
        return values
    return values[..., channels, :, :]


def order_as_rgb(values: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Return values of all channels of an RGB or BGR input in the order red, green, blue; others unchanged.

    Args:
        values: Pixels, or filters of the first convolution, (..., C, H, W).
        preprocessing: Of network.json.
    """
    return select_display(values, preprocessing) if takes_rgb(values, preprocessing) else values


def takes_rgb(values: np.ndarray, preprocessing: Preprocessing) -> bool:
    """Return whether values (..., C, H, W) are those of all three channels of a network's input.

    Args:
        values: Pixels, or filters of the first convolution.
        preprocessing: Of network.json.
    """
    return bool(len(preprocessing["mean"]) == values.shape[-3] == len(get_display(preprocessing)) == 3)


def describe_display(preprocessing: Preprocessing) -> str:
    """Return which channels are shown, in words; "" where that goes without saying, of grey and RGB images.

    Args:
        preprocessing: Of network.json.
    """
    count, channels = len(preprocessing["mean"]), get_display(preprocessing)
    if preprocessing.get("channels") == "bgr":
        return "the network takes BGR images, which are shown in their true colours"
    if channels == list(range(count)):
        return ""
    if len(channels) == 1:
        return f"of the {count} channels, channel {channels[0]} is shown"
    names = join_names([str(channel) for channel in channels])
    return f"of the {count} channels, {names} are shown as red, green and blue"


def has_image_suffix(path: str | Path) -> bool:
    """Return whether a file has the suffix of an image, in capitals or not.

    Args:
        path: The file, which need not exist.
    """
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def list_images(folder: str | Path) -> tuple[list[Path], int]:
    """List the image files directly in a folder, sorted by name, and count its other and hidden files.

    Args:
        folder: The folder.

    Returns:
        The image files, and the number of its other files; folders in it do not count.

    Raises:
        UserError: The folder cannot be listed.
    """
    try:
        files = sorted(path for path in Path(folder).iterdir() if not path.is_dir())
        special = {path for path in files if path.exists() and not path.is_file()}  # FIFOs, devices
    except OSError as error:
        raise UserError(f"cannot list {folder}: {error.strerror}") from error
    files_with_suffix = [path for path in files if has_image_suffix(path) and not path.name.startswith(".")]
    images = [path for path in files_with_suffix if path not in special]
    return images, len(files) - len(images)


def expand_image_paths(paths: list[str] | list[Path]) -> list[Path]:
    """Return files as they are, and for folders the image files directly in them, sorted by name.

    Args:
        paths: Files and folders; a leading ~ is the user's home.

    Raises:
        UserError: A path does not exist, or a folder cannot be listed or holds no images.
    """
    files: list[Path] = []
    for path in map(expand_home, paths):
        if path.is_dir():
            images, others = list_images(path)
            if not images:
                raise UserError(
                    f"the folder {path} holds no image files ({others} others); their names end in "
                    f"{', '.join(sorted(IMAGE_SUFFIXES))}"
                )
            files += images
        elif path.is_file():
            files.append(path)
        elif path.exists():
            raise UserError(f"{path} is no regular file (a FIFO, a socket or a device)")
        else:
            raise UserError(f"there is no file or folder {str(path)!r}")
    return files
