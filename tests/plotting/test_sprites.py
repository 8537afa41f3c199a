"""Sprites: tiles on sheets, and values as greys."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convatlas.plotting import sprites
from tests.support.sprite_sheets import cut_tiles, read_pixels

TILE_SHAPE = (13, 7)  # not square, so that a transposed tile is noticed


# Layout


@pytest.mark.parametrize("count", [1, 2, 3, 8, 64, 2048])
@pytest.mark.parametrize("tile", [(1, 1), TILE_SHAPE, (112, 112), (1, 768), (4096, 4096), (600, 4000)])
def test_no_sheet_is_larger_than_allowed_and_every_tile_has_a_place(
    count: int, tile: tuple[int, int]
) -> None:
    layout = sprites.compute_sheet_layout(count, *tile)
    assert layout.columns * tile[1] <= 4096
    assert layout.rows * tile[0] <= 4096
    tiles_per_sheet = layout.columns * layout.rows
    assert tiles_per_sheet * (layout.sheets - 1) < count <= tiles_per_sheet * layout.sheets


@pytest.mark.parametrize(("count", "tile"), [(2048, (7, 7)), (64, (112, 112)), (3872, (1, 1))])
def test_a_layer_of_many_units_is_one_nearly_square_sheet(count: int, tile: tuple[int, int]) -> None:
    layout = sprites.compute_sheet_layout(count, *tile)
    assert layout.sheets == 1
    assert 0.8 < (layout.columns * tile[1]) / (layout.rows * tile[0]) < 1.25


def test_a_tile_larger_than_a_sheet_is_refused() -> None:
    with pytest.raises(ValueError, match="4097"):
        sprites.compute_sheet_layout(1, 4097, 10)


@pytest.mark.parametrize("colours", [(), (3,)])
@pytest.mark.parametrize("count", [1, 5, 23])
def test_tiles_have_their_places_by_number(tmp_path: Path, count: int, colours: tuple[int, ...]) -> None:
    tiles = np.random.default_rng(count).integers(0, 256, (count, *TILE_SHAPE, *colours)).astype(np.uint8)
    for layout in (
        sprites.compute_sheet_layout(count, *TILE_SHAPE),
        sprites.SheetLayout(2, 3, math.ceil(count / 6)),
    ):
        suffix = sprites.write_sheets(tmp_path / "a", tiles, layout)
        described_layout = {"tile_size": TILE_SHAPE, "suffix": suffix} | vars(layout)
        np.testing.assert_array_equal(cut_tiles(tmp_path / "a", described_layout, count), tiles)


def test_further_sheets_are_as_large_as_the_first_and_black_where_free(tmp_path: Path) -> None:
    sprites.write_sheets(tmp_path / "a", np.full((5, 3, 2), 9, np.uint8), sprites.SheetLayout(2, 2, 2))
    first, second = (read_pixels(tmp_path / name) for name in ("a.png", "a.2.png"))
    assert first.shape == second.shape == (6, 4)
    assert (first == 9).all()
    assert (second[:3, :2] == 9).all()
    assert second.sum() == 9 * 6


# Files


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (40, 31), (40, 31, 3), (1, 1, 3)])
@pytest.mark.parametrize("content", ["noise", "slopes", "few", "one"])
def test_a_sheet_reads_as_what_was_written(tmp_path: Path, shape: tuple[int, ...], content: str) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, shape).astype(np.uint8)
    slopes = (np.add.outer(np.arange(shape[0]), np.arange(shape[1])) * 3 % 251).astype(np.uint8)
    slopes = slopes if len(shape) == 2 else slopes[..., None].repeat(3, -1)
    pixels = {"noise": noise, "slopes": slopes, "few": noise // 64 * 85, "one": 0 * noise + 7}[content]
    (tmp_path / "a").write_bytes((sprites.encode_webp if pixels.ndim == 3 else sprites.encode_png)(pixels))
    with Image.open(tmp_path / "a") as image:
        image.verify()
    np.testing.assert_array_equal(read_pixels(tmp_path / "a"), pixels)


def test_a_png_is_smaller_than_pillows(tmp_path: Path) -> None:
    """Of smooth maps, and of weights, which are noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:300, :300]
    smooth = np.sin(x / 20) + np.cos(y / 13) + rng.normal(0, 0.05, (300, 300))
    for values in (smooth, rng.normal(size=(300, 300))):
        pixels = sprites.quantize_maps(values[None], 64).tiles[0]
        Image.fromarray(pixels).save(tmp_path / "a.png")
        assert len(sprites.encode_png(pixels)) < 0.95 * (tmp_path / "a.png").stat().st_size


# Names


