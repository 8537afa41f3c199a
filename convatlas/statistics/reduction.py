"""The reduction of a batch's feature maps to their maxima, means, deviations and zeros.

A pass over a data set spends most of its time here, reading maps. On a CPU a loop that numba compiles reads
each map twice, on as many threads as torch has; on a GPU torch's operations are fast enough. The order in
which values are added is part of the result: tests compare the loop with a plain one, bit by bit.
"""

import os
from pathlib import Path

import numpy as np
import torch
from numba import config, njit, prange, set_num_threads
from torch import Tensor

IMAGE_PARTS = 16  # parts of a batch with sums of their own, which are added at its end
MIN_LANES, MAX_LANES = 16, 128  # values that are processed side by side, unless a map has more units
MIN_LINES = 16  # lines of a map that wide lanes must leave
FLOAT32_LINES = 64  # lines that are added in float32 before the sum is added in float64
GROUP = 4  # lines that are added to the sums at a time
MAX_GPU_VALUES = 2**24  # values that a GPU reduces at a time, as its temporary arrays are as large

# numba writes what it compiles beside this file or in the user's cache, else it compiles in every process.
USER_CACHE = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~")  # noqa: PTH111 - Path raises where no home is known
CACHE_COMPILED = any(os.access(folder, os.W_OK) for folder in (Path(__file__).parent, USER_CACHE))


