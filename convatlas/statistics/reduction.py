"""What a batch's maps come to: maxima and where they are, means, deviations and zeros.

A pass over a data set spends its time here, reading maps. On a CPU a loop that numba compiles reads each
twice, on as many threads as torch has; a GPU is fast enough for torch's operations, one after the other.
"""

import os
from pathlib import Path

import numpy as np
import torch
from numba import config, njit, prange, set_num_threads
from torch import Tensor

IMAGE_PARTS = 16  # of a batch, whose sums are added up at its end
LANE_LIMITS = (
    16,
    128,
)  # at least and at most, of the lines that a map is worked on in, if its units are not more
MIN_LINES = 16  # lines of a map: lines are no wider than leaves it so many
FLOAT32_LINES = 64  # that are added up in float32, before those sums are in float64
MAX_GPU_VALUES = 2**24  # values that a GPU works on at a time, for it makes arrays as large

# numba keeps what it compiles here, or at home; where it can write to neither it compiles anew each time.
CACHE_COMPILED = any(os.access(folder, os.W_OK) for folder in (Path(__file__).parent, Path("~").expanduser()))


class MapReduction:
    """What a batch's maps come to, the units of all layers side by side.

    Of each map, (n, units), the maximum, `most` float32, -inf where the map holds NaN; the first of the flat
    indices that have it, `places` int32; and the mean, `means` float64. Of the maps of a unit in each of
    PARTS equal parts of the images, (PARTS, units), the sum of the squares `about` their means, float64, for
    a constant unit must not deviate by what rounds off its squares (by that of its mean alone), and the
    number of `zeros`, int64.
    """

    def __init__(self, n: int, units: int, device: torch.device) -> None:
        """Make room; on a CPU as many threads will measure as torch has now."""
        self.max = torch.zeros(n, units, device=device)
        self.argmax = torch.zeros(n, units, dtype=torch.int32, device=device)
        self.mean = torch.zeros(n, units, dtype=torch.float64, device=device)
        self.sum_squared_deviation = torch.zeros(IMAGE_PARTS, units, dtype=torch.float64, device=device)
        self.zero_count = torch.zeros(IMAGE_PARTS, units, dtype=torch.int64, device=device)
        self.outputs = [self.max, self.argmax, self.mean, self.sum_squared_deviation, self.zero_count]
        if device.type == "cpu":
            self.output_arrays = [each.numpy() for each in self.outputs]
            set_num_threads(min(torch.get_num_threads(), config.NUMBA_NUM_THREADS))

    def update(self, output: Tensor, units: slice) -> None:
        """Take in a layer's maps (n, units, ...), or single values; its units have their place among all."""
        maps = output.reshape(len(output), output.shape[1], -1).float()
        if maps.device.type != "cpu":
            return _reduce_with_torch(maps, *(each[:, units] for each in self.outputs))
        beside = maps.shape[1] if maps.stride(1) == 1 else 1
        lying = maps.transpose(1, 2) if beside > 1 else maps
        images = lying.reshape(len(maps), maps.shape[1] // beside, -1).contiguous().numpy()
        return _reduce_with_numba(images, beside, *(each[:, units] for each in self.output_arrays))


def _reduce_with_torch(
    maps: Tensor, most: Tensor, places: Tensor, means: Tensor, about: Tensor, zeros: Tensor
) -> None:
    """Measure maps (n, units, area), some images at a time; fills in the others."""
    about.zero_(), zeros.zero_()
    step = max(1, MAX_GPU_VALUES // maps[0].numel())
    for first in range(0, len(maps), step):
        some, own = maps[first : first + step], slice(first, first + step)
        at, mean = some.argmax(2, keepdim=True), some.mean(2, keepdim=True)
        most[own][: len(some)] = some.gather(2, at)[..., 0].nan_to_num(-torch.inf, torch.inf, -torch.inf)
        places[own][: len(some)], means[own][: len(some)] = at[..., 0], mean[..., 0]
        about[0] += (some - mean).square_().sum((0, 2), dtype=torch.float64)
        zeros[0] += (some == 0).sum((0, 2))


@njit(cache=CACHE_COMPILED)
def _reduce_part(
    part: int,
    images: np.ndarray,
    beside: int,
    most: np.ndarray,
    places: np.ndarray,
    means: np.ndarray,
    about: np.ndarray,
    zeros: np.ndarray,
) -> None:
    """Measure the images of a part; fills in its `about` and `zeros`, (units,)."""
    about[:], zeros[:] = 0, 0
    columns = _allocate_lanes(beside, images.shape[2])
    for n in range(part * len(images) // IMAGE_PARTS, (part + 1) * len(images) // IMAGE_PARTS):
        for group in range(images.shape[1]):
            own = slice(group * beside, (group + 1) * beside)
            values, found = images[n, group], (most[n, own], places[n, own], means[n, own])
            if len(values) == beside:
                _reduce_single_values(values, *found, zeros[own])
            else:
                _reduce_map(values, columns, *found, about[own], zeros[own])


@njit(cache=CACHE_COMPILED)
def _reduce_single_values(
    values: np.ndarray, most: np.ndarray, places: np.ndarray, means: np.ndarray, zeros: np.ndarray
) -> None:
    """Measure units of one value."""
    for unit in range(len(values)):
        value = values[unit]
        most[unit], places[unit], means[unit] = -np.inf if np.isnan(value) else value, 0, value
        zeros[unit] += value == 0


@njit(cache=CACHE_COMPILED)
def _allocate_lanes(units: int, size: int) -> tuple[np.ndarray, ...]:
    """Make room for what is found of each column of the lines of a map: `size` values, of so many units.

    Lines are 1, 2, 4, ... times the units wide, for columns are folded in halves in the end. In long ones a
    processor spends its time on values and not on ends, but small maps have few of them.
    """
    least, most = LANE_LIMITS
    width = units
    while 2 * width <= most and (width < least or width * MIN_LINES <= size):
        width *= 2
    top, sums, mean = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    return top, np.empty(width, np.int32), sums, np.empty(width, np.int32), mean


@njit(cache=CACHE_COMPILED, error_model="numpy")
def _reduce_map(
    values: np.ndarray,
    columns: tuple[np.ndarray, ...],
    most: np.ndarray,
    places: np.ndarray,
    means: np.ndarray,
    about: np.ndarray,
    zeros: np.ndarray,
) -> None:
    """Measure a map of some units (units,), of which the `values` at one place lie side by side.

    They are worked on in lines, the last perhaps shorter: of each column are found the maximum and its
    line, the sum and the zeros, and then how far the values are from their unit's mean.
    """
    top, place, sums, none, mean = columns
    units, width = len(most), len(top)
    area, beside = len(values) // units, width // units
    whole, lines = len(values) // width, -(-len(values) // width)
    total = np.zeros(units, np.float64)
    top[:], place[:], none[:] = -np.inf, 0, 0
    for first in range(0, lines, FLOAT32_LINES):
        sums[:], line = 0, first
        while line + 4 <= min(first + FLOAT32_LINES, whole):
            _accumulate_four_lines(values, line, top, place, sums, none)
            line += 4
        while line < min(first + FLOAT32_LINES, lines):
            _accumulate_line(values[line * width : (line + 1) * width], line, top, place, sums, none)
            line += 1
        _fold_sums(sums, total)
    for unit in range(units):
        means[unit], total[unit] = total[unit] / area, 0
    for first in range(0, width, units):
        mean[first : first + units] = means

    for first in range(0, lines, FLOAT32_LINES):
        sums[:], line = 0, first
        while line + 4 <= min(first + FLOAT32_LINES, whole):
            _accumulate_four_deviations(values, line, mean, sums)
            line += 4
        while line < min(first + FLOAT32_LINES, lines):
            _accumulate_deviation(values[line * width : (line + 1) * width], mean, sums)
            line += 1
        _fold_sums(sums, total)
    _fold_sums(total, about)
    _fold_sums(none, zeros)

    for column in range(beside):
        for unit in range(units):
            place[column * units + unit] = place[column * units + unit] * beside + column
    _fold_argmax(top, place, units)
    broken = 0
    for unit in range(units):
        most[unit], places[unit] = top[unit], place[unit]
        broken += np.isnan(means[unit])
    if broken:  # or there were infinities of both signs
        for unit in range(units):
            if np.isnan(values[unit::units]).any():
                most[unit] = -np.inf


@njit(cache=CACHE_COMPILED)
def _accumulate_line(
    row: np.ndarray, line: int, top: np.ndarray, line_of: np.ndarray, sums: np.ndarray, none: np.ndarray
) -> None:
    """Take in a line, which may be shorter than the others."""
    for j in range(len(row)):
        value, most, at = row[j], top[j], line_of[j]
        line_of[j] = np.int32(line) if value > most else at
        top[j] = value if value > most else most
        sums[j] += value
        none[j] += np.int32(value == 0)


@njit(cache=CACHE_COMPILED)
def _accumulate_four_lines(
    values: np.ndarray, line: int, top: np.ndarray, line_of: np.ndarray, sums: np.ndarray, none: np.ndarray
) -> None:
    """Take in four lines, for which what is kept of each column is read and written once."""
    width = len(top)
    at = line * width
    one, two = values[at : at + width], values[at + width : at + 2 * width]
    three, four = values[at + 2 * width : at + 3 * width], values[at + 3 * width : at + 4 * width]
    for j in range(width):
        a, b, c, d = one[j], two[j], three[j], four[j]
        most, of = top[j], line_of[j]
        of, most = np.int32(line) if a > most else of, a if a > most else most
        of, most = np.int32(line + 1) if b > most else of, b if b > most else most
        of, most = np.int32(line + 2) if c > most else of, c if c > most else most
        of, most = np.int32(line + 3) if d > most else of, d if d > most else most
        top[j], line_of[j] = most, of
        sums[j] += (a + b) + (c + d)
        none[j] += (np.int32(a == 0) + np.int32(b == 0)) + (np.int32(c == 0) + np.int32(d == 0))


@njit(cache=CACHE_COMPILED)
def _accumulate_deviation(row: np.ndarray, mean: np.ndarray, sums: np.ndarray) -> None:
    """Add how far a line's values are from their means, squared."""
    for j in range(len(row)):
        apart = row[j] - mean[j]
        sums[j] += apart * apart


@njit(cache=CACHE_COMPILED)
def _accumulate_four_deviations(values: np.ndarray, line: int, mean: np.ndarray, sums: np.ndarray) -> None:
    """Add those of four lines."""
    width = len(mean)
    at = line * width
    one, two = values[at : at + width], values[at + width : at + 2 * width]
    three, four = values[at + 2 * width : at + 3 * width], values[at + 3 * width : at + 4 * width]
    for j in range(width):
        a, b, c, d = one[j] - mean[j], two[j] - mean[j], three[j] - mean[j], four[j] - mean[j]
        sums[j] += (a * a + b * b) + (c * c + d * d)


@njit(cache=CACHE_COMPILED)
def _fold_sums(columns: np.ndarray, units: np.ndarray) -> None:
    """Add columns up by unit, and to what the units have; the columns are not themselves any more."""
    half = len(columns) // 2
    while half >= len(units):
        for j in range(half):
            columns[j] += columns[half + j]
        half //= 2
    for unit in range(len(units)):
        units[unit] += columns[unit]


@njit(cache=CACHE_COMPILED)
def _fold_argmax(top: np.ndarray, place: np.ndarray, units: int) -> None:
    """Bring the greatest of each unit's columns to the first of them; of equals the first in the map."""
    half = len(top) // 2
    while half >= units:
        for j in range(half):
            value, at, most, first = top[half + j], place[half + j], top[j], place[j]
            better = value > most or (value == most and at < first)
            top[j], place[j] = value if better else most, at if better else first
        half //= 2


# Compiled, or read from where it is kept, as this file is imported.
@njit(
    "void(float32[:,:,::1], int64, float32[:,:], int32[:,:], float64[:,:], float64[:,:], int64[:,:])",
    parallel=True,
    cache=CACHE_COMPILED,
)
def _reduce_with_numba(
    images: np.ndarray,
    beside: int,
    most: np.ndarray,
    places: np.ndarray,
    means: np.ndarray,
    about: np.ndarray,
    zeros: np.ndarray,
) -> None:
    """Measure images (n, groups, area * beside), whose groups have so many units beside each other.

    Fills in the others. What comes out does not depend on the number of threads.
    """
    for part in prange(IMAGE_PARTS):
        _reduce_part(part, images, beside, most, places, means, about[part], zeros[part])
