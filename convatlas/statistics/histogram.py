"""The counting of units' activations in the bins of histogram_bins.py, during a pass over a data set.

To count every value of large maps would take as long as their other statistics; of a map with more than
MAX_POSITIONS values some are sampled, evenly over the map, and the images take turns, so that each position
is sampled in as many images.
"""

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from convatlas.statistics.histogram_bins import BIN_TABLE, MAX_POSITIONS, N_BINS
from convatlas.statistics.reduction import CACHE_COMPILED


class ActivationHistogram:
    """The histograms of the units of all layers, on one axis.

    Args:
        units: Number of units of all layers.
        device: Where the maps are.

    Attributes:
        counts: Counts of the finite values of each unit, (units, N_BINS) int32.
    """

    def __init__(self, units: int, device: torch.device) -> None:
        # The last bin takes the values that are not finite.
        self._counts = torch.zeros(units, N_BINS + 1, dtype=torch.int32, device=device)

    @property
    def counts(self) -> Tensor:
        """Return the counts of the finite values of each unit, (units, N_BINS) int32."""
        return self._counts[:, :N_BINS]

    def update(self, output: Tensor, units: slice, numbers: Tensor) -> None:
        """Count values of the output of a layer.

        Args:
            output: Maps (n, units, ...), or single values (n, units).
            units: Positions of the layer's units among the units of all layers.
            numbers: Numbers of the images in the split, (n,); they choose the positions that are sampled.
        """
        maps = output.reshape(len(output), output.shape[1], -1).float()
        step = -(-maps.shape[2] // MAX_POSITIONS)
        starts = numbers % step
        counts = self._counts[units]
        if maps.device.type != "cpu":
            return _count_with_torch(maps, starts, step, counts)
        values = maps.transpose(1, 2).numpy().view(np.uint32)
        return _count_with_numba(values, starts.numpy(), step, counts.numpy())


def _count_with_torch(maps: Tensor, starts: Tensor, step: int, counts: Tensor) -> None:
    """Count the values of maps (n, units, area) at the positions start, start + step, ... of each image."""
    n, units, area = maps.shape
    positions = starts.long()[:, None] + step * torch.arange(-(-area // step), device=maps.device)
    is_inside = (positions < area)[:, None].expand(n, units, -1)
    values = maps.gather(2, positions.clamp(max=area - 1)[:, None].expand(n, units, -1))
    codes = (values.contiguous().view(torch.int32) >> 22) & 1023
    bins = torch.from_numpy(BIN_TABLE.astype(np.int64)).to(maps.device)[codes.long()]
    bins = bins.where(is_inside, N_BINS)
    rows = torch.arange(units, device=maps.device)[:, None] * counts.shape[1]
    flat = (bins + rows).flatten().bincount(minlength=counts.numel())
    flat = flat.reshape(counts.shape)
    flat[:, N_BINS] = 0  # also counts positions beyond the map
    counts += flat.int()


# Compiled, or read from the cache, when this file is imported.
@njit(
    "void(uint32[:,:,:], int64[::1], int64, int32[:,::1])",
    parallel=True,
    cache=CACHE_COMPILED,
)
def _count_with_numba(values: np.ndarray, starts: np.ndarray, step: int, counts: np.ndarray) -> None:
    """Count the bits (n, area, units) of values at the positions start, start + step, ... of each image.

    The units are divided among the threads, 16 by 16, as many as a cache line has.
    """
    for block in prange((len(counts) + 15) // 16):
        units = range(16 * block, min(16 * (block + 1), len(counts)))
        for n in range(len(values)):
            for position in range(starts[n], values.shape[1], step):
                for unit in units:
                    counts[unit, BIN_TABLE[values[n, position, unit] >> np.uint32(22)]] += 1