def test_slugs_are_safe_and_unique() -> None:
    names = ["layer1.0/add", "layer1.0.add", "relu:2", "relu-2", "Relu-2", "../x", "<img onerror=1>", "écran",
             "层", "a" * 300, "a" * 299 + "b", "", "con v\n", "layer1-0-add-2"]  # fmt: skip
    slugs = sprites.make_unique_slugs(names)
    assert len({slug.lower() for slug in slugs}) == len(names)
    for slug in slugs:
        assert slug.replace("-", "").replace("_", "").isalnum()
        assert slug.isascii()
        assert len(slug) <= 110


# Values


@pytest.mark.parametrize("levels", [2, 3, 16, 64, 256])
@pytest.mark.parametrize("scale", [1, 1e-30, 1e30, 3e38])
def test_a_grey_has_its_value_to_half_a_step(levels: int, scale: float) -> None:
    values = (scale * np.random.default_rng(0).uniform(-1, 1, (20, *TILE_SHAPE))).astype(np.float32)
    maps = sprites.quantize_maps(values, levels)
    low, high = (end[:, None, None].astype(np.float64) for end in (maps.low, maps.high))
    np.testing.assert_array_equal(maps.low, values.min((1, 2)))
    np.testing.assert_array_equal(maps.high, values.max((1, 2)))
    step = (high - low) / (levels - 1)
    rounding = (high - low) * 0.5 / 255  # of the grey itself
    decoded = low + maps.tiles / 255 * (high - low)
    assert (abs(decoded - values) <= (step / 2 + rounding) * 1.0001).all()
    assert len(np.unique(maps.tiles)) == levels
    assert maps.tiles.min() == 0
    assert maps.tiles.max() == 255


def test_each_unit_has_its_own_scale_and_a_constant_unit_is_black() -> None:
    values = np.stack(
        [
            np.full(TILE_SHAPE, 5),
            np.zeros(TILE_SHAPE),
            np.arange(91).reshape(TILE_SHAPE),
            -np.ones(TILE_SHAPE),
        ]
    )
    maps = sprites.quantize_maps(values.astype(np.float32), 64)
    assert (maps.tiles[[0, 1, 3]] == 0).all()
    assert maps.tiles[2].max() == 255
    assert maps.low.tolist() == [5, 0, 0, -1]
    assert maps.high.tolist() == [5, 0, 90, -1]
    assert maps.mean.tolist() == [5, 0, 45, -1]
    assert maps.zero_fraction.tolist() == [0, 1, 1 / 91, 0]


def test_values_that_are_not_finite_are_marked_and_do_not_count(tmp_path: Path) -> None:
    rows = [[1, 3, np.nan], [2, np.inf, -np.inf], [np.nan, np.nan, np.inf], [0, 2, 4]]
    values = np.array(rows, np.float32)[:, None]
    maps = sprites.quantize_maps(values, 3)
    np.testing.assert_array_equal(maps.low, [1, 2, np.nan, 0])
    np.testing.assert_array_equal(maps.high, [3, 2, np.nan, 4])
    np.testing.assert_array_equal(maps.mean, [np.nan, np.nan, np.nan, 2])
    assert maps.zero_fraction.tolist() == [0, 0, 0, 1 / 3]
    assert maps.tiles[:, 0].tolist() == [[0, 255, 0], [0, 0, 0], [0, 0, 0], [0, 128, 255]]
    np.testing.assert_array_equal(maps.non_finite, ~np.isfinite(values))
    assert sprites.quantize_maps(values[3:], 3).non_finite is None

    layout = sprites.compute_sheet_layout(4, 1, 3)
    sprites.write_marks(tmp_path / "a", maps.non_finite, layout)
    (sheet,) = sprites.assemble_sheets(maps.non_finite.astype(np.uint8), layout)
    image = Image.open(tmp_path / "a.nan.png").convert("RGBA")
    np.testing.assert_array_equal(np.asarray(image)[..., 3], 255 * sheet)


@pytest.mark.parametrize(("shape", "as_rgb"), [((3, 12, 3, 3), False), ((3, 3, 4, 4), True)])
def test_filters_mark_the_weights_that_are_not_finite(shape: tuple[int, ...], as_rgb: bool) -> None:
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert sprites.make_filter_tiles(weight, 64, as_rgb).non_finite is None
    weight[1].flat[7 % weight[1].size], weight[2].flat[0] = np.nan, np.inf
    tiles = sprites.make_filter_tiles(weight, 64, as_rgb)
    assert tiles.non_finite.shape == tiles.tiles.shape[:3]
    assert tiles.non_finite.sum((1, 2)).tolist() == [0, 1, 1]
    assert np.isfinite(tiles.max_abs).all() and tiles.max_abs[1] > 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, bool])
