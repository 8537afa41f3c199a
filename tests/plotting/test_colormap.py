"""Colour scales against matplotlib's own colours, and the scales of layers."""

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import Normalize

from convatlas.plotting.colormap import (
    INFINITE_COLOUR,
    NAN_COLOUR,
    ColourScale,
    LayerScales,
    colour_table,
    find_non_finite,
    magnitude_quantile,
)


@pytest.mark.parametrize(
    ("values", "low", "high", "diverging"),
    [
        ([[-1, 3]], -3, 3, True),
        ([[-5, 3]], -5, 5, True),
        ([[-1], [4], [0.5]], -4, 4, True),
        ([[0, 2]], 0, 2, False),
        ([[1, 2]], 0, 2, False),
        ([[-2, 0]], -2, 0, False),
        ([[-2, -1]], -2, 0, False),
        ([[3, 3]], 0, 3, False),
        ([[-3, -3]], -3, 0, False),
        ([[0, 0]], 0, 1, False),
        ([[], [2]], 0, 2, False),
        ([[]], 0, 1, False),
        ([], 0, 1, False),
    ],
)
def test_a_scale_spans_from_zero_or_is_centred_on_it(
    values: list[list[float]], low: float, high: float, diverging: bool
) -> None:
    scale = ColourScale.from_values(*[np.array(array, np.float32) for array in values])
    assert (scale.low, scale.high) == (low, high)
    assert (scale.cmap != ColourScale.from_values(np.ones(1)).cmap) == diverging


def test_zero_is_the_middle_colour_of_signed_values() -> None:
    scale = ColourScale.from_values(np.array([-0.1, 7.3]))
    middle = 255 * np.array(matplotlib.colormaps[scale.cmap](0.5)[:3])
    assert np.abs(scale.to_rgb(np.zeros((1, 1)))[0, 0] - middle).max() <= 1


def test_opposite_values_are_equally_far_from_the_middle_colour() -> None:
    scale = ColourScale.from_values(np.array([-0.1, 7.3]))
    table = np.round(255 * matplotlib.colormaps[scale.cmap](np.arange(256))[:, :3])
    positions = []
    for value in (-5.0, 5.0):
        colour = scale.to_rgb(np.full((1, 1), value))[0, 0]
        positions.append(int(np.abs(table - colour).sum(1).argmin()))
    assert abs(sum(positions) - 255) <= 1
    assert positions[0] < 128 < positions[1]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("shift", "spread"), [(0, 1), (5, 1), (-5, 1), (0, 1e-12), (0, 1e20)])
def test_colours_are_matplotlibs_within_one_level(seed: int, shift: float, spread: float) -> None:
    values = spread * (np.random.default_rng(seed).normal(size=(20, 30)) + shift).astype(np.float32)
    for scale in (ColourScale.from_values(values), ColourScale.diverging(values)):
        colormap = matplotlib.colormaps[scale.cmap]
        level = np.floor(256 * Normalize(scale.low, scale.high)(values.astype(np.float64))).astype(int)
        colours = scale.to_rgb(values).astype(float)
        nearby = [255 * colormap(np.clip(level + step, 0, 255))[..., :3] for step in (-1, 0, 1)]
        assert colours.shape == (20, 30, 3)
        assert np.min([np.abs(colours - expected).max(2) for expected in nearby], axis=0).max() <= 1


def test_values_beyond_the_scale_have_the_end_colours() -> None:
    ends = ColourScale(0, 1, "viridis").to_rgb(np.array([[-9.0, 0.0, 1.0, 9.0]]))[0]
    np.testing.assert_array_equal(ends[[0, 3]], ends[[1, 2]])


@pytest.mark.parametrize(
    ("values", "max_abs"), [([1, 2], 2), ([-3, -1], 3), ([-1, 4], 4), ([0, 0], 1), ([], 1)], ids=str
)
def test_a_diverging_scale_is_centred_on_zero_whatever_the_signs(values: list[float], max_abs: float) -> None:
    scale = ColourScale.diverging(np.array(values, np.float32))
    assert (scale.low, scale.high) == (-max_abs, max_abs)
    assert scale.cmap == ColourScale.from_values(np.array([-1, 1])).cmap


LAYERS = {
    "a": [np.array([[0.0, 2.0]]), np.array([[1.0, 4.0]])],
    "b": [np.array([[0.0, 8.0]])],
}


