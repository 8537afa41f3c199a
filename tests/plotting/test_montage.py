"""Montages, pixel by pixel."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from convatlas.plotting.colormap import INFINITE_COLOUR, NAN_COLOUR, ColourScale
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


def make_image(height: int, width: int) -> np.ndarray:
    """Return random colours (H, W, 3), multiples of 1 / 255."""
    return RNG.integers(0, 256, (height, width, 3)) / 255


def assemble_slowly(rows: list[list[Tile | None]], tile_size: int) -> np.ndarray:
    """Return a montage assembled one pixel at a time: whole factors, a hairline around each tile."""
    columns = max(len(row) for row in rows)
    shape = len(rows) * (HEADER_HEIGHT + tile_size + GAP), columns * (tile_size + GAP) + GAP
    canvas = [[BACKGROUND_COLOUR] * shape[1] for _ in range(shape[0])]
    for row_index, row in enumerate(rows):
        for column, tile in enumerate(row):
            if tile is None:
                continue
            height, width, _ = tile.values.shape
            factor = 1
            while (factor + 1) * max(height, width) <= tile_size:
                factor += 1
            top = row_index * (HEADER_HEIGHT + tile_size + GAP) + HEADER_HEIGHT
            left = column * (tile_size + GAP) + GAP
            for y in range(-1, factor * height + 1):
                for x in range(-1, factor * width + 1):
                    inside = 0 <= y < factor * height and 0 <= x < factor * width
                    colour = tile.values[y // factor, x // factor] if inside else None
                    canvas[top + y][left + x] = HAIRLINE_COLOUR if colour is None else colour * 255
    return np.rint(np.array(canvas)).astype(np.uint8)


def make_tiles(*shapes: tuple[int, int] | None) -> list[Tile | None]:
    return [None if shape is None else Tile(make_image(*shape)) for shape in shapes]


@pytest.mark.parametrize(
    "rows",
    [
        [make_tiles((28, 28))],
        [make_tiles((5, 5), (3, 3)), make_tiles((1, 1), (10, 10))],
        [make_tiles((7, 3), (3, 7), (1, 40))],
        [make_tiles(None, (4, 4), None), make_tiles((4, 4)), make_tiles(None)],
        [make_tiles((39, 39), (40, 40), (21, 21))],
    ],
    ids=["one", "square", "oblong", "free places", "barely fitting"],
)
def test_every_pixel_is_in_its_place(rows: list[list[Tile | None]]) -> None:
    np.testing.assert_array_equal(assemble_montage(rows, tile_size=40).pixels, assemble_slowly(rows, 40))


def test_a_tile_larger_than_the_tile_size_widens_all_columns() -> None:
    rows = [make_tiles((10, 10), (30, 50)), make_tiles((25, 25))]
    np.testing.assert_array_equal(assemble_montage(rows, tile_size=20).pixels, assemble_slowly(rows, 50))


def test_a_montage_has_the_spans_of_its_rows() -> None:
    rows = [make_tiles((10, 10), (5, 20)), make_tiles(None), make_tiles((3, 20))]
    montage = assemble_montage(rows, tile_size=20)
    assert len(montage.row_spans) == 3
    for (top, bottom), pixels in zip(montage.row_spans, (20, 0, 3), strict=True):
        assert bottom - top == pixels
    top, bottom = montage.row_spans[0]
    np.testing.assert_array_equal(montage.pixels[top:bottom:2, GAP : GAP + 20 : 2] / 255, rows[0][0].values)


@pytest.mark.parametrize("shape", [(28, 28), (3, 7), (7, 3), (1, 112), (112, 1), (113, 5), (1, 1)])
def test_a_tile_is_never_stretched(shape: tuple[int, int]) -> None:
    pixels = Tile(np.zeros(shape), ColourScale(0, 1, "gray")).render(112)
    factors = pixels.shape[0] / shape[0], pixels.shape[1] / shape[1]
    assert factors[0] == factors[1] == int(factors[0])
    assert max(pixels.shape) <= max(112, *shape)


def test_titles_are_printed_only_in_the_header_above() -> None:
    values = make_image(28, 28)
    plain = assemble_montage([[Tile(values)], [Tile(values)]]).pixels
    labelled = assemble_montage([[Tile(values, title="0123")], [Tile(values, right_title="789")]])
    rows, columns = np.nonzero((plain != labelled.pixels).any(2))
    for n, (top, _) in enumerate(labelled.row_spans):
        in_header = (rows >= top - HEADER_HEIGHT) & (rows < top - 1)
        assert in_header.any()
        middle = GAP + 56
        assert (columns[in_header] < middle).all() if n == 0 else (columns[in_header] > middle).all()
        rows, columns = rows[~in_header], columns[~in_header]
    assert not len(rows)


def find_printed_columns(row: list[Tile | None], **layout: Any) -> np.ndarray:
    """Return the columns of pixels that have text in a montage of one row."""
    plain_row = [tile and replace(tile, title="", right_title="", note="") for tile in row]
    labelled, plain = (assemble_montage([tiles], **layout) for tiles in (row, plain_row))
    headers = [montage.pixels[: montage.row_spans[0][0] - 1] for montage in (labelled, plain)]
    return np.flatnonzero((headers[0][-len(headers[1]) :] != headers[1]).any((0, 2)))


def test_notes_have_their_own_line_above_the_titles() -> None:
    values = make_image(28, 28)
    rows = [[Tile(values, title="1")], [Tile(values, title="1", note="2"), Tile(values)], [Tile(values)]]
    montage = assemble_montage(rows)
    gaps = [b[0] - a[1] for a, b in itertools.pairwise(montage.row_spans)]
    assert gaps == [HEADER_HEIGHT + GAP + NOTE_HEIGHT, HEADER_HEIGHT + GAP]
    top = montage.row_spans[1][0]
    is_printed = (montage.pixels != BACKGROUND_COLOUR).any(2)
    assert (
        is_printed[top - HEADER_HEIGHT - NOTE_HEIGHT : top - NOTE_HEIGHT].any()
        and is_printed[top - NOTE_HEIGHT : top - 1].any()
    )
    without_notes = assemble_montage([[replace(tile, note="") for tile in row] for row in rows])
    for (top, bottom), (other, _) in zip(montage.row_spans, without_notes.row_spans, strict=True):
        tall = bottom - top + 1
        np.testing.assert_array_equal(
            montage.pixels[top - 1 : top + tall], without_notes.pixels[other - 1 : other + tall]
        )


def test_a_right_title_that_does_not_fit_extends_beyond_the_tile_and_not_over_the_title() -> None:
    small, title = make_image(57, 57), "123"
    title_end = find_printed_columns([Tile(small, title=title)]).max()
    both = find_printed_columns([Tile(small, title=title, right_title="inactive")])
    assert title_end < both[both > title_end].min() and both.max() > GAP + 57
    wide = find_printed_columns([Tile(make_image(28, 28), title=title, right_title="inactive")])
    assert wide.max() <= GAP + 112


def test_a_right_title_of_a_crossed_out_tile_does_not_reach_the_next_tile() -> None:
    for size, is_printed in ((75, False), (112, True)):
        tile = Tile(np.ones((size, size, 3)), title="123", crossed_out=True)
        plain, labelled = (
            find_printed_columns([t, None], tile_size=size)
            for t in (tile, replace(tile, right_title="inactive"))
        )
        assert (len(labelled) > len(plain)) == is_printed
        assert labelled.max() < GAP + size + GAP


def test_the_middle_of_a_long_title_is_left_out() -> None:
    name = "a-long-name-of-a-photograph"
    assert text_width(name) > 122
    assert (
        GAP + 90 < find_printed_columns([Tile(make_image(28, 28), title=name), None]).max() < GAP + 112 + GAP
    )


def test_groups_of_columns_have_a_wider_gap_before_them() -> None:
    row = make_tiles((28, 28), (28, 28), (28, 28))
    plain, grouped = assemble_montage([row]).pixels, assemble_montage([row], group_starts=(1,)).pixels
    assert grouped.shape[1] == plain.shape[1] + 2 * GAP
    cut = GAP + 112 + GAP // 2
    np.testing.assert_array_equal(np.delete(grouped, slice(cut, cut + 2 * GAP), 1), plain)


def test_a_tile_is_crossed_out_from_corner_to_corner_and_nothing_else_changes() -> None:
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


def test_an_image_is_clipped_to_0_to_1() -> None:
    values = np.array([[[-0.5, 0.0, 1.5]]])
    np.testing.assert_array_equal(Tile(values).render(1), [[[0, 0, 255]]])


def test_colouring_does_not_change_the_values() -> None:
    values = RNG.normal(size=(4, 4)).astype(np.float32)
    before = values.copy()
    assemble_montage([[Tile(values, ColourScale.from_values(values))]])
    np.testing.assert_array_equal(values, before)


def test_tiles_show_nan_and_infinity_and_the_montage_names_them() -> None:
    image = np.full((2, 2, 3), 0.5)
    image[0, 0, 1], image[1, 1, 2] = np.nan, -np.inf
    pixels = Tile(image).render(2)
    assert pixels[0].tolist() == [[*NAN_COLOUR], [128] * 3]
    assert pixels[1].tolist() == [[128] * 3, [*INFINITE_COLOUR]]
    plane = Tile(np.array([[1.0, np.nan]]), ColourScale(0, 1, "viridis"))
    assert assemble_montage([[Tile(image), plane]]).non_finite == ["NaN", "±∞"]
    assert assemble_montage([[None, plane]]).non_finite == ["NaN"]
    assert assemble_montage([[Tile(np.zeros((2, 2, 3)))]]).non_finite == []
