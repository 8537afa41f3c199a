"""Montages, pixel by pixel, and colour scales against matplotlib's own."""

import itertools
from dataclasses import replace
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import Normalize

from convatlas.plotting.colormap import ColourScale, LayerScales
from convatlas.plotting.montage import (
    BACKGROUND_COLOUR,
    GAP,
    HAIRLINE_COLOUR,
    HEADER_HEIGHT,
    NOTE_HEIGHT,
    Tile,
    assemble_montage,
    text_width,
)

RNG = np.random.default_rng(0)


def picture(height: int, width: int) -> np.ndarray:
    """Random colours (H, W, 3), whole 255ths."""
    return RNG.integers(0, 256, (height, width, 3)) / 255


def brute_force(lines: list[list[Tile | None]], edge: int) -> np.ndarray:
    """Lay tiles on paper one pixel at a time: whole factors, a hairline around, paper elsewhere."""
    columns = max(len(line) for line in lines)
    shape = len(lines) * (HEADER_HEIGHT + edge + GAP), columns * (edge + GAP) + GAP
    canvas = [[BACKGROUND_COLOUR] * shape[1] for _ in range(shape[0])]
    for row, line in enumerate(lines):
        for column, tile in enumerate(line):
            if tile is None:
                continue
            height, width, _ = tile.values.shape
            factor = 1
            while (factor + 1) * max(height, width) <= edge:
                factor += 1
            top = row * (HEADER_HEIGHT + edge + GAP) + HEADER_HEIGHT
            left = column * (edge + GAP) + GAP
            for y in range(-1, factor * height + 1):
                for x in range(-1, factor * width + 1):
                    inside = 0 <= y < factor * height and 0 <= x < factor * width
                    colour = tile.values[y // factor, x // factor] if inside else None
                    canvas[top + y][left + x] = HAIRLINE_COLOUR if colour is None else colour * 255
    return np.rint(np.array(canvas)).astype(np.uint8)


def tiles(*shapes: tuple[int, int] | None) -> list[Tile | None]:
    return [None if shape is None else Tile(picture(*shape)) for shape in shapes]


@pytest.mark.parametrize(
    "lines",
    [
        [tiles((28, 28))],
        [tiles((5, 5), (3, 3)), tiles((1, 1), (10, 10))],
        [tiles((7, 3), (3, 7), (1, 40))],
        [tiles(None, (4, 4), None), tiles((4, 4)), tiles(None)],
        [tiles((39, 39), (40, 40), (21, 21))],
    ],
    ids=["one", "square", "oblong", "free places", "barely fitting"],
)
def test_every_pixel_is_where_it_belongs(lines: list[list[Tile | None]]) -> None:
    np.testing.assert_array_equal(assemble_montage(lines, tile_size=40).pixels, brute_force(lines, 40))


def test_a_tile_larger_than_the_edge_widens_all_cells() -> None:
    lines = [tiles((10, 10), (30, 50)), tiles((25, 25))]
    np.testing.assert_array_equal(assemble_montage(lines, tile_size=20).pixels, brute_force(lines, 50))


def test_lines_tell_where_the_tiles_lie() -> None:
    lines = [tiles((10, 10), (5, 20)), tiles(None), tiles((3, 20))]
    montage = assemble_montage(lines, tile_size=20)
    assert len(montage.row_spans) == 3
    for (top, bottom), pixels in zip(montage.row_spans, (20, 0, 3), strict=True):
        assert bottom - top == pixels
    top, bottom = montage.row_spans[0]
    np.testing.assert_array_equal(montage.pixels[top:bottom:2, GAP : GAP + 20 : 2] / 255, lines[0][0].values)


@pytest.mark.parametrize("shape", [(28, 28), (3, 7), (7, 3), (1, 112), (112, 1), (113, 5), (1, 1)])
def test_a_tile_is_never_stretched(shape: tuple[int, int]) -> None:
    pixels = Tile(np.zeros(shape), ColourScale(0, 1, "gray")).render(112)
    factors = pixels.shape[0] / shape[0], pixels.shape[1] / shape[1]
    assert factors[0] == factors[1] == int(factors[0])
    assert max(pixels.shape) <= max(112, *shape)


def test_numbers_and_marks_are_printed_in_the_strip_above_only() -> None:
    values = picture(28, 28)
    plain = assemble_montage([[Tile(values)], [Tile(values)]]).pixels
    noted = assemble_montage([[Tile(values, title="0123")], [Tile(values, right_title="789")]])
    rows, columns = np.nonzero((plain != noted.pixels).any(2))
    for n, (top, _) in enumerate(noted.row_spans):
        here = (rows >= top - HEADER_HEIGHT) & (rows < top - 1)
        assert here.any()
        middle = GAP + 56
        assert (columns[here] < middle).all() if n == 0 else (columns[here] > middle).all()
        rows, columns = rows[~here], columns[~here]
    assert not len(rows)


def printed(line: list[Tile | None], **layout: Any) -> np.ndarray:
    """The columns of pixels that have words in a montage of one line."""
    bare = [tile and replace(tile, title="", right_title="", note="") for tile in line]
    noted, plain = (assemble_montage([tiles], **layout) for tiles in (line, bare))
    strips = [montage.pixels[: montage.row_spans[0][0] - 1] for montage in (noted, plain)]
    return np.flatnonzero((strips[0][-len(strips[1]) :] != strips[1]).any((0, 2)))


def test_notes_have_a_line_of_their_own_above_the_numbers() -> None:
    values = picture(28, 28)
    lines = [[Tile(values, title="1")], [Tile(values, title="1", note="2"), Tile(values)], [Tile(values)]]
    montage = assemble_montage(lines)
    gaps = [b[0] - a[1] for a, b in itertools.pairwise(montage.row_spans)]
    assert gaps == [HEADER_HEIGHT + GAP + NOTE_HEIGHT, HEADER_HEIGHT + GAP]
    top = montage.row_spans[1][0]
    above = (montage.pixels != BACKGROUND_COLOUR).any(2)
    assert (
        above[top - HEADER_HEIGHT - NOTE_HEIGHT : top - NOTE_HEIGHT].any()
        and above[top - NOTE_HEIGHT : top - 1].any()
    )
    bare = assemble_montage([[replace(tile, note="") for tile in line] for line in lines])
    for (top, bottom), (other, _) in zip(montage.row_spans, bare.row_spans, strict=True):
        tall = bottom - top + 1
        np.testing.assert_array_equal(
            montage.pixels[top - 1 : top + tall], bare.pixels[other - 1 : other + tall]
        )


def test_a_mark_that_does_not_fit_goes_on_past_the_tile_and_not_over_the_number() -> None:
    small, number = picture(57, 57), "123"
    last = printed([Tile(small, title=number)]).max()
    both = printed([Tile(small, title=number, right_title="dead")])
    assert last < both[both > last].min() and both.max() > GAP + 57
    wide = printed([Tile(picture(28, 28), title=number, right_title="dead")])
    assert wide.max() <= GAP + 112


def test_a_long_name_loses_its_middle_before_it_reaches_the_next_tile() -> None:
    name = "a-long-name-of-a-photograph"
    assert text_width(name) > 122
    assert GAP + 90 < printed([Tile(picture(28, 28), title=name), None]).max() < GAP + 112 + GAP


def test_columns_apart_have_a_wider_gap_before_them() -> None:
    line = tiles((28, 28), (28, 28), (28, 28))
    plain, apart = assemble_montage([line]).pixels, assemble_montage([line], group_starts=(1,)).pixels
    assert apart.shape[1] == plain.shape[1] + 2 * GAP
    cut = GAP + 112 + GAP // 2
    np.testing.assert_array_equal(np.delete(apart, slice(cut, cut + 2 * GAP), 1), plain)


def test_a_crossed_tile_is_struck_out_from_corner_to_corner_and_nothing_else_changes() -> None:
    values = np.ones((28, 28, 3))
    plain = assemble_montage([[Tile(values), Tile(values)]])
    crossed = assemble_montage([[Tile(values, crossed_out=True), Tile(values)]])
    changed = (plain.pixels != crossed.pixels).any(2)
    assert (crossed.pixels[changed] == HAIRLINE_COLOUR).all()
    top, bottom = crossed.row_spans[0]
    tile = changed[top:bottom, GAP : GAP + 112]
    assert tile.sum() == changed.sum()
    assert tile.any(0).all()
    assert tile.any(1).all()
    for n in range(112):
        assert abs(np.flatnonzero(tile[n]) - (111 - n)).max() <= 2


def test_values_outside_0_to_1_are_clipped_in_a_colour_tile() -> None:
    values = np.array([[[-0.5, 0.0, 1.5]]])
    np.testing.assert_array_equal(Tile(values).render(1), [[[0, 0, 255]]])


# Scales


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
    places = []
    for value in (-5.0, 5.0):
        colour = scale.to_rgb(np.full((1, 1), value))[0, 0]
        places.append(int(np.abs(table - colour).sum(1).argmin()))
    assert abs(sum(places) - 255) <= 1
    assert places[0] < 128 < places[1]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("shift", "spread"), [(0, 1), (5, 1), (-5, 1), (0, 1e-12), (0, 1e20)])
