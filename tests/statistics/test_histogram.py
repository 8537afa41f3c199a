"""The histograms of activations, against NumPy's with the documented edges."""

import numpy as np
import pytest
import torch

from convatlas.statistics import histogram
from convatlas.statistics.histogram import ActivationHistogram
from convatlas.statistics.histogram_bins import MAX_POSITIONS, N_BINS, ZERO_BIN, list_bin_edges

CPU = torch.device("cpu")


def count_on_gpu(values: np.ndarray, starts: np.ndarray, step: int, counts: np.ndarray) -> None:
    """Run the operations for a GPU on the arguments of those for a CPU."""
    maps = torch.from_numpy(np.ascontiguousarray(values).view(np.float32)).transpose(1, 2)
    histogram._count_with_torch(maps, torch.from_numpy(starts), step, torch.from_numpy(counts))


@pytest.fixture(params=[False, True], ids=["cpu", "gpu"], autouse=True)
def _choose_operations(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param:
        monkeypatch.setattr(histogram, "_count_with_numba", count_on_gpu)


@pytest.mark.parametrize("shape", [(40, 3, 5, 6), (9, 20, 7, 9), (70, 18, 40, 3), (12, 5)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_values_are_counted_as_numpy_counts_them(
    shape: tuple[int, ...], memory_format: torch.memory_format
) -> None:
    generator = np.random.default_rng(0)
    values = (generator.normal(size=shape) * 2.0 ** generator.integers(-20, 20, shape)).astype(np.float32)
    values[generator.random(shape) < 0.2] = 0
    values[generator.random(shape) < 0.1] = np.float32(1.5)  # an edge
    values[generator.random(shape) < 0.1] = np.nan
    values[generator.random(shape) < 0.1] = -np.inf
    maps = torch.from_numpy(values)
    if maps.ndim == 4:
        maps = maps.to(memory_format=memory_format)
    counter = ActivationHistogram(shape[1] + 2, CPU)
    numbers = torch.arange(100, 100 + len(maps))
    for part in range(0, len(maps), 8):  # in batches
        counter.update(maps[part : part + 8], slice(1, 1 + shape[1]), numbers[part : part + 8])

    flat = values.reshape(*shape[:2], -1)
    step = -(-flat.shape[2] // MAX_POSITIONS)
    counts = counter.counts.numpy()
    assert counts.shape == (shape[1] + 2, N_BINS)
    assert not counts[[0, -1]].any()
    edges = list_bin_edges()
    for unit in range(shape[1]):
        sampled = np.concatenate([image[unit, (100 + n) % step :: step] for n, image in enumerate(flat)])
        finite = sampled[np.isfinite(sampled)].astype(float)
        assert counts[1 + unit].sum() == len(finite)
        assert counts[1 + unit, ZERO_BIN] == (finite == 0).sum()
        for sign in (1, -1):
            magnitudes = sign * finite[sign * finite > 0]
            expected, _ = np.histogram(magnitudes, edges[:-1])
            expected[-1] -= (magnitudes == edges[-2]).sum()  # NumPy closes the last bin
            expected = [*expected, (magnitudes >= edges[-2]).sum()]
            bins = ZERO_BIN + sign * np.arange(1, len(edges))
            assert counts[1 + unit, bins].tolist() == expected


def test_every_position_of_a_large_map_is_sampled_in_as_many_images() -> None:
    """A map that is zero but at one position, on as many images as are between two samples."""
    for position in (0, 1, 63, 64, 99):
        maps = torch.zeros(7, 1, 10, 10)
        maps[:, 0, position // 10, position % 10] = 1
        counter = ActivationHistogram(1, CPU)
        counter.update(maps, slice(0, 1), torch.arange(7))
        counts = counter.counts[0].numpy()
        assert counts.sum() == 100
        assert counts[ZERO_BIN] == 99
