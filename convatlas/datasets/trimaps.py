"""Trimaps of Oxford-IIIT Pet: their values, their faults, and their orientation."""

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from convatlas import UserError
from convatlas.datasets.image_files import Fault, Size, fault_from_error
from convatlas.image_files import open_image

PET, BACKGROUND, BORDER = 1, 2, 3  # values of a trimap's pixels
MASK_CLASSES = ["pet", "background", "border"]  # names of these values, in their order

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


def read_trimap(path: Path, photograph: Path) -> Image.Image:
    """Return a trimap, "L", in the orientation in which `pixels.read_pixels` reads its photograph.

    Args:
        path: The trimap's file.
        photograph: The file of its photograph.

    Raises:
        UserError: The trimap cannot be read.
    """
    try:
        with open_image(path) as image:  # in palette mode the indices are the values, as in torchvision
            trimap = Image.fromarray(np.asarray(image).astype(np.uint8))
        return _orient_trimap(trimap, photograph)
    except Exception as error:  # Pillow's readers raise many kinds for one damaged file
        raise UserError(f"cannot read the trimap {path}: {error}") from error


def find_trimap_faults(path: Path, photograph: Path, size: Size | None) -> list[Fault]:
    """Decode a trimap and return everything that is wrong with it.

    Args:
        path: The trimap's file.
        photograph: The file of its photograph.
        size: The size of the upright photograph; None where it cannot be read.
    """
    try:
        with open_image(path) as image:
            image.load()
            faults = [_check_values(image, path)]
            if size:
                faults.append(_check_size(image, path, photograph, size))
    except Exception as error:  # Pillow's readers raise many kinds for one damaged file
        return [fault_from_error("trimap", path, error)]
    return [fault for fault in faults if fault]


def orient_box(box: Box, size: tuple[int, int], photograph: Path) -> Box:
    """Return a box in the orientation in which `pixels.read_pixels` reads its photograph.

    Args:
        box: The box as annotated.
        size: The annotated size (width, height) of the photograph; (0, 0) where it is not annotated.
        photograph: The file of the photograph.
    """
    stored, orientation = _read_size_and_orientation(photograph)
    if size == stored[::-1] != stored:  # annotated on the upright photograph
        return box
    left, top, right, bottom = box
    width, height = stored
    if orientation in (5, 6, 7, 8):  # mirrored in the diagonal first
        left, top, right, bottom, width, height = top, left, bottom, right, height, width
    if orientation in (2, 3, 6, 7):
        left, right = width - right, width - left
    if orientation in (3, 4, 7, 8):
        top, bottom = height - bottom, height - top
    return left, top, right, bottom


def _check_values(image: Image.Image, path: Path) -> Fault | None:
    """Return the fault of a trimap that is not one channel of values 1 to 3 with some pixels of the pet."""
    if len(image.getbands()) > 1:
        return Fault("trimap of more than one channel", path, f"it is {image.mode}")
    if image.mode in ("L", "P"):  # several times faster than sorting the pixels, for thousands of files
        values = {float(value) for value, count in enumerate(image.histogram()) if count}
    else:
        values = set(np.unique(np.asarray(image).astype(float)).tolist())
    if unknown := sorted(values - {PET, BACKGROUND, BORDER}):
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        listed = ", ".join(f"{value:g}" for value in unknown[:5])
        return Fault("trimap with values outside 1-3", path, listed + more)
    return None if PET in values else Fault("trimap without a pixel of the pet", path)


def _check_size(image: Image.Image, path: Path, photograph: Path, size: Size) -> Fault | None:
    """Return the fault of a trimap whose size is neither that of the upright nor of the stored photograph."""
    height, width = size
    is_upright = image.size == (width, height)
    if is_upright or (
        image.size == (height, width) and _read_size_and_orientation(photograph)[0] == image.size
    ):
        return None
    detail = f"{image.width} × {image.height} pixels, the image {width} × {height}"
    return Fault("trimap of another size than its image", path, detail)


def _read_size_and_orientation(photograph: Path) -> tuple[tuple[int, int], int]:
    """Return the size (width, height) at which a photograph is stored, and its orientation by EXIF."""
    with open_image(photograph) as image:
        return image.size, image.getexif().get(ExifTags.Base.Orientation, 1)


def _orient_trimap(trimap: Image.Image, photograph: Path) -> Image.Image:
    """Turn a trimap as its photograph is turned.

    A trimap is taken to be drawn on the pixels as they are stored, as torchvision pairs them, unless
    only the upright photograph has its size.
    """
    size, orientation = _read_size_and_orientation(photograph)
    if size != trimap.size:
        return trimap
    trimap.getexif()[ExifTags.Base.Orientation] = orientation
    return ImageOps.exif_transpose(trimap)
