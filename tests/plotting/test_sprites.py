"""Sprites: tiles on sheets, values in steps of grey, and the stage that draws them from the records."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convatlas import UserError
from convatlas.files import Npz, read_json
from convatlas.gallery import explorer_sprites
from convatlas.gallery.explorer_data import format_units_script
from convatlas.plotting import sprites
from tests.support.fake_results import FLAT, SPATIAL, VIEWS, FakeResults, make_layer, make_results
from tests.support.workspace import ROOT, read_files

ODD = (13, 7)  # a tile that is not square, so that nothing can be turned unnoticed


def pixels_of(path: Path) -> np.ndarray:
    """A picture as any program reads it: greys, out of its palette, or colours."""
    picture = Image.open(path)
    return np.asarray(picture if picture.mode == "RGB" else picture.convert("L"))


def tiles_of(path: Path, placed: dict[str, Any], count: int) -> np.ndarray:
    """Cut `count` tiles out of a sheet and those that follow it, as the page does: by number."""
    height, width = placed["tile"]
    found = []
    for n in range(count):
        number, place = divmod(n, placed["columns"] * placed["rows"])
        name = path.name if number == 0 else f"{path.name}.{number + 1}"
        sheet = path.with_name(f"{name}.{placed['suffix']}")
        row, column = divmod(place, placed["columns"])
        pixels = pixels_of(sheet)
        found.append(pixels[row * height : (row + 1) * height, column * width : (column + 1) * width])
    return np.stack(found)


# Layout


@pytest.mark.parametrize("count", [1, 2, 3, 8, 64, 2048])
@pytest.mark.parametrize("tile", [(1, 1), ODD, (112, 112), (1, 768), (4096, 4096), (600, 4000)])
def test_no_sheet_is_larger_than_allowed_and_every_tile_has_a_place(
    count: int, tile: tuple[int, int]
) -> None:
    places = sprites.compute_sheet_layout(count, *tile)
    assert places.columns * tile[1] <= 4096
    assert places.rows * tile[0] <= 4096
    each = places.columns * places.rows
    assert each * (places.sheets - 1) < count <= each * places.sheets


@pytest.mark.parametrize(("count", "tile"), [(2048, (7, 7)), (64, (112, 112)), (3872, (1, 1))])
def test_a_layer_of_many_units_is_one_sheet_near_square(count: int, tile: tuple[int, int]) -> None:
    places = sprites.compute_sheet_layout(count, *tile)
    assert places.sheets == 1
    assert 0.8 < (places.columns * tile[1]) / (places.rows * tile[0]) < 1.25


def test_a_tile_larger_than_a_sheet_is_refused() -> None:
    with pytest.raises(ValueError, match="4097"):
        sprites.compute_sheet_layout(1, 4097, 10)


@pytest.mark.parametrize("colours", [(), (3,)])
@pytest.mark.parametrize("count", [1, 5, 23])
def test_tiles_are_found_again_by_their_number(tmp_path: Path, count: int, colours: tuple[int, ...]) -> None:
    tiles = np.random.default_rng(count).integers(0, 256, (count, *ODD, *colours)).astype(np.uint8)
    for places in (
        sprites.compute_sheet_layout(count, *ODD),
        sprites.SheetLayout(2, 3, math.ceil(count / 6)),
    ):
        suffix = sprites.write_sheets(tmp_path / "a", tiles, places)
        placed = {"tile": ODD, "suffix": suffix} | vars(places)
        np.testing.assert_array_equal(tiles_of(tmp_path / "a", placed, count), tiles)


def test_further_sheets_are_as_large_as_the_first_and_black_where_free(tmp_path: Path) -> None:
    sprites.write_sheets(tmp_path / "a", np.full((5, 3, 2), 9, np.uint8), sprites.SheetLayout(2, 2, 2))
    first, second = (pixels_of(tmp_path / name) for name in ("a.png", "a.2.png"))
    assert first.shape == second.shape == (6, 4)
    assert (first == 9).all()
    assert (second[:3, :2] == 9).all()
    assert second.sum() == 9 * 6


# Files


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (40, 31), (40, 31, 3), (1, 1, 3)])
@pytest.mark.parametrize("made_of", ["noise", "slopes", "few", "one"])
def test_a_sheet_reads_as_what_was_written(tmp_path: Path, shape: tuple[int, ...], made_of: str) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, shape).astype(np.uint8)
    slopes = (np.add.outer(np.arange(shape[0]), np.arange(shape[1])) * 3 % 251).astype(np.uint8)
    slopes = slopes if len(shape) == 2 else slopes[..., None].repeat(3, -1)
    pixels = {"noise": noise, "slopes": slopes, "few": noise // 64 * 85, "one": 0 * noise + 7}[made_of]
    (tmp_path / "a").write_bytes((sprites.encode_webp if pixels.ndim == 3 else sprites.encode_png)(pixels))
    with Image.open(tmp_path / "a") as picture:
        picture.verify()
    np.testing.assert_array_equal(pixels_of(tmp_path / "a"), pixels)


def test_what_is_predicted_is_smaller_than_pillow_makes_it(tmp_path: Path) -> None:
    """Smooth maps, and weights, which are noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:300, :300]
    smooth = np.sin(x / 20) + np.cos(y / 13) + rng.normal(0, 0.05, (300, 300))
    for values in (smooth, rng.normal(size=(300, 300))):
        pixels = sprites.quantize_maps(values[None], 64).tiles[0]
        Image.fromarray(pixels).save(tmp_path / "a.png")
        assert len(sprites.encode_png(pixels)) < 0.95 * (tmp_path / "a.png").stat().st_size