class MapReduction:
    """The reduced maps of a batch, with the units of all layers on one axis.

    Args:
        n: Largest number of images in a batch.
        units: Number of units of all layers.
        device: Where the maps are. On a CPU as many threads are used as torch has now.

    Attributes:
        max: Maximum of the finite values of each map, (n, units) float32; -inf for a map without any.
        argmax: First flat index of the maximum, (n, units) int32.
        mean: Mean of each map, (n, units) float64; NaN or infinite for a map with such values.
        sum_squared_deviation: Sum of the squared deviations from the mean of the map, of the maps of a unit
            in each of IMAGE_PARTS equal parts of the batch, (IMAGE_PARTS, units) float64. Deviations from
            the mean, not squares, are added so that a constant unit has no deviation by rounding.
        zero_count: Number of values that are 0, likewise, (IMAGE_PARTS, units) int64.
    """

    def __init__(self, n: int, units: int, device: torch.device) -> None:
        self.max = torch.zeros(n, units, device=device)
        self.argmax = torch.zeros(n, units, dtype=torch.int32, device=device)
        self.mean = torch.zeros(n, units, dtype=torch.float64, device=device)
        self.sum_squared_deviation = torch.zeros(IMAGE_PARTS, units, dtype=torch.float64, device=device)
        self.zero_count = torch.zeros(IMAGE_PARTS, units, dtype=torch.int64, device=device)
        self.outputs = [self.max, self.argmax, self.mean, self.sum_squared_deviation, self.zero_count]
        if device.type == "cpu":
            self.output_arrays = [output.numpy() for output in self.outputs]
            set_num_threads(min(torch.get_num_threads(), config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]

    def update(self, output: Tensor, units: slice) -> None:
        """Reduce the output of a layer.

        Args:
            output: Maps (n, units, ...), or single values (n, units).
            units: Positions of the layer's units among the units of all layers.
        """
        maps = output.reshape(len(output), output.shape[1], -1).float()
        if maps.device.type != "cpu":
            return _reduce_with_torch(maps, *(array[:, units] for array in self.outputs))
        # In channels last the values of all units at a position are adjacent, else the map of one unit is.
        adjacent = maps.shape[1] if maps.stride(1) == 1 else 1
        ordered = maps.transpose(1, 2) if adjacent > 1 else maps
        images = ordered.reshape(len(maps), maps.shape[1] // adjacent, -1).contiguous().numpy()
        return _reduce_with_numba(images, adjacent, *(array[:, units] for array in self.output_arrays))


def _reduce_with_torch(
    maps: Tensor,
    maximum: Tensor,
    argmax: Tensor,
    mean: Tensor,
    sum_squared_deviation: Tensor,
    zero_count: Tensor,
) -> None:
    """Reduce maps (n, units, area), some images at a time, into the other arguments."""
    sum_squared_deviation.zero_(), zero_count.zero_()
    step = max(1, MAX_GPU_VALUES // maps[0].numel())
    for start in range(0, len(maps), step):
        part, rows = maps[start : start + step], slice(start, min(start + step, len(maps)))
        part_argmax, part_mean = part.argmax(2, keepdim=True), part.mean(2, keepdim=True)
        finite = part
        if not part_mean.isfinite().all():
            finite = part.where(part.isfinite(), -torch.inf)
            part_argmax = finite.argmax(2, keepdim=True)
        maximum[rows] = finite.gather(2, part_argmax)[..., 0]
        argmax[rows], mean[rows] = part_argmax[..., 0], part_mean[..., 0]
        sum_squared_deviation[0] += (part - part_mean).square_().sum((0, 2), dtype=torch.float64)
        zero_count[0] += (part == 0).sum((0, 2))


@njit(cache=CACHE_COMPILED)
def _reduce_part(
    part: int,
    images: np.ndarray,
    adjacent: int,
    maximum: np.ndarray,
    argmax: np.ndarray,
    mean: np.ndarray,
    sum_squared_deviation: np.ndarray,
    zero_count: np.ndarray,
) -> None:
    """Reduce the images of one part of a batch; its last two arguments are those of the part, (units,)."""
    sum_squared_deviation[:], zero_count[:] = 0, 0
    lanes = _allocate_lanes(adjacent, images.shape[2])
    for n in range(part * len(images) // IMAGE_PARTS, (part + 1) * len(images) // IMAGE_PARTS):
        for group in range(images.shape[1]):
            units = slice(group * adjacent, (group + 1) * adjacent)
            values, outputs = images[n, group], (maximum[n, units], argmax[n, units], mean[n, units])
            if len(values) == adjacent:
                _reduce_single_values(values, *outputs, zero_count[units])
            else:
                _reduce_map(values, lanes, *outputs, sum_squared_deviation[units], zero_count[units])


@njit(cache=CACHE_COMPILED)
def _reduce_single_values(
    values: np.ndarray, maximum: np.ndarray, argmax: np.ndarray, mean: np.ndarray, zero_count: np.ndarray
) -> None:
    """Reduce units of one value each."""
    for unit in range(len(values)):
        value = values[unit]
        maximum[unit], argmax[unit], mean[unit] = value if np.isfinite(value) else -np.inf, 0, value
        zero_count[unit] += value == 0


@njit(cache=CACHE_COMPILED)
def _allocate_lanes(units: int, size: int) -> tuple[np.ndarray, ...]:
    """Allocate the accumulators of the lanes of a map of `size` values of some adjacent units.

    There are 1, 2, 4, ... times as many lanes as units, because lanes are folded in halves at the end. Many
    lanes suit the vector instructions of a processor, but leave few lines to a small map.
    """
    width = units
    while 2 * width <= MAX_LANES and (width < MIN_LANES or width * MIN_LINES <= size):
        width *= 2
    top, sums, mean = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    return top, np.empty(width, np.int32), sums, np.empty(width, np.int32), mean


@njit(cache=CACHE_COMPILED, error_model="numpy")
def _reduce_map(
    values: np.ndarray,
    lanes: tuple[np.ndarray, ...],
    maximum: np.ndarray,
    argmax: np.ndarray,
    mean: np.ndarray,
    sum_squared_deviation: np.ndarray,
    zero_count: np.ndarray,
) -> None:
    """Reduce the maps of some units (units,), whose values at a position are adjacent in `values`.

    The values are divided into lines of as many values as there are lanes; the last may be shorter. A first
    loop over the lines finds the maximum, the sum and the zeros of each lane, a second one the squared
    deviations from the means; the lanes of a unit are folded into one at the end.
    """
    top, top_line, sums, zeros, lane_mean = lanes
    units, width = len(maximum), len(top)
    total = np.zeros(units, np.float64)
    top[:], top_line[:], zeros[:] = -np.inf, 0, 0
    for block in range(0, len(values), FLOAT32_LINES * width):
        sums[:] = 0
        lines = values[block : block + FLOAT32_LINES * width]
        grouped = len(lines) // (GROUP * width) * (GROUP * width)
        for start in range(0, grouped, GROUP * width):
            group = lines[start : start + GROUP * width].reshape(GROUP, width)
            _add_lines(group, GROUP, (block + start) // width, top, top_line, sums, zeros)
        for start in range(grouped, len(lines), width):
            line = lines[start : start + width].reshape(1, -1)
            _add_lines(line, 1, (block + start) // width, top, top_line, sums, zeros)
        _fold_sums(sums, total)
    for unit in range(units):
        mean[unit], total[unit] = total[unit] / (len(values) // units), 0
    for column in range(width // units):
        lane_mean[column * units : (column + 1) * units] = mean
        for lane in range(column * units, (column + 1) * units):
            top_line[lane] = top_line[lane] * (width // units) + column  # now a position in the map

    for block in range(0, len(values), FLOAT32_LINES * width):
        sums[:] = 0
        lines = values[block : block + FLOAT32_LINES * width]
        grouped = len(lines) // (GROUP * width) * (GROUP * width)
        for start in range(0, grouped, GROUP * width):
            group = lines[start : start + GROUP * width].reshape(GROUP, width)
            _add_squared_deviations(group, GROUP, lane_mean, sums)
        for start in range(grouped, len(lines), width):
            _add_squared_deviations(lines[start : start + width].reshape(1, -1), 1, lane_mean, sums)
        _fold_sums(sums, total)
    _fold_sums(total, sum_squared_deviation)
    _fold_sums(zeros, zero_count)
    _fold_argmax(top, top_line, units)
    for unit in range(units):
        maximum[unit], argmax[unit] = top[unit], top_line[unit]
        if top[unit] == np.inf:
            maximum[unit], argmax[unit] = _find_finite_maximum(values[unit::units])


@njit(cache=CACHE_COMPILED)
def _find_finite_maximum(values: np.ndarray) -> tuple[np.float32, int]:
    """Return the largest finite value and its first position; -inf and 0 where none is finite."""
    largest, position = np.float32(-np.inf), 0
    for i in range(len(values)):
        if largest < values[i] < np.inf:
            largest, position = values[i], i
    return largest, position


@njit(inline="always")
def _add_lines(
    lines: np.ndarray,
    count: int,
    first: int,
    top: np.ndarray,
    top_line: np.ndarray,
    sums: np.ndarray,
    zeros: np.ndarray,
) -> None:
    """Add lines (count, lanes), the first of which has the number `first`, to the accumulators of the lanes.

    Lines are added in pairs. The function is inlined where `count` is a constant: the loops over lines are
    unrolled, and the loop over lanes becomes vector instructions.
    """
    for lane in range(lines.shape[1]):
        largest, largest_line, total, zero_count = top[lane], top_line[lane], np.float32(0), np.int32(0)
        for pair in range(0, count, 2):
            pair_sum = np.float32(0)
            for i in range(pair, min(pair + 2, count)):
                value = lines[np.uint64(i), lane]
                largest_line = np.int32(first + i) if value > largest else largest_line
                largest = value if value > largest else largest
                pair_sum += value
                zero_count += np.int32(value == 0)
            total += pair_sum
        top[lane], top_line[lane] = largest, largest_line
        sums[lane] += total
        zeros[lane] += zero_count


@njit(inline="always")
def _add_squared_deviations(lines: np.ndarray, count: int, mean: np.ndarray, sums: np.ndarray) -> None:
    """Add the squared deviations of lines (count, lanes) from the mean, in pairs as `_add_lines` does."""
    for lane in range(lines.shape[1]):
        total = np.float32(0)
        for pair in range(0, count, 2):
            pair_sum = np.float32(0)
            for i in range(pair, min(pair + 2, count)):
                deviation = lines[np.uint64(i), lane] - mean[lane]
                pair_sum += deviation * deviation
            total += pair_sum
        sums[lane] += total


@njit(cache=CACHE_COMPILED)
def _fold_sums(lanes: np.ndarray, totals: np.ndarray) -> None:
    """Add the lanes of each unit to its total, (units,); changes the lanes."""
    half = len(lanes) // 2
    while half >= len(totals):
        for lane in range(half):
            lanes[lane] += lanes[half + lane]
        half //= 2
    for unit in range(len(totals)):
        totals[unit] += lanes[unit]


@njit(cache=CACHE_COMPILED)
def _fold_argmax(top: np.ndarray, positions: np.ndarray, units: int) -> None:
    """Move the maximum of each unit's lanes to the first of them; of equal ones the first position counts."""
    half = len(top) // 2
    while half >= units:
        for lane in range(half):
            value, position, largest, first = (
                top[half + lane],
                positions[half + lane],
                top[lane],
                positions[lane],
            )
            is_better = value > largest or (value == largest and position < first)
            top[lane], positions[lane] = value if is_better else largest, position if is_better else first
        half //= 2


# Compiled, or read from the cache, when this file is imported.
@njit(
    "void(float32[:,:,::1], int64, float32[:,:], int32[:,:], float64[:,:], float64[:,:], int64[:,:])",
    parallel=True,
    cache=CACHE_COMPILED,
)
def _reduce_with_numba(
    images: np.ndarray,
    adjacent: int,
    maximum: np.ndarray,
    argmax: np.ndarray,
    mean: np.ndarray,
    sum_squared_deviation: np.ndarray,
    zero_count: np.ndarray,
) -> None:
    """Reduce images (n, groups, area * adjacent), whose groups have `adjacent` units, into the others.

    The result does not depend on the number of threads.
    """
    for part in prange(IMAGE_PARTS):
        _reduce_part(
            part, images, adjacent, maximum, argmax, mean, sum_squared_deviation[part], zero_count[part]
        )
