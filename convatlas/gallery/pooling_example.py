"""A worked example of max pooling, its switches and unpooling, with numbers of a run where it has one."""

from dataclasses import dataclass

import numpy as np

from convatlas.gallery.value_grid import VIRIDIS, Grid, draw_grid
from convatlas.records import DeconvSteps, Layer
from convatlas.results import Results, projected_units

PATCH_SIZE = 4  # values on a side of the patch that is shown

# The example of pooling of a run without one: a map, and a signal that the deconvnet passes down.
EXAMPLE_MAP = np.array([[1, 6, 2, 0], [3, 5, 9, 4], [8, 0, 1, 7], [2, 3, 0, 5]], np.float32)
EXAMPLE_SIGNAL = np.array([[2, -3], [1, 4]], np.float32)


@dataclass(frozen=True)
class PoolingSource:
    """Where the example of pooling is from: layers, unit, image, first row and column of the patch."""

    pool: str
    map: str
    unit: int
    image: str
    row: int
    column: int


@dataclass(frozen=True)
class PoolingExample:
    """Max pooling by 2 × 2, its switches and unpooling.

    Attributes:
        source: Where the numbers are from; None for invented ones.
        map: A patch of a feature map.
        pooled: The maximum of each window.
        switches: The flat index of each maximum in the patch.
        signal: The deconvnet's signal above the pooling layer.
        unpooled: The signal at the switches.
        rectified: Its positive part.
    """

    source: PoolingSource | None
    map: Grid
    pooled: Grid
    switches: list[int]
    signal: Grid
    unpooled: Grid
    rectified: Grid


def is_max_pool(layer: Layer) -> bool:
    """Return whether a layer is a max-pooling layer.

    Args:
        layer: The layer.
    """
    return layer["kind"] == "pool" and "max" in layer["type"].lower()


def make_pooling_example(results: Results) -> PoolingExample:
    """Make an example of pooling, with numbers of the run's deconvnet steps where these pool by 2 × 2.

    Switches and unpooling are those of Zeiler & Fergus (arXiv 1311.2901), section 2.1.

    Args:
        results: A network's results.

    Returns:
        The example; of EXAMPLE_MAP and EXAMPLE_SIGNAL where the run has none.
    """
    example = _find_pooling_example(results, results.steps) if results.steps else None
    values, signal, source = example or (EXAMPLE_MAP, EXAMPLE_SIGNAL, None)
    pooled, switches = max_pool(values)
    unpooled = max_unpool(signal, switches)
    max_signal = float(max(np.abs(signal).max(), 1e-9))
    return PoolingExample(
        source=source,
        map=draw_grid(values, float(values.max()), VIRIDIS, switches),
        pooled=draw_grid(pooled, float(values.max()), VIRIDIS),
        switches=[int(switch) for switch in switches.ravel()],
        signal=draw_grid(signal, max_signal),
        unpooled=draw_grid(unpooled, max_signal, maxima=switches),
        rectified=draw_grid(unpooled.clip(0), max_signal),
    )


def max_pool(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pool a map by the maximum of 2 × 2 windows.

    Args:
        values: The map (H, W).

    Returns:
        The maxima (H/2, W/2), and the switches: the flat index of the first maximum of each window.
    """
    height, width = values.shape
    windows = values.reshape(height // 2, 2, width // 2, 2).swapaxes(1, 2).reshape(height // 2, width // 2, 4)
    index_in_window = windows.argmax(-1)
    rows, columns = np.indices(index_in_window.shape)
    switches = (2 * rows + index_in_window // 2) * width + 2 * columns + index_in_window % 2
    return windows.max(-1), switches


def max_unpool(values: np.ndarray, switches: np.ndarray) -> np.ndarray:
    """Put values at their switches, and zeros elsewhere.

    Args:
        values: The values (h, w).
        switches: Flat indices into the result (h, w).

    Returns:
        The unpooled values (2 h, 2 w).
    """
    unpooled = np.zeros((2 * values.shape[0], 2 * values.shape[1]), values.dtype)
    unpooled.flat[switches.ravel()] = values.ravel()
    return unpooled


def _find_pooling_example(
    results: Results, steps: DeconvSteps
) -> tuple[np.ndarray, np.ndarray, PoolingSource] | None:
    """Find the most informative patch of a map and its signal at a 2 × 2 max pooling of the steps."""
    layers = {layer["name"]: layer for layer in results.layers}
    signals, outputs = results.step_signals, results.activations(steps["image"])
    best: tuple[np.ndarray, np.ndarray, PoolingSource] | None = None
    best_rank = (-1, -1.0)
    for upper, lower in zip(steps["steps"], steps["steps"][1:], strict=False):
        pool = layers.get(upper["layer"])
        if pool is None or lower["passed_layers"] != [pool["name"]] or not _is_2x2_max_pool(pool):
            continue
        maps, signal = outputs[pool["inputs"][0]], signals[upper["layer"]]
        for n, unit in enumerate(projected_units(signals, upper["layer"])):
            row, column, rank = _find_informative_patch(maps[unit], signal[n])
            if rank > best_rank:
                best_rank = rank
                side = PATCH_SIZE // 2
                source = PoolingSource(
                    pool["name"], pool["inputs"][0], unit, steps["image"], 2 * row, 2 * column
                )
                best = (
                    _cut_square(maps[unit], 2 * row, 2 * column, PATCH_SIZE),
                    _cut_square(signal[n], row, column, side),
                    source,
                )
    return best


def _is_2x2_max_pool(layer: Layer) -> bool:
    """Return whether a layer pools by the maximum of adjacent 2 × 2 windows."""
    return is_max_pool(layer) and layer["kernel"] == [2, 2] == layer["stride"] and layer["padding"] == [0, 0]


def _find_informative_patch(values: np.ndarray, signal: np.ndarray) -> tuple[int, int, tuple[int, float]]:
    """Find the patch of a map with signals of both signs and many different values.

    Returns row and column in the signal, and the patch's rank.
    """
    side = PATCH_SIZE // 2
    best = (0, 0, (-1, 0.0))
    for row in range(signal.shape[0] - side + 1):
        for column in range(signal.shape[1] - side + 1):
            signal_patch = _cut_square(signal, row, column, side)
            patch = _cut_square(values, 2 * row, 2 * column, PATCH_SIZE)
            if patch.shape != (PATCH_SIZE, PATCH_SIZE):
                continue
            n_values = len(np.unique(patch.round(1)))
            has_both_signs = min((signal_patch > 0).sum(), (signal_patch < 0).sum(), 1)
            rank = (int(n_values + 8 * has_both_signs), float(np.abs(signal_patch).sum()))
            if rank > best[2]:
                best = (row, column, rank)
    return best


def _cut_square(values: np.ndarray, row: int, column: int, side: int) -> np.ndarray:
    """Cut a square out of a map (H, W), smaller at its border."""
    return values[row : row + side, column : column + side]