# Names


def test_slugs_are_safe_and_each_there_once() -> None:
    names = ["layer1.0/add", "layer1.0.add", "relu:2", "relu-2", "Relu-2", "../x", "<img onerror=1>", "écran",
             "层", "a" * 300, "a" * 299 + "b", "", "con v\n", "layer1-0-add-2"]  # fmt: skip
    found = sprites.make_unique_slugs(names)
    assert len({slug.lower() for slug in found}) == len(names)
    for slug in found:
        assert slug.replace("-", "").replace("_", "").isalnum()
        assert slug.isascii()
        assert len(slug) <= 110


# Values


@pytest.mark.parametrize("levels", [2, 3, 16, 64, 256])
@pytest.mark.parametrize("scale", [1, 1e-30, 1e30, 3e38])
def test_a_grey_tells_its_value_to_half_a_step(levels: int, scale: float) -> None:
    values = (scale * np.random.default_rng(0).uniform(-1, 1, (20, *ODD))).astype(np.float32)
    maps = sprites.quantize_maps(values, levels)
    low, high = (end[:, None, None].astype(np.float64) for end in (maps.low, maps.high))
    np.testing.assert_array_equal(maps.low, values.min((1, 2)))
    np.testing.assert_array_equal(maps.high, values.max((1, 2)))
    step = (high - low) / (levels - 1)
    rounding = (high - low) * 0.5 / 255  # of the grey itself
    told = low + maps.tiles / 255 * (high - low)
    assert (abs(told - values) <= (step / 2 + rounding) * 1.0001).all()
    assert len(np.unique(maps.tiles)) == levels
    assert maps.tiles.min() == 0
    assert maps.tiles.max() == 255


def test_each_unit_has_its_own_scale_and_a_constant_one_is_black() -> None:
    values = np.stack([np.full(ODD, 5), np.zeros(ODD), np.arange(91).reshape(ODD), -np.ones(ODD)])
    maps = sprites.quantize_maps(values.astype(np.float32), 64)
    assert (maps.tiles[[0, 1, 3]] == 0).all()
    assert maps.tiles[2].max() == 255
    assert maps.low.tolist() == [5, 0, 0, -1]
    assert maps.high.tolist() == [5, 0, 90, -1]
    assert maps.mean.tolist() == [5, 0, 45, -1]
    assert maps.zero_fraction.tolist() == [0, 1, 1 / 91, 0]


def test_what_is_not_finite_counts_for_nothing_and_is_drawn_at_an_end() -> None:
    values = np.array([[1, 3, np.nan], [2, np.inf, -np.inf], [np.nan, np.nan, np.inf]], np.float32)[:, None]
    maps = sprites.quantize_maps(values, 3)
    assert maps.low.tolist() == [1, 2, 0]
    assert maps.high.tolist() == [3, 2, 0]
    assert maps.mean.tolist() == [2, 2, 0]
    assert maps.tiles[0].tolist() == [[0, 255, 0]]
    assert np.isfinite([maps.low, maps.high, maps.mean, maps.zero_fraction]).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, bool])
