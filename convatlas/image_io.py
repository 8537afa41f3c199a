"""Image files: found, read and brought to a network's size, as torchvision brings them. No torch here."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from convatlas import UserError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp"}


def read_image(path: str | Path, mode: str) -> Image.Image:
    """Read an image file, upright and on white, by its content whatever its name; of an animation the start.

    `mode` is "L" (grey) or "RGB". Raises UserError, which names the file, where it cannot be read.
    """
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):  # 16 bits, which convert() would clip
                eight_bits = np.clip(np.round(np.asarray(upright) / 257), 0, 255)
                upright = Image.fromarray(eight_bits.astype(np.uint8))
            if upright.has_transparency_data:
                white = Image.new("RGBA", upright.size, "white")
                upright = Image.alpha_composite(white, upright.convert("RGBA"))
            return upright.convert(mode)
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is no image that can be read") from error
    except Exception as error:  # Pillow's readers raise many kinds for one damaged file
        raise UserError(f"cannot read the image {path}: {error}") from error


def resize_to(
    image: Image.Image, size: int, resize: int | str, interpolation: str = "bilinear"
) -> np.ndarray:
    """Bring an image to (size, size, C) uint8, with the very values of torchvision's resize and center_crop.

    `resize` is what the shorter side is brought to before the middle is cut out (with black around
    it where the image is smaller), or "stretch", which brings the whole image to size × size;
    `interpolation` is one of Pillow's, "bilinear", "bicubic", ...
    """
    width, height = image.size
    if resize == "stretch":
        wanted = (size, size)
    else:
        shorter = int(resize)
        longer = int(shorter * max(width, height) / min(width, height))
        wanted = (shorter, longer) if width <= height else (longer, shorter)
    if wanted != image.size:
        image = image.resize(wanted, Image.Resampling[interpolation.upper()])
    left, top = (_compute_crop_offset(side, size) for side in wanted)
    image = image.crop((left, top, left + size, top + size))
    return np.asarray(image).reshape(size, size, -1)


def resize_labels_to(labels: Image.Image, size: int, resize: int | str) -> np.ndarray:
    """Bring a map of labels ("L") to (size, size) uint8 as `fit` brings its image; each pixel the nearest's.

    Where the image is smaller than what is cut out there is 0.
    """
    return resize_to(labels, size, resize, "nearest")[..., 0]


def _compute_crop_offset(side: int, size: int) -> int:
    """Where the middle begins; below 0 where there is less than `size`, which is filled up around."""
    return round((side - size) / 2) if side >= size else -((size - side) // 2)


def denormalize(x: np.ndarray, preprocessing: dict[str, Any]) -> np.ndarray:
    """Undo the normalisation of an input (C, H, W) as a network saw it: 0..1, but for rounding.

    `preprocessing` is that of network.json.
    """
    mean, std = (np.array(preprocessing[key], np.float32)[:, None, None] for key in ("mean", "std"))
    return x * std + mean


def has_image_suffix(path: str | Path) -> bool:
    """Whether a file's name says that it is an image."""
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def list_images(folder: str | Path) -> tuple[list[Path], int]:
    """List the image files right in a folder, sorted by name, and count its other files and hidden ones."""
    try:
        files = sorted(path for path in Path(folder).iterdir() if not path.is_dir())
    except OSError as error:
        raise UserError(f"cannot list {folder}: {error.strerror}") from error
    images = [path for path in files if has_image_suffix(path) and not path.name.startswith(".")]
    return images, len(files) - len(images)


def expand_image_paths(paths: list[str] | list[Path]) -> list[Path]:
    """Give files as they are and, for folders, the image files right in them, sorted by name.

    Raises UserError for a path that is not there and a folder without images.
    """
    found: list[Path] = []
    for path in (Path(path).expanduser() for path in paths):
        if path.is_dir():
            images, others = list_images(path)
            if not images:
                raise UserError(
                    f"the folder {path} holds no image files ({others} others); their names end in "
                    f"{', '.join(sorted(IMAGE_SUFFIXES))}"
                )
            found += images
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"there is no file or folder {str(path)!r}")
    return found
