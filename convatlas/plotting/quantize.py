"""Plates in 256 colours, where they do: less than half the bytes, for a change of colour that nobody sees."""

import numpy as np
from PIL import Image

ERROR = 1.2  # of 255, the mean change of colour up to which they do; maps change by 0.5, RGB projections by 4
OFTEN = 32  # of the 256 colours, those most often there: paper, ink, zero
EXACT = 128  # those of the colour scales
NEAR = 3  # of 255, how far a colour may lie from one of these and need none of its own
MANY = 2**14  # colours of which a palette is chosen directly; of more, the middles of cells 8 wide
BLOCK = 2**14  # colours compared with the palette at once

Array = np.ndarray


def reduced(pixels: Array, scales: list[Array]) -> Image.Image:
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
        palette = _chosen(colours, counts, scales)
        nearest = _nearest(colours, palette)
        if _change(colours, palette[nearest]) @ counts > ERROR * counts.sum():
            return Image.fromarray(pixels[..., :3])
    image = Image.fromarray(nearest.astype(np.uint8)[where], "P")
    image.putpalette(palette.tobytes())
    return image


def _chosen(colours: Array, counts: Array, scales: list[Array]) -> Array:
    """At most 256 of so many colours, (n, 3): the most frequent, the scales', and what covers the others."""
    often = colours[np.argsort(-counts, kind="stable")[:OFTEN]]
    steps = [table[np.linspace(0, len(table) - 1, EXACT // len(scales)).astype(int)] for table in scales]
    fixed = np.concatenate([often, *steps])
    others = colours[_change(colours, fixed[_nearest(colours, fixed)]) > NEAR]
    if not len(others):
        return fixed
    if len(others) > MANY:
        others = np.unique(others >> 3, axis=0) << 3 | 4
    room = 256 - len(fixed)
    few = Image.fromarray(others[None]).quantize(room, Image.Quantize.MAXCOVERAGE, dither=0)
    return np.concatenate([fixed, np.array(few.getpalette(), np.uint8).reshape(-1, 3)[:room]])


def _nearest(colours: Array, palette: Array) -> Array:
    """The place in the palette of the colour nearest to each, (n,)."""
    wanted = palette.astype(np.float32)
    found = [
        (np.square(wanted).sum(1) - 2 * colours[n : n + BLOCK].astype(np.float32) @ wanted.T).argmin(1)
        for n in range(0, len(colours), BLOCK)
    ]
    return np.concatenate(found)


def _change(colours: Array, drawn: Array) -> Array:
    """How far each colour lies from what is drawn of it, in the channel where it is most, (n,)."""
    return np.abs(drawn.astype(int) - colours).max(1)