def test_values_of_any_kind_of_number(dtype: type) -> None:
    values = np.array([[[0, 1]], [[1, 0]]]).astype(dtype)
    assert sprites.quantize_maps(values, 64).tiles.tolist() == [[[0, 255]], [[255, 0]]]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((), (1, 1, 1)), ((5,), (5, 1, 1)), ((4, 6), (4, 1, 6)), ((3, 2, 5), (3, 2, 5))],
)
def test_values_without_a_place_are_tiles_of_one_pixel(
    shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert sprites.to_planes(np.zeros(shape)).shape == expected


@pytest.mark.parametrize("levels", [2, 3, 16, 64, 256])
def test_signed_values_lie_about_a_grey_that_is_zero(levels: int) -> None:
    values = np.random.default_rng(0).normal(size=(6, *ODD)).astype(np.float32)
    values[0] = 0
    values[1] = abs(values[1])
    tiles, ends = sprites.quantize_signed(values, levels)
    np.testing.assert_allclose(ends, abs(values).max((1, 2)))
    assert (tiles[0] == sprites.ZERO_GREY).all()
    assert tiles[1].min() >= sprites.ZERO_GREY
    side = max(1, levels // 4)
    told = (tiles.astype(float) - sprites.ZERO_GREY) / 127 * ends[:, None, None]
    allowed = ends * (0.5 / side + 0.5 / 127)
    assert (abs(told - values) <= 1.0001 * allowed[:, None, None]).all()
    assert len(np.unique(tiles)) <= 2 * side + 1
    np.testing.assert_array_equal(sprites.quantize_signed(-values, levels)[0], 256 - tiles.astype(int))


def test_a_few_values_beyond_the_ends_do_not_grey_all_others() -> None:
    values = np.zeros((1, 1, 1000))
    values[0, 0, :100] = 1
    values[0, 0, 0] = 100
    tiles, ends = sprites.quantize_signed(values, 64, quantile=0.98)
    assert ends.tolist() == [1]
    assert set(tiles[0, 0, :100].tolist()) == {255}


def test_numbers_are_kept_to_six_digits_and_short() -> None:
    kept = sprites.round_significant(np.array([1 / 3, 123456789.0, 0, -1e-9]))
    assert json.dumps(kept) == "[0.333333, 123457000, 0, -1e-09]"
    assert sprites.round_significant(np.array([1 / 3]), 2) == [0.33]


# Filters


def test_filters_of_colours_are_pictures_about_grey() -> None:
    weight = np.random.default_rng(0).normal(size=(4, 3, 5, 7)).astype(np.float32)
    found = sprites.make_filter_tiles(weight, 508, as_rgb=True)
    assert found.tiles.shape == (4, 5, 7, 3)
    assert found.channels is None
    told = (found.tiles.astype(float) - 128) / 127 * found.max_abs[:, None, None, None]
    np.testing.assert_allclose(told.transpose(0, 3, 1, 2), weight, atol=found.max_abs.max() / 127)


def test_a_filter_of_one_channel_is_its_kernel() -> None:
    weight = np.array([[[[-2.0, 0, 1]]]])
    assert sprites.make_filter_tiles(weight, 8).tiles.tolist() == [[[1, 128, 192]]]


def test_of_many_channels_those_of_greatest_norm_stand_side_by_side() -> None:
    """Each unit's own nine, in the order of channels, a pixel of zero between."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(5, 20, 3, 2)).astype(np.float32)
    found = sprites.make_filter_tiles(weight, 508)
    assert found.tiles.shape == (5, 3 * 3 + 2, 3 * 2 + 2)
    for unit in range(5):
        norms = [np.linalg.norm(kernel) for kernel in weight[unit]]
        largest = sorted(sorted(range(20), key=lambda c, norms=norms: -norms[c])[:9])
        assert found.channels[unit].tolist() == largest
        for n, channel in enumerate(largest):
            row, column = divmod(n, 3)
            part = found.tiles[unit, 4 * row : 4 * row + 3, 3 * column : 3 * column + 2].astype(float)
            told = (part - 128) / 127 * found.max_abs[unit]
            np.testing.assert_allclose(told, weight[unit, channel], atol=found.max_abs[unit] / 127)
        assert (found.tiles[unit, 3::4] == 128).all()
        assert (found.tiles[unit, :, 2::3] == 128).all()


def test_few_channels_are_all_shown() -> None:
    found = sprites.make_filter_tiles(np.ones((2, 5, 3, 3)), 64)
    assert found.channels is None
    assert found.tiles.shape == (2, 2 * 3 + 1, 3 * 3 + 2)
    assert (found.tiles[:, 4:, 8:] == 128).all()  # the free place


@pytest.mark.parametrize("shape", [(6, 30), (6, 30, 1, 1)])
def test_single_weights_are_a_block_near_square(shape: tuple[int, ...]) -> None:
    weight = np.random.default_rng(0).normal(size=shape)
    found = sprites.make_filter_tiles(weight, 508)
    assert found.tiles.shape == (6, 5, 6)
    told = (found.tiles.reshape(6, 30).astype(float) - 128) / 127 * found.max_abs[:, None]
    np.testing.assert_allclose(told, weight.reshape(6, 30), atol=found.max_abs.max() / 127)


@pytest.mark.parametrize(
    "shape", [(4096, 25088), (2048, 512, 1, 1), (4, 3, 3), (4, 3, 3, 3, 3), (0, 5), (5, 0, 3, 3)]
)
def test_filters_without_a_plain_picture(shape: tuple[int, ...]) -> None:
    """Too many weights, filters of one or three axes, none."""
    assert sprites.make_filter_tiles(np.broadcast_to(np.float32(1), shape), 64) is None


# The stage


def records(channels: int = 3) -> FakeResults:
    """The made-up network of the plates, told as completely as record.py does."""
    results = make_results(channels)
    for described in results.layers:
        described.update(within=[], inputs=["input"])
    return results


def drawn(
    folder: Path, results: FakeResults | None = None, layers: Any = "all", asked: Any = None, levels: int = 64
) -> tuple[Path, dict[str, Any]]:
    """Run the stage here: the folder of the sprites, and atlas.json. `asked` is views.atlas.layers."""
    source = (results or records()).write(folder / "own")
    views = VIEWS | {"layers": layers, "atlas": {"levels": levels, "layers": asked}}
    (folder / "atlas").mkdir()
    index = explorer_sprites.write_layer_sprites(source, folder / "atlas", "own", views)
    explorer_sprites.write_compact_json(folder / "atlas/atlas.json", index)
    assert read_json(folder / "atlas/atlas.json") == index
    return folder / "atlas", index


def test_every_map_of_every_layer_is_told_to_half_a_step(tmp_path: Path) -> None:
    results = records()
    folder, index = drawn(tmp_path, results)
    called = [described["name"] for described in results.layers if described["called"]]
    assert [described["name"] for described in index["layers"]] == called
    for described in index["layers"]:
        units = read_json(folder / f"units/{described['slug']}.json")
        for image, outputs in results.activations.items():
            values = sprites.to_planes(outputs[described["name"]]).astype(np.float64)
            numbers = units["maps"][image]
            tiles = tiles_of(folder / f"maps/{described['slug']}/{image}", described, described["units"])
            assert tiles.shape == values.shape
            low, high = (np.array(numbers[key])[:, None, None] for key in ("low", "high"))
            told = low + tiles / 255 * (high - low)
            assert (abs(told - values) <= (high - low) * (0.5 / 63 + 0.5 / 255) + 1e-5 * abs(values)).all()
            np.testing.assert_allclose(numbers["mean"], values.mean((1, 2)), rtol=5.1e-4, atol=1e-6)
            np.testing.assert_allclose(numbers["zeros"], (values == 0).mean((1, 2)), rtol=5.1e-4)
        assert described["signed"] == any(
            (o[described["name"]] < 0).any() for o in results.activations.values()
        )
        assert described["shape"] == list(outputs[described["name"]].shape)


def test_inputs_are_as_the_network_saw_them(tmp_path: Path) -> None:
    results = records()
    folder, index = drawn(tmp_path, results)
    for image, picture in results.inputs.items():
        told = index["inputs"][image]
        found = np.asarray(Image.open(folder / told["file"]))
        assert told["size"] == list(picture.shape[1:])
        np.testing.assert_allclose(found.transpose(2, 0, 1) / 255, picture, atol=0.5 / 255 + 1e-5)


def test_grey_inputs_and_projections(tmp_path: Path) -> None:
    folder, index = drawn(tmp_path, records(channels=1))
    assert Image.open(folder / "inputs/first.png").mode == "L"
    first = index["layers"][0]
    assert first["deconv"]["colour"] is first["filters"]["colour"] is False
    assert pixels_of(folder / "deconv/conv1/first.png").ndim == 2


def test_projections_of_maps_then_of_peaks_with_each_images_own_units(tmp_path: Path) -> None:
    results = records()
    picked = {"first": [4, 0], "second": [1, 3]}
    for image, units in picked.items():
        found = results.projections[image]
        found |= {key: found[key][units] for key in ("conv1", "conv1@peak")}
        found["conv1@units"] = np.array(units, np.int32)
    folder, index = drawn(tmp_path, results, layers=["conv1", "pool", "relu"])
    conv, relu, pool = (described["deconv"] for described in index["layers"])
    assert relu is None
    assert conv["units"] == picked
    assert pool["units"] == {"first": list(range(18)), "second": list(range(18))}
    numbers = read_json(folder / "units/conv1.json")["deconv"]
    for image in picked:
        tiles = tiles_of(folder / f"deconv/conv1/{image}", conv, 4)
        for n, key in enumerate(("conv1", "conv1@peak")):
            ends = np.array(numbers[image][("map", "peak")[n]])[:, None, None, None]
            told = (tiles[2 * n : 2 * n + 2].astype(float) - 128) / 127 * ends
            values = results.projections[image][key].transpose(0, 2, 3, 1)
            assert (abs(told - np.clip(values, -ends, ends)) <= ends * (0.5 / 16 + 0.5 / 127) + 1e-5).all()
            beyond = (abs(values) > ends).sum((1, 2, 3))
            assert (beyond <= 0.02 * values[0].size).all()


def test_only_what_was_projected_has_kinds(tmp_path: Path) -> None:
    results = records()
    for found in results.projections.values():
        del found["pool"], found["conv1@peak"]
    index = drawn(tmp_path, results)[1]
    kinds = {d["name"]: d["deconv"] and d["deconv"]["kinds"] for d in index["layers"]}
    assert kinds["conv1"] == ["map"]
    assert kinds["pool"] == ["peak"]


def test_filters_stand_with_their_layers(tmp_path: Path) -> None:
    results = records()
    folder, index = drawn(tmp_path, results)
    filters = {described["name"]: described["filters"] for described in index["layers"]}
    assert [name for name, found in filters.items() if found] == ["conv1", "block.conv2", "fc"]
    assert filters["conv1"]["colour"] is True
    assert filters["conv1"]["tile"] == [3, 3]
    assert filters["block.conv2"]["tile"] == [11, 11]
    weights = read_json(folder / "units/block-conv2.json")["filters"]
    assert np.shape(weights["channels"]) == (18, 9)
    np.testing.assert_allclose(
        read_json(folder / "units/fc.json")["filters"]["most"], abs(results.filters["fc"]).max(1), rtol=1e-5
    )


def test_what_a_unit_resembles_stands_with_it(tmp_path: Path) -> None:
    folder, _ = drawn(tmp_path)
    like = read_json(folder / "units/conv1.json")["like"]
    assert like[0] == {"words": "vertical edge", "r": -0.83}
    assert like[1] is None
    assert read_json(folder / "units/pool.json")["like"] is None


@pytest.mark.parametrize(
    ("layers", "asked", "expected"),
    [
        (["relu", 2], None, ["relu", "block.conv2"]),
        (["relu", 2], ["f*"], ["flatten", "fc"]),
        (["relu", 2], "all", [*SPATIAL, *FLAT]),
    ],
)
def test_the_layers_of_the_views_or_those_asked_for(
    tmp_path: Path, layers: list[str | int], asked: Any, expected: list[str]
) -> None:
    index = drawn(tmp_path, layers=layers, asked=asked)[1]
    assert [described["name"] for described in index["layers"]] == expected


def test_a_layer_that_is_not_there_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"networks\.own\.views\.atlas\.layers: no layer 'nothing'"):
        drawn(tmp_path, asked=["nothing"])


def test_a_layer_that_was_not_recorded_or_has_no_maps_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    results = records()
    del results.activations["second"]["relu"]
    for outputs in results.activations.values():
        outputs["neck"] = np.zeros((2, 3, 4, 5), np.float32)
        outputs["fc"] = np.zeros((4, 0), np.float32)
    caplog.set_level("INFO", "convatlas")
    names = [described["name"] for described in drawn(tmp_path, results)[1]["layers"]]
    assert not {"relu", "neck", "fc"} & set(names)
    assert "conv1" in names
    assert "neck, whose values are 2 x 3 x 4 x 5" in caplog.text


def test_2048_units_are_a_file_an_image(tmp_path: Path) -> None:
    results = records()
    results.layers.append(
        make_layer("wide", "activation", (5, 8, 6), (2048, 7, 7), within=[], inputs=["input"])
    )
    for n, outputs in enumerate(results.activations.values()):
        outputs["wide"] = np.random.default_rng(n).normal(size=(2048, 7, 7)).astype(np.float32)
    folder, index = drawn(tmp_path, results, layers=["wide"])
    (wide,) = index["layers"]
    assert wide["sheets"] == 1
    assert len(list((folder / "maps/wide").iterdir())) == len(results.activations)
    tiles = tiles_of(folder / "maps/wide/first", wide, 2048)
    assert (tiles.reshape(2048, -1).min(1) == 0).all()
    assert (tiles.reshape(2048, -1).max(1) == 255).all()


def test_hostile_names_come_out_as_safe_files(tmp_path: Path) -> None:
    results = records()
    names = ["<img onerror=1 src=x>", "../../x", "a" * 300]
    for described, name in zip(results.layers, names, strict=False):
        for outputs in results.activations.values():
            outputs[name] = outputs.pop(described["name"])
        described["name"] = name
    folder, index = drawn(tmp_path, results)
    assert [described["name"] for described in index["layers"]][:3] == names
    made_files = [path for path in tmp_path.rglob("*") if path.is_file() and "own" not in path.parts]
    assert all(folder in path.parents for path in made_files)
    for path in made_files:
        assert path.stem.replace("-", "").replace("_", "").replace(".", "").isalnum()


def command(folder: Path, settings: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "scripts/explorer.py", "--name", "own", "--settings", json.dumps(settings),
         "--output", str(folder)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip


def test_the_script_draws_the_same_bytes_twice(tmp_path: Path) -> None:
    views = VIEWS | {"atlas": {"levels": 16, "layers": None}}
    found = []
    for name in ("one", "two"):
        folder = records().write(tmp_path / name)
        done = command(folder, views)
        assert done.returncode == 0, done.stderr
        assert "own: drew 10 layers on 2 images" in done.stderr
        found.append(read_files(folder / "atlas"))
    assert found[0] == found[1]
    assert {"atlas.json", "inputs/first.png", "maps/conv1/second.png", "units/conv1.json"} <= set(found[0])
    assert json.loads(found[0]["atlas.json"])["levels"] == 16
    pixels = pixels_of(tmp_path / "one/atlas/maps/conv1/first.png")
    assert len(np.unique(pixels)) <= 16


def test_the_script_says_what_is_missing(tmp_path: Path) -> None:
    folder = records().write(tmp_path / "own")
    (folder / "deconv/second.npz").unlink()
    done = command(folder, VIEWS | {"atlas": {"levels": 64, "layers": None}})
    assert done.returncode == 1
    assert "second.npz is missing" in done.stderr
    assert not (folder / "atlas").exists()


def test_one_layer_of_one_image_is_in_memory_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[str] = []
    read = Npz.__getitem__

    def counted(self: Npz, name: str) -> np.ndarray:
        alive.append(name)
        return read(self, name)

    monkeypatch.setattr(Npz, "__getitem__", counted)
    monkeypatch.setattr(Npz, "values", None)  # which would read all
    monkeypatch.setattr(Npz, "items", None)
    drawn(tmp_path, layers=["pool"])
    assert set(alive) == {"input", "pool", "pool@peak"}


# In the site


def test_numbers_are_a_script_that_hides_nothing_in_it() -> None:
    text = format_units_script("a</script><!--\u2028", "x", {"maps": {"<b>": [1, None]}})
    assert text.startswith("convatlas.units(")
    assert text.endswith(");\n")
    assert "<" not in text
    assert text.isascii()
    given = json.loads(f"[{text.removeprefix('convatlas.units(').removesuffix(');' + chr(10))}]")
    assert given == ["a</script><!--\u2028", "x", {"maps": {"<b>": [1, None]}}]