def test_colours_are_matplotlibs_within_one_level(seed: int, shift: float, spread: float) -> None:
    values = spread * (np.random.default_rng(seed).normal(size=(20, 30)) + shift).astype(np.float32)
    for scale in (ColourScale.from_values(values), ColourScale.diverging(values)):
        colormap = matplotlib.colormaps[scale.cmap]
        level = np.floor(256 * Normalize(scale.low, scale.high)(values.astype(np.float64))).astype(int)
        found = scale.to_rgb(values).astype(float)
        nearby = [255 * colormap(np.clip(level + step, 0, 255))[..., :3] for step in (-1, 0, 1)]
        assert found.shape == (20, 30, 3)
        assert np.min([np.abs(found - colours).max(2) for colours in nearby], axis=0).max() <= 1


def test_values_beyond_the_scale_take_the_end_colours() -> None:
    ends = ColourScale(0, 1, "viridis").to_rgb(np.array([[-9.0, 0.0, 1.0, 9.0]]))[0]
    np.testing.assert_array_equal(ends[[0, 3]], ends[[1, 2]])


@pytest.mark.parametrize(
    ("values", "most"), [([1, 2], 2), ([-3, -1], 3), ([-1, 4], 4), ([0, 0], 1), ([], 1)], ids=str
)
def test_a_diverging_scale_is_centred_on_zero_whatever_the_signs(values: list[float], most: float) -> None:
    scale = ColourScale.diverging(np.array(values, np.float32))
    assert (scale.low, scale.high) == (-most, most)
    assert scale.cmap == ColourScale.from_values(np.array([-1, 1])).cmap