def test_values_of_any_kind_of_number(dtype: type) -> None:
    values = np.array([[[0, 1]], [[1, 0]]]).astype(dtype)
    assert sprites.quantize_maps(values, 64).tiles.tolist() == [[[0, 255]], [[255, 0]]]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((), (1, 1, 1)), ((5,), (5, 1, 1)), ((4, 6), (4, 1, 6)), ((3, 2, 5), (3, 2, 5))],
)
def test_values_without_spatial_axes_are_tiles_of_one_pixel(
    shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert sprites.to_planes(np.zeros(shape)).shape == expected


@pytest.mark.parametrize("levels", [2, 3, 16, 64, 256])
def test_zero_has_one_grey_in_signed_tiles(levels: int) -> None:
    values = np.random.default_rng(0).normal(size=(6, *TILE_SHAPE)).astype(np.float32)
    values[0] = 0
    values[1] = abs(values[1])
    tiles, ends = sprites.quantize_signed(values, levels)
    np.testing.assert_allclose(ends, abs(values).max((1, 2)))
    assert (tiles[0] == sprites.ZERO_GREY).all()
    assert tiles[1].min() >= sprites.ZERO_GREY
    side = max(1, levels // 4)
    decoded = (tiles.astype(float) - sprites.ZERO_GREY) / 127 * ends[:, None, None]
    allowed = ends * (0.5 / side + 0.5 / 127)
    assert (abs(decoded - values) <= 1.0001 * allowed[:, None, None]).all()
    assert len(np.unique(tiles)) <= 2 * side + 1
    np.testing.assert_array_equal(sprites.quantize_signed(-values, levels)[0], 256 - tiles.astype(int))


def test_outliers_do_not_set_the_scale() -> None:
    values = np.zeros((1, 1, 1000))
    values[0, 0, :100] = 1
    values[0, 0, 0] = 100
    tiles, ends = sprites.quantize_signed(values, 64, quantile=0.98)
    assert ends.tolist() == [1]
    assert set(tiles[0, 0, :100].tolist()) == {255}


def test_numbers_are_rounded_to_six_digits_and_short() -> None:
    rounded = sprites.round_significant(np.array([1 / 3, 123456789.0, 0, -1e-9]))
    assert json.dumps(rounded) == "[0.333333, 123457000, 0, -1e-09]"
    assert sprites.round_significant(np.array([1 / 3]), 2) == [0.33]
    assert sprites.round_significant(np.array([np.nan, np.inf, 1.0])) == [None, None, 1]


# Filters


def test_rgb_filters_are_grey_at_zero() -> None:
    weight = np.random.default_rng(0).normal(size=(4, 3, 5, 7)).astype(np.float32)
    filters = sprites.make_filter_tiles(weight, 508, as_rgb=True)
    assert filters.tiles.shape == (4, 5, 7, 3)
    assert filters.channels is None
    decoded = (filters.tiles.astype(float) - 128) / 127 * filters.max_abs[:, None, None, None]
    np.testing.assert_allclose(decoded.transpose(0, 3, 1, 2), weight, atol=filters.max_abs.max() / 127)


def test_a_filter_of_one_channel_is_its_kernel() -> None:
    weight = np.array([[[[-2.0, 0, 1]]]])
    assert sprites.make_filter_tiles(weight, 8).tiles.tolist() == [[[1, 128, 192]]]


def test_of_many_channels_those_of_largest_norm_are_drawn() -> None:
    """Nine of each unit, in the order of channels, separated by a pixel of zero."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(5, 20, 3, 2)).astype(np.float32)
    filters = sprites.make_filter_tiles(weight, 508)
    assert filters.tiles.shape == (5, 3 * 3 + 2, 3 * 2 + 2)
    for unit in range(5):
        norms = [np.linalg.norm(kernel) for kernel in weight[unit]]
        largest = sorted(sorted(range(20), key=lambda c, norms=norms: -norms[c])[:9])
        assert filters.channels[unit].tolist() == largest
        for n, channel in enumerate(largest):
            row, column = divmod(n, 3)
            part = filters.tiles[unit, 4 * row : 4 * row + 3, 3 * column : 3 * column + 2].astype(float)
            decoded = (part - 128) / 127 * filters.max_abs[unit]
            np.testing.assert_allclose(decoded, weight[unit, channel], atol=filters.max_abs[unit] / 127)
        assert (filters.tiles[unit, 3::4] == 128).all()
        assert (filters.tiles[unit, :, 2::3] == 128).all()


def test_few_channels_are_all_shown() -> None:
    filters = sprites.make_filter_tiles(np.ones((2, 5, 3, 3)), 64)
    assert filters.channels is None
    assert filters.tiles.shape == (2, 2 * 3 + 1, 3 * 3 + 2)
    assert (filters.tiles[:, 4:, 8:] == 128).all()  # a free place


@pytest.mark.parametrize(
    "shape", [(40, 25), (20, 51, 1, 1), (4, 3, 3), (4, 3, 3, 3, 3), (0, 5), (5, 0, 3, 3)]
)
def test_filters_that_are_not_drawn(shape: tuple[int, ...]) -> None:
    """Those of one pixel, of one or three axes, and of no weights."""
    assert sprites.make_filter_tiles(np.broadcast_to(np.float32(1), shape), 64) is None