def test_layers_have_their_own_scale_or_share_one() -> None:
    per_layer, shared = LayerScales("per_layer", LAYERS), LayerScales("shared", LAYERS)
    assert [per_layer.for_layer(layer).high for layer in LAYERS] == [4, 8]
    assert [shared.for_layer(layer).high for layer in LAYERS] == [8, 8]
    for scales in (per_layer, shared):
        for layer, arrays in LAYERS.items():
            assert {scales.for_tile(layer, array) for array in arrays} == {scales.for_layer(layer)}


@pytest.mark.parametrize("mode", ["per_tile", "per_layer", "shared"])
def test_signed_scales_are_centred_on_zero(mode: str) -> None:
    scales = LayerScales(mode, LAYERS, signed=True)
    for layer, arrays in LAYERS.items():
        for scale in (scales.for_layer(layer), *(scales.for_tile(layer, array) for array in arrays)):
            assert scale.low == -scale.high
            assert scale.cmap == ColourScale.diverging(np.ones(1)).cmap


@pytest.mark.parametrize(
    ("layer", "tile", "low", "high"),
    [
        ([0, 9], [1, 2], 0, 2),
        ([0, 9], [0, 0], 0, 1),
        ([-9, 9], [1, 2], -2, 2),
        ([-9, 9], [-3, 2], -3, 3),
        ([-9, -1], [-3, -2], -3, 0),
        ([-9, -1], [-3, -3], -3, 0),
        ([-9, 0], [-3, 0], -3, 0),
    ],
    ids=str,
)
def test_a_tile_with_its_own_scale_keeps_the_colour_of_zero(
    layer: list[float], tile: list[float], low: float, high: float
) -> None:
    scales = LayerScales("per_tile", {"a": [np.array(layer, float)]})
    scale = scales.for_tile("a", np.array(tile, float))
    assert (scale.low, scale.high, scale.cmap) == (low, high, scales.for_layer("a").cmap)


def test_zero_has_the_layers_colour_on_a_tile_of_zeros() -> None:
    """In a layer of negative values zero is bright."""
    scales = LayerScales("per_tile", {"a": [np.array([[-9.0, 0.0]])]})
    zero = np.zeros((1, 1))
    np.testing.assert_array_equal(scales.for_tile("a", zero).to_rgb(zero), scales.for_layer("a").to_rgb(zero))


def test_nan_and_infinity_have_colours_of_their_own_and_set_no_scale() -> None:
    values = np.array([[-1, np.nan, 3], [np.inf, 0.5, -np.inf]], np.float32)
    known = np.where(np.isfinite(values), values, 0)
    for scale in (ColourScale.from_values(values), ColourScale.diverging(values)):
        assert (scale.low, scale.high) == (-3, 3)
        expected = scale.to_rgb(known)
        expected[0, 1], expected[1, 0], expected[1, 2] = NAN_COLOUR, INFINITE_COLOUR, INFINITE_COLOUR
        np.testing.assert_array_equal(scale.to_rgb(values), expected)
    assert ColourScale.from_values(np.full(3, np.nan)) == ColourScale(0, 1, "viridis")
    tables = np.concatenate([colour_table(name) for name in ("viridis", "RdBu_r", "gray")]).astype(int)
    for colour in (NAN_COLOUR, INFINITE_COLOUR):
        assert np.abs(tables - colour).max(1).min() > 60  # no colour map comes near
    assert find_non_finite(values) == ["NaN", "±∞"] and find_non_finite(known) == []
    tile = np.array([[np.nan, 2.0]])
    assert LayerScales("per_tile", {"a": [tile]}).for_tile("a", tile).high == 2
    assert LayerScales("per_tile", {"a": [-tile]}).for_tile("a", tile * np.nan).low == -1


def test_the_quantile_of_magnitudes_ignores_zeros_and_values_that_are_not_finite() -> None:
    values = np.concatenate([np.zeros(500), np.arange(1, 102), -np.arange(1, 102)])
    assert magnitude_quantile(values) == np.quantile(np.arange(1, 102).repeat(2), 0.99)
    assert magnitude_quantile(np.append(values, [np.nan, np.inf, -np.inf])) == magnitude_quantile(values)
    assert magnitude_quantile(values, 0.5) == 51
    assert magnitude_quantile(np.zeros(3)) == magnitude_quantile(np.array([])) == 0
