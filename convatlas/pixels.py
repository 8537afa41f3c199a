"""Image files as pixels with the channels that a network takes, 8 bits or floats in 0..255; without torch."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from convatlas import UserError
from convatlas.image_io import Size, resize_to
from convatlas.records import ImageValues
from convatlas.stored_images import StoredImage, read_stored_image
from convatlas.value_ranges import check_values, find_range, scale_to_bytes, summarize_values

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # Pillow's, by number of channels
LUMA_WEIGHTS = np.array([299, 587, 114], np.float32) / 1000  # of red, green and blue, as Pillow's


@dataclass(frozen=True)
class PixelFormat:
    """What is read of an image file.

    Attributes:
        channels: The number of channels, as the network takes them.
        value_range: The stored values that become 0 and 255; None takes the range of the data type, or the
            one that the file declares.
    """

    channels: int
    value_range: tuple[float, float] | None = None

    def __str__(self) -> str:
        """Return a name of the format, for files: "L", "RGB", "5-channels", ..."""
        name = {1: "L", 3: "RGB"}.get(self.channels, f"{self.channels}-channels")
        return name if self.value_range is None else f"{name}-{self.value_range[0]:g}-{self.value_range[1]:g}"


GREY, RGB = PixelFormat(1), PixelFormat(3)


def read_pixels(path: str | Path, pixel_format: PixelFormat) -> np.ndarray:
    """Read an image file as pixels, upright, without a check of the range of its values.

    With one channel, colours become their luma; with three, grey is repeated. Opacity is a channel where two
    (grey) or four (RGB) are asked for; otherwise the image is composited on white.

    Args:
        path: The image file.
        pixel_format: What to read of it.

    Returns:
        (H, W, C), uint8, or float32 in 0..255 where the file has more than 8 bits or a range is
        configured.

    Raises:
        UserError: The file cannot be read, or has another number of channels.
    """
    return _to_pixels(read_stored_image(path, pixel_format.channels), path, pixel_format)


def read_checked_pixels(
    path: str | Path, pixel_format: PixelFormat, key: str = "input"
) -> tuple[np.ndarray, ImageValues | None]:
    """Read an image file as `read_pixels` does; check that the range fits its values, and log it.

    Args:
        path: The image file.
        pixel_format: What to read of it.
        key: The place of the network's `input` in the config, for messages.

    Returns:
        The pixels (H, W, C), and the values of the file with their range; None for plain 8 bits.

    Raises:
        UserError: The file cannot be read, has another number of channels or values that are not finite, or
            would be black.
    """
    stored = read_stored_image(path, pixel_format.channels)
    try:
        summary = summarize_values(stored)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    pixels = _to_pixels(stored, path, pixel_format)
    return pixels, check_values(summary, pixel_format.value_range, key, str(path))


def resize_pixels_to(
    pixels: np.ndarray, size: Size, resize: int | str, interpolation: str = "bilinear"
) -> np.ndarray:
    """Resize and crop pixels by `image_io.resize_to`.

    Args:
        pixels: (H, W, C), uint8 or float32.
        size: As in `resize_to`.
        resize: As in `resize_to`.
        interpolation: As in `resize_to`.

    Returns:
        Pixels of that size and the same type, (H, W, C).
    """
    if pixels.dtype == np.uint8 and pixels.shape[2] in (1, 3):
        return resize_to(_to_image(pixels), size, resize, interpolation)
    # Channel by channel: Pillow has no other images of floats, and would weight colours by opacity.
    planes = [np.ascontiguousarray(pixels[..., channel]) for channel in range(pixels.shape[2])]
    resized = [resize_to(Image.fromarray(plane), size, resize, interpolation) for plane in planes]
    return np.concatenate(resized, axis=2)


def _to_pixels(stored: StoredImage, path: str | Path, pixel_format: PixelFormat) -> np.ndarray:
    """Return a stored image as pixels with a number of channels."""
    if stored.is_plain and pixel_format.value_range is None:
        pixels = _convert_bytes(stored, pixel_format.channels)
    else:
        pixels = _convert_floats(stored, pixel_format)
    if pixels.shape[2] != pixel_format.channels:
        raise channels_error(str(path), "has", stored.values.shape[2], pixel_format)
    return pixels


def channels_error(subject: str, verb: str, count: int, pixel_format: PixelFormat) -> UserError:
    """Return the error that images have other channels than the network takes.

    Args:
        subject: The file or the images.
        verb: "has" or "have".
        count: Their number of channels.
        pixel_format: What the network takes.
    """
    channels = pixel_format.channels
    files = "grey or RGB images" if channels in (1, 3) else f"files of {format_channels(channels)} "
    kinds = {1: "", 2: "(.npy, .npz or .tif, or PNG in grey with opacity)", 3: ""}
    kinds[4] = "(.npy, .npz or .tif, or PNG with opacity)"
    return UserError(
        f"{subject} {verb} {format_channels(count)}, and the network takes {channels}: give "
        f"{files}{kinds.get(channels, '(.npy, .npz or .tif)')}, or a network for {count}, or set "
        "input.channels if it takes another number"
    )


def can_convert(count: int, has_alpha: bool, channels: int) -> bool:
    """Return whether `read_pixels` reads images as a number of channels.

    Args:
        count: The number of channels of the image.
        has_alpha: Whether the last of them is opacity.
        channels: The number that the network takes.
    """
    return count == channels or (channels in (1, 3) and (count in (1, 3) or has_alpha))


def _convert_bytes(stored: StoredImage, channels: int) -> np.ndarray:
    """Return 8-bit values as grey or RGB by Pillow; unchanged where they cannot be converted."""
    values = stored.values
    count = values.shape[2]
    if count == channels or not can_convert(count, stored.has_alpha, channels):
        return values
    image = _to_image(values)
    if stored.has_alpha:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    pixels = np.asarray(image.convert(MODES[channels]))
    return pixels.reshape(*values.shape[:2], channels)


def _convert_floats(stored: StoredImage, pixel_format: PixelFormat) -> np.ndarray:
    """Return values in 0..1 as grey or RGB; with their own channels where they cannot be converted."""
    low, high = pixel_format.value_range or find_range(stored)[:2]
    channels, values = pixel_format.channels, scale_to_bytes(stored.values, low, high)
    if values.shape[2] != channels and stored.has_alpha and channels in (1, 3):
        opacity = values[..., -1:] / 255
        values = values[..., :-1] * opacity + 255 * (1 - opacity)
    if values.shape[2] == 3 and channels == 1:
        return values @ LUMA_WEIGHTS[:, None]
    if values.shape[2] == 1 and channels == 3:
        return values.repeat(3, 2)
    return values


def _to_image(pixels: np.ndarray) -> Image.Image:
    """Return 8-bit pixels (H, W, C) of one to four channels as an image."""
    return Image.fromarray(pixels.reshape(pixels.shape[:2]) if pixels.shape[2] == 1 else pixels)


def format_channels(count: int) -> str:
    """Return a number of channels in words."""
    return f"{count} channel{'s' if count != 1 else ''}"
