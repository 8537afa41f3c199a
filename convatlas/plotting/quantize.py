"""Plates in 256 colours, where they do: less than half the bytes, for a change of colour that nobody sees."""

import numpy as np
from PIL import Image

MAX_MEAN_ERROR = (
    1.2  # of 255, the mean change of colour up to which they do; maps change by 0.5, RGB projections by 4
)
N_FREQUENT = 32  # of the 256 colours, those most often there: paper, ink, zero
N_SCALE_COLOURS = 128  # those of the colour scales
COLOUR_TOLERANCE = 3  # of 255, how far a colour may lie from one of these and need none of its own
MAX_DIRECT_COLOURS = (
    2**14
)  # colours of which a palette is chosen directly; of more, the middles of cells 8 wide
CHUNK_SIZE = 2**14  # colours compared with the palette at once

Array = np.ndarray


def quantize_image(pixels: Array, scales: list[Array]) -> Image.Image:
    """Make an image of opaque (H, W, 4) uint8: in 256 colours where they do, else in RGB.

    They do where colours change by ERROR at most, in the mean; up to 256 colours stay as they are. `scales`
    are tables of colours (n, 3) that the image has bars of, which must not fall into steps.
    """
    packed = np.ascontiguousarray(pixels).view("<u4")[..., 0] & 0xFFFFFF
    there = np.zeros(1 << 24, bool)
    there[packed] = True
    numbers = np.flatnonzero(there)
    place = np.empty(1 << 24, np.int32)
    place[numbers] = np.arange(len(numbers))
    where = place[packed]
    colours = numbers.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3]
    nearest, palette = np.arange(len(colours)), colours
    if len(colours) > 256:
        counts = np.bincount(where.ravel())
        palette = _choose_palette(colours, counts, scales)
        nearest = _find_nearest(colours, palette)
        if _max_channel_error(colours, palette[nearest]) @ counts > MAX_MEAN_ERROR * counts.sum():
            return Image.fromarray(pixels[..., :3])
    image = Image.fromarray(nearest.astype(np.uint8)[where], "P")
    image.putpalette(palette.tobytes())
    return image


def _choose_palette(colours: Array, counts: Array, scales: list[Array]) -> Array:
    """At most 256 of so many colours, (n, 3): the most frequent, the scales', and what covers the others."""
    often = colours[np.argsort(-counts, kind="stable")[:N_FREQUENT]]
    steps = [
        table[np.linspace(0, len(table) - 1, N_SCALE_COLOURS // len(scales)).astype(int)] for table in scales
    ]
    fixed = np.concatenate([often, *steps])
    others = colours[_max_channel_error(colours, fixed[_find_nearest(colours, fixed)]) > COLOUR_TOLERANCE]
    if not len(others):
        return fixed
    if len(others) > MAX_DIRECT_COLOURS:
        others = np.unique(others >> 3, axis=0) << 3 | 4
    room = 256 - len(fixed)
    few = Image.fromarray(others[None]).quantize(room, Image.Quantize.MAXCOVERAGE, dither=0)
    return np.concatenate([fixed, np.array(few.getpalette(), np.uint8).reshape(-1, 3)[:room]])


def _find_nearest(colours: Array, palette: Array) -> Array:
    """The place in the palette of the colour nearest to each, (n,)."""
    wanted = palette.astype(np.float32)
    found = [
        (np.square(wanted).sum(1) - 2 * colours[n : n + CHUNK_SIZE].astype(np.float32) @ wanted.T).argmin(1)
        for n in range(0, len(colours), CHUNK_SIZE)
    ]
    return np.concatenate(found)


def _max_channel_error(colours: Array, drawn: Array) -> Array:
    """How far each colour lies from what is drawn of it, in the channel where it is most, (n,)."""
    return np.abs(drawn.astype(int) - colours).max(1)