LAYERS = {
    "a": [np.array([[0.0, 2.0]]), np.array([[1.0, 4.0]])],
    "b": [np.array([[0.0, 8.0]])],
}


def test_layers_have_a_scale_each_or_share_one_over_all_their_arrays() -> None:
    each, shared = LayerScales("per_layer", LAYERS), LayerScales("shared", LAYERS)
    assert [each.for_layer(layer).high for layer in LAYERS] == [4, 8]
    assert [shared.for_layer(layer).high for layer in LAYERS] == [8, 8]
    for scales in (each, shared):
        for layer, arrays in LAYERS.items():
            assert {scales.for_tile(layer, array) for array in arrays} == {scales.for_layer(layer)}


@pytest.mark.parametrize("choice", ["per_tile", "per_layer", "shared"])
def test_what_is_signed_by_nature_is_centred_on_zero(choice: str) -> None:
    scales = LayerScales(choice, LAYERS, signed=True)
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
def test_a_tile_of_its_own_scale_keeps_zeros_colour(
    layer: list[float], tile: list[float], low: float, high: float
) -> None:
    scales = LayerScales("per_tile", {"a": [np.array(layer, float)]})
    scale = scales.for_tile("a", np.array(tile, float))
    assert (scale.low, scale.high, scale.cmap) == (low, high, scales.for_layer("a").cmap)


def test_zero_has_the_layers_colour_on_a_tile_that_is_zero_throughout() -> None:
    """Where a layer's values are negative, bright is zero."""
    scales = LayerScales("per_tile", {"a": [np.array([[-9.0, 0.0]])]})
    zero = np.zeros((1, 1))
    np.testing.assert_array_equal(scales.for_tile("a", zero).to_rgb(zero), scales.for_layer("a").to_rgb(zero))


def test_colouring_does_not_change_the_values() -> None:
    values = RNG.normal(size=(4, 4)).astype(np.float32)
    before = values.copy()
    assemble_montage([[Tile(values, ColourScale.from_values(values))]])
    np.testing.assert_array_equal(values, before)
