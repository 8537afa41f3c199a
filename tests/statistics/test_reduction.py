"""The reduction of maps to maxima, means, deviations and zeros, against torch and a plain loop."""

import numpy as np
import pytest
import torch
from torch import Tensor

from convatlas.statistics import reduction
from convatlas.statistics.reduction import MapReduction

CPU = torch.device("cpu")
SHAPES = [(3, 5, 7, 9), (2, 40, 12, 12), (40, 64, 30, 31), (2, 3, 50, 50), (5, 1, 4, 4), (20, 7, 127), (9, 6)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("on_gpu", [False, True])
def test_maps_are_reduced_in_any_memory_format(
    shape: tuple[int, ...],
    memory_format: torch.memory_format,
    threads: int,
    on_gpu: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By numba on a CPU, and by the operations for a GPU, which run here on a CPU."""
    maps = torch.randn(*shape, generator=torch.Generator().manual_seed(0)).relu().mul(4).round()  # ties
    maps[0, 0] = 2.5
    flat = maps.reshape(*shape[:2], -1)
    if on_gpu:
        monkeypatch.setattr(reduction, "_reduce_with_numba", reduce_with_torch)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        result = MapReduction(50, shape[1] + 3, CPU)
    finally:
        torch.set_num_threads(threads_before)
    result.update(torch.full_like(maps, 7), slice(1, 1 + shape[1]))  # must not affect the next update
    converted = maps.to(memory_format=memory_format) if maps.ndim == 4 else maps
    result.update(converted, slice(1, 1 + shape[1]))
    n, units = shape[0], slice(1, 1 + shape[1])
    assert torch.equal(result.max[:n, units], flat.amax(2))
    assert torch.equal(result.argmax[:n, units].long(), flat.argmax(2))
    torch.testing.assert_close(result.mean[:n, units], flat.double().mean(2), rtol=1e-6, atol=1e-6)
    deviation = (flat.double() - flat.double().mean(2, keepdim=True)).square().sum((0, 2))
    torch.testing.assert_close(result.sum_squared_deviation[:, units].sum(0), deviation, rtol=1e-5, atol=1e-9)
    assert torch.equal(result.zero_count[:, units].sum(0), (flat == 0).sum((0, 2)))
    for array in (result.max, result.sum_squared_deviation, result.zero_count):
        assert not array[:, 0].any() and not array[:, units.stop :].any()


def reduce_with_torch(images: np.ndarray, adjacent: int, *outputs: np.ndarray) -> None:
    """Run the operations for a GPU on the arguments of those for a CPU."""
    n, units = len(images), outputs[0].shape[1]
    maps = torch.from_numpy(images).reshape(n, units // adjacent, -1, adjacent).transpose(2, 3)
    tensors = (torch.from_numpy(output) for output in outputs)
    reduction._reduce_with_torch(maps.reshape(n, units, -1), *tensors)


@pytest.mark.parametrize("shape", [(30, 30), ()])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("on_gpu", [False, True])
def test_nan_and_infinity_are_no_maximum_and_not_zero(
    shape: tuple[int, ...], memory_format: torch.memory_format, on_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if on_gpu:
        monkeypatch.setattr(reduction, "_reduce_with_numba", reduce_with_torch)
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(4, 6, *shape, generator=generator).relu()
    special = torch.tensor([torch.nan, torch.inf, -torch.inf])
    for unit in range(1, 6):  # unit 0 has finite values alone, unit 5 none
        is_special = torch.rand(4, *shape, generator=generator) < unit / 5
        choice = torch.randint(3, maps[:, unit].shape, generator=generator)
        maps[:, unit] = torch.where(is_special, special[choice], maps[:, unit])
    result = MapReduction(4, 6, CPU)
    result.update(maps.to(memory_format=memory_format) if shape else maps, slice(0, 6))
    flat = maps.reshape(4, 6, -1).numpy()
    finite = np.where(np.isfinite(flat), flat, -np.inf)
    np.testing.assert_array_equal(result.max, finite.max(2))
    np.testing.assert_array_equal(result.argmax, finite.argmax(2))
    np.testing.assert_array_equal(result.mean.isfinite(), np.isfinite(flat).all(2))
    np.testing.assert_array_equal(result.zero_count.sum(0), (flat == 0).sum((0, 2)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_maps_of_other_precision_or_strides_are_reduced(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    for maps in (
        torch.randn(3, 4, 20, 20, generator=generator)[:, :, ::2, ::3],
        torch.randn(3, 1, 9, 9, generator=generator).expand(3, 4, 9, 9),
    ):
        converted: Tensor = maps.to(dtype)
        result = MapReduction(3, 4, CPU)
        result.update(converted, slice(0, 4))
        flat = converted.flatten(2).float()
        assert torch.equal(result.max, flat.amax(2))
        assert torch.equal(result.argmax.long(), flat.argmax(2))
        torch.testing.assert_close(result.mean, flat.double().mean(2), rtol=1e-5, atol=1e-6)


def reduce_plainly(values: np.ndarray, units: int) -> tuple[np.ndarray, ...]:
    """Reduce maps (area, units) float32 as the compiled loop does, in the same order of additions.

    Values are divided into lines of lanes. Four lines are added in pairs, the rest one by one, 64 lines in
    float32; the lanes of a unit are folded in halves.
    """
    lanes = units
    while 2 * lanes <= 128 and (lanes < 16 or lanes * 16 <= values.size):
        lanes *= 2

    def add(terms: np.ndarray) -> np.ndarray:
        total = np.zeros(units)
        for start in range(0, terms.size, 64 * lanes):
            sums = np.zeros(lanes, np.float32)
            block = terms[start : start + 64 * lanes]
            grouped = block.size // (4 * lanes) * 4 * lanes
            for a, b, c, d in block[:grouped].reshape(-1, 4, lanes):
                sums += (a + b) + (c + d)
            for line in range(grouped, block.size, lanes):
                sums[: len(block[line : line + lanes])] += block[line : line + lanes]
            total += fold(sums)
        return total

    def fold(sums: np.ndarray) -> np.ndarray:
        while len(sums) > units:
            sums = sums[: len(sums) // 2] + sums[len(sums) // 2 :]
        return sums

    mean = add(values.reshape(-1)) / len(values)
    deviations = values - mean.astype(np.float32)
    squared = add((deviations * deviations).reshape(-1))
    return values.max(0), values.argmax(0), mean, squared, (values == 0).sum(0)


@pytest.mark.parametrize("shape", [*SHAPES[:6], (2, 512, 7, 7), (2, 300, 5, 13), (2, 6, 100, 101)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_compiled_loop_equals_a_plain_one_bit_by_bit(
    shape: tuple[int, ...], memory_format: torch.memory_format
) -> None:
    maps = torch.randn(*shape, generator=torch.Generator().manual_seed(1)).mul(3).add(1).relu()
    if maps.ndim == 4:
        maps = maps.to(memory_format=memory_format)
    n, units = shape[:2]
    result = MapReduction(n, units, CPU)
    result.update(maps, slice(0, units))
    adjacent = units if maps.reshape(n, units, -1).stride(1) == 1 else 1
    squared = torch.zeros(reduction.IMAGE_PARTS, units, dtype=torch.float64)
    for image in range(n):
        part = next(p for p in range(16) if p * n // 16 <= image < (p + 1) * n // 16)
        for unit in range(0, units, adjacent):
            block = slice(unit, unit + adjacent)
            values = np.ascontiguousarray(maps[image, block].flatten(1).numpy().T)
            outputs = reduce_plainly(values, adjacent)
            for array, expected in zip((result.max, result.argmax, result.mean), outputs, strict=False):
                assert array[image, block].numpy().astype(np.float64).tobytes() == (
                    expected.astype(np.float64).tobytes()
                )
            squared[part, block] += torch.from_numpy(outputs[3])
    assert torch.equal(result.sum_squared_deviation, squared)
