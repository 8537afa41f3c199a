"""Test images with the outlines of a unit's mask and of the true region."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

PICTURE_SIDE = 160  # pixels of the longer side
LINE_WIDTH = 2  # pixels
DASH = 5  # pixels of a dash, and of a gap
UNIT_COLOUR = (255, 140, 0)
REGION_COLOUR = (255, 255, 255)
HALO_COLOUR = (20, 20, 20)  # around a line, so that it is seen on any image
QUALITY = 75

Mask = npt.NDArray[np.bool_]


def render_example(
    photograph: npt.NDArray[np.uint8], active: Mask | None = None, region: Mask | None = None
) -> tuple[bytes, tuple[int, int]]:
    """Render an image with outlines as WebP.

    Args:
        photograph: (H, W, 3).
        active: Where the unit's map is beyond its threshold, (h, w): an orange line.
        region: The true region, (h, w): a dashed white line.

    Returns:
        The content of the file, and its width and height.
    """
    scale = PICTURE_SIDE / max(photograph.shape[:2])
    width, height = (max(1, round(side * scale)) for side in photograph.shape[1::-1])
    resampling = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
    pixels = np.array(Image.fromarray(photograph).resize((width, height), resampling))
    if region is not None:
        outline = find_outline(enlarge(region, (height, width)))
        y, x = np.indices(outline.shape)
        pixels[outline] = np.where(((x + y) // DASH % 2 == 0)[outline][:, None], REGION_COLOUR, HALO_COLOUR)
    if active is not None:
        outline = find_outline(enlarge(active, (height, width)))
        pixels[grow(outline) & ~outline] = HALO_COLOUR
        pixels[outline] = UNIT_COLOUR
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "webp", quality=QUALITY, method=4)
    return content.getvalue(), (width, height)


def enlarge(mask: Mask, size: tuple[int, int]) -> Mask:
    """Bring a mask (h, w) to a size (H, W) by nearest neighbour.

    Args:
        mask: The mask.
        size: Height and width of the result.
    """
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, mask.shape, strict=True))
    enlarged: Mask = mask[rows[:, None], columns]
    return enlarged


def find_outline(mask: Mask) -> Mask:
    """Return the pixels of a mask within LINE_WIDTH of its edge; the edge of the image is none.

    Args:
        mask: (H, W).
    """
    outside = ~mask
    for _ in range(LINE_WIDTH):
        outside = grow(outside)
    outline: Mask = mask & outside
    return outline


def grow(mask: Mask) -> Mask:
    """Return a mask with the pixels next to it, above, below and at its sides.

    Args:
        mask: (H, W).
    """
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown
