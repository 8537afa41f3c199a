"""Quantising a picture to 256 colours where the change of colour is too small to be seen."""

from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image

# Mean change of colour, of 255, up to which a picture is quantised: feature maps change by 0.5, RGB
# projections by 4.
MAX_MEAN_ERROR = 1.2
N_FREQUENT = 32  # colours of the palette that are the most frequent ones: background, text, zero
N_SCALE_COLOURS = 128  # colours of the palette that come from the colour scales
COLOUR_TOLERANCE = 3  # of 255: a colour this near to one of these needs no place of its own
MAX_DIRECT_COLOURS = 2**14  # of more colours, the palette is chosen from the centres of cells 8 wide
CHUNK_SIZE = 2**14  # colours compared with the palette at a time

Colours = npt.NDArray[np.uint8]  # (n, 3)


def quantize_image(pixels: npt.NDArray[np.uint8], tables: list[Colours]) -> Image.Image:
    """Return an image in 256 colours, less than half as large as a file, or in RGB where that would be seen.

    Args:
        pixels: (H, W, 4) uint8, opaque. Up to 256 colours are kept as they are; of more, the mean change
            of colour is at most MAX_MEAN_ERROR, or the image stays RGB.
        tables: The colours (n, 3) of each colour bar in the image, which must stay smooth.
    """
    packed = np.ascontiguousarray(pixels).view("<u4").ravel() & 0xFFFFFF
    # Neighbours of one colour are looked up together, which are most pixels of a figure.
    starts = np.flatnonzero(np.append(True, packed[1:] != packed[:-1]))
    runs, lengths = packed[starts], np.diff(starts, append=packed.size)
    table = _make_colour_table()
    numbers = np.arange(len(runs), dtype=np.int32)
    table[runs] = numbers
    packed_colours = np.sort(runs[table[runs] == numbers])  # each once: a run of each colour has its number
    table[packed_colours] = numbers[: len(packed_colours)]
    indices = table[runs]
    colours = packed_colours.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3]
    nearest, palette = np.arange(len(colours)), colours
    if len(colours) > 256:
        counts = np.bincount(indices, lengths).astype(np.int64)
        palette = _choose_palette(colours, counts, tables)
        nearest = _find_nearest(colours, palette)
        if _max_channel_error(colours, palette[nearest]) @ counts > MAX_MEAN_ERROR * counts.sum():
            return Image.fromarray(pixels[..., :3])
    rows = nearest.astype(np.uint8)[indices].repeat(lengths).reshape(pixels.shape[:2])
    image = Image.fromarray(rows, "P")
    image.putpalette(palette.tobytes())
    return image


@cache
def _make_colour_table() -> npt.NDArray[np.int32]:
    """Return a number for each colour of 24 bits, undefined at first; made once, since new memory is slow."""
    return np.empty(1 << 24, np.int32)


def _choose_palette(colours: Colours, counts: npt.NDArray[np.int64], tables: list[Colours]) -> Colours:
    """Return at most 256 colours: the most frequent, those of the colour scales, and what covers the rest."""
    frequent = colours[np.argsort(-counts, kind="stable")[:N_FREQUENT]]
    scale_colours = [
        table[np.linspace(0, len(table) - 1, N_SCALE_COLOURS // len(tables)).astype(int)] for table in tables
    ]
    fixed = np.concatenate([frequent, *scale_colours])
    errors = _max_channel_error(colours, fixed[_find_nearest(colours, fixed)])
    rest = colours[errors > COLOUR_TOLERANCE]
    if not len(rest):
        return fixed
    if len(rest) > MAX_DIRECT_COLOURS:
        cells = np.flatnonzero(np.bincount((rest >> 3).astype(int) @ (1024, 32, 1)))
        rest = (np.stack([cells >> 10, cells >> 5 & 31, cells & 31], 1) << 3 | 4).astype(np.uint8)
    room = 256 - len(fixed)
    covering = Image.fromarray(rest[None]).quantize(
        room, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
    )
    return np.concatenate([fixed, np.array(covering.getpalette(), np.uint8).reshape(-1, 3)[:room]])


def _find_nearest(colours: Colours, palette: Colours) -> npt.NDArray[np.int64]:
    """Return the index in the palette of the colour nearest to each, (n,)."""
    targets = palette.astype(np.float32)
    # |t|² − 2 c·t of each colour c and target t as one product, exact in float32.
    weights = np.concatenate([-2 * targets.T, np.square(targets).sum(1)[None]])
    chunks = []
    for n in range(0, len(colours), CHUNK_SIZE):
        chunk = colours[n : n + CHUNK_SIZE].astype(np.float32)
        chunks.append((np.pad(chunk, ((0, 0), (0, 1)), constant_values=1) @ weights).argmin(1))
    return np.concatenate(chunks)


def _max_channel_error(colours: Colours, replacements: Colours) -> npt.NDArray[np.int64]:
    """Return the difference between each colour and its replacement in the channel of the largest, (n,)."""
    errors: npt.NDArray[np.int64] = np.abs(replacements.astype(int) - colours).max(1)
    return errors
