"""Image files that are opened with Pillow: regular files alone, of known formats and of a bounded size."""

import os
import stat
from pathlib import Path

from PIL import Image

from convatlas import UserError

# What Pillow may take a file for. Others, such as EPS, would start programs or are no images of pixels.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
MAX_PIXELS = 200_000_000  # of one image, 0.6 GB as RGB
LIMIT_VARIABLE = "CONVATLAS_MAX_PIXELS"

Image.MAX_IMAGE_PIXELS = None  # `check_pixels` has a limit that the user can raise


def require_regular_file(path: str | Path) -> None:
    """Refuse what only looks like a file: reading a FIFO or a device may never end.

    Args:
        path: The path, which may be a link.

    Raises:
        UserError: It is a FIFO, a socket, a device or a folder, or a link to one.
        OSError: It does not exist, or its folder cannot be read.
    """
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise UserError(f"{path} is no regular file (a folder, a FIFO, a socket or a device)")


def open_image(path: str | Path) -> Image.Image:
    """Open an image file; its pixels are decoded later, when they are used.

    Args:
        path: The file.

    Raises:
        UserError: It is no regular file, or has too many pixels.
        UnidentifiedImageError: It is of none of FORMATS.
        OSError: It cannot be read.
    """
    require_regular_file(path)
    image = Image.open(path, formats=FORMATS)
    try:
        check_pixels(image.width, image.height, path)
    except UserError:
        image.close()
        raise
    return image


def check_pixels(width: int, height: int, path: str | Path) -> None:
    """Refuse an image with more pixels than the limit.

    Args:
        width: Its width in pixels.
        height: Its height in pixels.
        path: The file, for the message.

    Raises:
        UserError: It has too many, or the limit in the environment is no number.
    """
    text = os.environ.get(LIMIT_VARIABLE, str(MAX_PIXELS))
    if not text.isascii() or not text.isdigit():
        raise UserError(f"the environment variable {LIMIT_VARIABLE} must be a whole number, not {text!r}")
    if width * height > int(text):
        raise UserError(
            f"{path} has {width:,} × {height:,} pixels, more than {int(text):,}; reduce it, or set the "
            f"environment variable {LIMIT_VARIABLE} to a larger number"
        )
