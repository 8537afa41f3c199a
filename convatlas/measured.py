"""What a batch's maps come to: maxima and where they are, means, deviations and zeros.

A pass over a data set spends its time here, reading maps. On a CPU a loop that numba compiles reads each
twice, on as many threads as torch has; a GPU is fast enough for torch's operations, one after the other.
"""

import math
import os
from pathlib import Path

import numpy as np
import torch
from numba import config, njit, prange, set_num_threads
from torch import Tensor

VECTOR = 16  # float32 that a CPU works on at once, at most
COLUMNS = 64  # values side by side that the loop works on, about
PARTS = 16  # of a batch, whose sums are added up at its end
LINES = 64  # that are added up in float32, before those sums are in float64
AT_ONCE = 2**24  # values that a GPU works on at a time, for it makes arrays as large

# numba keeps what it compiles here, or at home; where it can write to neither it compiles anew each time.
KEPT = any(os.access(folder, os.W_OK) for folder in (Path(__file__).parent, Path("~").expanduser()))


class Measured:
    """What a batch's maps come to, the units of all layers side by side.

    Of each map, (n, units), the maximum, `most` float32, -inf where the map holds NaN; the first of the flat
    indices that have it, `places` int32; and the mean, `means` float64. Of the maps of a unit in each of
    PARTS equal parts of the images, (PARTS, units), the sum of the squares `about` their means, float64, for
    a constant unit must not deviate by what rounds off its squares (by that of its mean alone), and the
    number of `zeros`, int64.
    """

    def __init__(self, n: int, units: int, device: torch.device) -> None:
        """Make room; on a CPU as many threads will measure as torch has now."""
        self.most = torch.zeros(n, units, device=device)
        self.places = torch.zeros(n, units, dtype=torch.int32, device=device)
        self.means = torch.zeros(n, units, dtype=torch.float64, device=device)
        self.about = torch.zeros(PARTS, units, dtype=torch.float64, device=device)
        self.zeros = torch.zeros(PARTS, units, dtype=torch.int64, device=device)
        self.into = [self.most, self.places, self.means, self.about, self.zeros]
        if device.type == "cpu":
            self.arrays = [each.numpy() for each in self.into]
            set_num_threads(min(torch.get_num_threads(), config.NUMBA_NUM_THREADS))

    def measure(self, output: Tensor, units: slice) -> None:
        """Take in a layer's maps (n, units, ...), or single values; its units have their place among all."""
        maps = output.reshape(len(output), output.shape[1], -1).float()
        if maps.device.type != "cpu":
            return _by_torch(maps, *(each[:, units] for each in self.into))
        beside = maps.shape[1] if maps.stride(1) == 1 else 1
        lying = maps.transpose(1, 2) if beside > 1 else maps
        images = lying.reshape(len(maps), maps.shape[1] // beside, -1).contiguous().numpy()
        return _by_numba(images, beside, *(each[:, units] for each in self.arrays))


def _by_torch(
    maps: Tensor, most: Tensor, places: Tensor, means: Tensor, about: Tensor, zeros: Tensor
) -> None:
    """Measure maps (n, units, area), some images at a time; fills in the others."""
    about.zero_(), zeros.zero_()
    step = max(1, AT_ONCE // maps[0].numel())
    for first in range(0, len(maps), step):
        some, own = maps[first : first + step], slice(first, first + step)
        at, mean = some.argmax(2, keepdim=True), some.mean(2, keepdim=True)
        most[own][: len(some)] = some.gather(2, at)[..., 0].nan_to_num(-torch.inf, torch.inf, -torch.inf)
        places[own][: len(some)], means[own][: len(some)] = at[..., 0], mean[..., 0]
        about[0] += (some - mean).square_().sum((0, 2), dtype=torch.float64)
        zeros[0] += (some == 0).sum((0, 2))


@njit(cache=KEPT)
def _measure_part(
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
    columns = _columns(beside)
    for n in range(part * len(images) // PARTS, (part + 1) * len(images) // PARTS):
        for group in range(images.shape[1]):
            own = slice(group * beside, (group + 1) * beside)
            values, found = images[n, group], (most[n, own], places[n, own], means[n, own])
            if len(values) == beside:
                _take(values, *found, zeros[own])
            else:
                _measure(values, columns, *found, about[own], zeros[own])


@njit(cache=KEPT)
def _columns(units: int) -> tuple[np.ndarray, ...]:
    """Make room for what is found of each column of the lines that _measure works on.

    A line is a whole number of times the units wide, and of the compiler's vectors, where that is not much.
    """
    even = units * VECTOR // math.gcd(units, VECTOR)
    even = even if even <= 2 * COLUMNS else units
    width = even * max(1, COLUMNS // even)
    top, sums, mean = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    return top, np.empty(width, np.int32), sums, np.empty(width, np.int32), mean


@njit(cache=KEPT, error_model="numpy")
def _measure(
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
    top, line_of, sums, none, mean = columns
    units, width = len(most), len(top)
    area, lines = len(values) // units, -(-len(values) // width)
    total = np.zeros(units, np.float64)
    top[:], line_of[:], none[:] = -np.inf, 0, 0
    for first in range(0, lines, LINES):
        sums[:] = 0
        for line in range(first, min(first + LINES, lines)):
            row = values[line * width : (line + 1) * width]
            for j in range(len(row)):
                value = row[j]
                if value > top[j]:
                    top[j], line_of[j] = value, line
                sums[j] += value
                none[j] += np.int32(value == 0)
        _add(sums, total)
    for unit in range(units):
        means[unit], total[unit] = total[unit] / area, 0
    for first in range(0, width, units):
        mean[first : first + units] = means

    for first in range(0, lines, LINES):
        sums[:] = 0
        for line in range(first, min(first + LINES, lines)):
            row = values[line * width : (line + 1) * width]
            for j in range(len(row)):
                apart = row[j] - mean[j]
                sums[j] += apart * apart
        _add(sums, total)
    _add(total, about)
    _add(none, zeros)
    _find(top, line_of, most, places)
    if np.isnan(means).any():
        for unit in range(units):
            if np.isnan(values[unit::units]).any():
                most[unit] = -np.inf


@njit(cache=KEPT)
def _find(top: np.ndarray, line_of: np.ndarray, most: np.ndarray, places: np.ndarray) -> None:
    """Find the greatest of each unit's columns and its place in the map; of equals the first there."""
    units, beside = len(most), len(top) // len(most)
    for unit in range(units):
        most[unit], places[unit] = top[unit], line_of[unit] * beside
    for column in range(1, beside):
        for unit in range(units):
            value = top[column * units + unit]
            place = line_of[column * units + unit] * beside + column
            if value > most[unit] or (value == most[unit] and place < places[unit]):
                most[unit], places[unit] = value, place


@njit(cache=KEPT)
def _take(
    values: np.ndarray, most: np.ndarray, places: np.ndarray, means: np.ndarray, zeros: np.ndarray
) -> None:
    """Measure units of one value."""
    for unit in range(len(values)):
        value = values[unit]
        most[unit], places[unit], means[unit] = -np.inf if np.isnan(value) else value, 0, value
        zeros[unit] += value == 0


@njit(cache=KEPT)
def _add(columns: np.ndarray, units: np.ndarray) -> None:
    """Add the columns of a line up by unit."""
    for first in range(0, len(columns), len(units)):
        for unit in range(len(units)):
            units[unit] += columns[first + unit]


# Compiled, or read from where it is kept, as this file is imported.
@njit(
    "void(float32[:,:,::1], int64, float32[:,:], int32[:,:], float64[:,:], float64[:,:], int64[:,:])",
    parallel=True,
    cache=KEPT,
)
def _by_numba(
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
    for part in prange(PARTS):
        _measure_part(part, images, beside, most, places, means, about[part], zeros[part])
