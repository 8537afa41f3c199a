"""The explorer's sprites: every map, filter and projection of a network, against its arrays."""

import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convatlas import UserError
from convatlas.files import Npz, read_json
from convatlas.gallery.explorer_data import format_units_script
from convatlas.gallery.weight_summary import arrange_on_maps
from convatlas.plotting import sprites
from tests.support.explorer_site import complete_layers, draw_layers
from tests.support.fake_results import FLAT, SPATIAL, VIEWS, make_layer, make_results
from tests.support.sprite_sheets import cut_tiles, read_pixels
from tests.support.workspace import ROOT, read_files


def test_every_map_of_every_layer_is_drawn_to_half_a_level(tmp_path: Path) -> None:
    results = complete_layers()
    folder, index = draw_layers(tmp_path, results)
    called = [layer["name"] for layer in results.layers if layer["called"]]
    assert [layer["name"] for layer in index["layers"]] == called
    for layer in index["layers"]:
        units = read_json(folder / f"units/{layer['slug']}.json")
        for image, outputs in results.activations.items():
            values = sprites.to_planes(outputs[layer["name"]]).astype(np.float64)
            numbers = units["maps"][image]
            tiles = cut_tiles(folder / f"maps/{layer['slug']}/{image}", layer, layer["units"])
            assert tiles.shape == values.shape
            low, high = (np.array(numbers[key])[:, None, None] for key in ("min", "max"))
            drawn = low + tiles / 255 * (high - low)
            assert (abs(drawn - values) <= (high - low) * (0.5 / 63 + 0.5 / 255) + 1e-5 * abs(values)).all()
            np.testing.assert_allclose(numbers["mean"], values.mean((1, 2)), rtol=5.1e-4, atol=1e-6)
            np.testing.assert_allclose(numbers["zero_fraction"], (values == 0).mean((1, 2)), rtol=5.1e-4)
        assert layer["signed"] == any((o[layer["name"]] < 0).any() for o in results.activations.values())
        assert layer["shape"] == list(outputs[layer["name"]].shape)


def test_inputs_are_as_the_network_saw_them(tmp_path: Path) -> None:
    results = complete_layers()
    folder, index = draw_layers(tmp_path, results)
    for image, picture in results.inputs.items():
        entry = index["inputs"][image]
        pixels = np.asarray(Image.open(folder / entry["file"]))
        assert entry["size"] == list(picture.shape[1:])
        np.testing.assert_allclose(pixels.transpose(2, 0, 1) / 255, picture, atol=0.5 / 255 + 1e-5)


def test_grey_inputs_and_projections(tmp_path: Path) -> None:
    folder, index = draw_layers(tmp_path, complete_layers(make_results(channels=1)))
    assert Image.open(folder / "inputs/first.png").mode == "L"
    first = index["layers"][0]
    assert first["deconv"]["rgb"] is first["filters"]["rgb"] is False
    assert read_pixels(folder / "deconv/conv1/first.png").ndim == 2


def test_projections_of_maps_then_of_peaks_with_each_images_own_units(tmp_path: Path) -> None:
    results = complete_layers()
    picked = {"first": [4, 0], "second": [1, 3]}
    for image, units in picked.items():
        projections = results.projections[image]
        projections |= {key: projections[key][units] for key in ("conv1", "conv1@peak")}
        projections["conv1@units"] = np.array(units, np.int32)
    folder, index = draw_layers(tmp_path, results, layers=["conv1", "pool", "relu"])
    conv, relu, pool = (layer["deconv"] for layer in index["layers"])
    assert relu is None
    assert conv["units"] == picked
    assert pool["units"] == {"first": list(range(18)), "second": list(range(18))}
    numbers = read_json(folder / "units/conv1.json")["deconv"]
    for image in picked:
        tiles = cut_tiles(folder / f"deconv/conv1/{image}", conv, 4)
        for n, key in enumerate(("conv1", "conv1@peak")):
            ends = np.array(numbers[image][("map", "peak")[n]])[:, None, None, None]
            drawn = (tiles[2 * n : 2 * n + 2].astype(float) - 128) / 127 * ends
            values = results.projections[image][key].transpose(0, 2, 3, 1)
            assert (abs(drawn - np.clip(values, -ends, ends)) <= ends * (0.5 / 16 + 0.5 / 127) + 1e-5).all()
            beyond = (abs(values) > ends).sum((1, 2, 3))
            assert (beyond <= 0.02 * values[0].size).all()


def test_only_what_was_projected_has_kinds(tmp_path: Path) -> None:
    results = complete_layers()
    for projections in results.projections.values():
        del projections["pool"], projections["conv1@peak"]
    index = draw_layers(tmp_path, results)[1]
    kinds = {d["name"]: d["deconv"] and d["deconv"]["kinds"] for d in index["layers"]}
    assert kinds["conv1"] == ["map"]
    assert kinds["pool"] == ["peak"]


def test_layers_with_weights_have_filters(tmp_path: Path) -> None:
    results = complete_layers()
    folder, index = draw_layers(tmp_path, results)
    filters = {layer["name"]: layer["filters"] for layer in index["layers"]}
    assert [name for name, sheets in filters.items() if sheets] == ["conv1", "block.conv2"]
    assert filters["conv1"]["rgb"] is True
    assert filters["conv1"]["tile_size"] == [3, 3]
    assert filters["block.conv2"]["tile_size"] == [11, 11]
    weights = read_json(folder / "units/block-conv2.json")["filters"]
    assert np.shape(weights["channels"]) == (18, 9)
    weights = read_json(folder / "units/fc.json")["weights"]
    weight = results.filters["fc"]
    assert weights["inputs"] == weight.shape[1] and sum(weights["histogram"]) == weight.size
    for unit, (inputs, largest) in enumerate(zip(weights["largest_inputs"], weights["largest"], strict=True)):
        np.testing.assert_allclose(weight[unit, inputs], largest, rtol=0.01)
        assert abs(weight[unit]).max() == abs(weight[unit, inputs[0]])


@pytest.mark.parametrize("between", [[], ["dropout"]])
def test_weights_of_flattened_maps_are_on_the_grid_of_the_maps(between: list[str]) -> None:
    names = ["flatten", *between, "fc"]
    kinds = {"flatten": "reshape", "dropout": "dropout", "fc": "linear"}
    shapes = {"flatten": ((3, 4, 2), (24,)), "dropout": ((24,), (24,)), "fc": ((24,), (5,))}
    layers: Any = {
        name: make_layer(name, kinds[name], *shapes[name], inputs=[source])
        for source, name in zip(["pool", *names], names, strict=False)
    }
    weight = np.random.default_rng(0).normal(size=(5, 24))
    arranged = arrange_on_maps(weight, layers["fc"], layers)
    assert arranged.shape == (5, 3, 4, 2) and (arranged.ravel() == weight.ravel()).all()
    layers["flatten"]["input_shape"] = [24, 1, 1]  # of which nothing has a place
    assert arrange_on_maps(weight, layers["fc"], layers) is weight
    assert arrange_on_maps(weight[:, :20], layers["fc"], layers).ndim == 2


def test_units_have_the_classical_features_that_they_match(tmp_path: Path) -> None:
    folder, _ = draw_layers(tmp_path)
    matches = read_json(folder / "units/conv1.json")["matches"]
    assert matches[0] == {"description": "vertical edge", "r": -0.83}
    assert matches[1] is None
    assert read_json(folder / "units/pool.json")["matches"] is None


@pytest.mark.parametrize(
    ("layers", "explored", "expected"),
    [
        (["relu", 2], None, ["relu", "block.conv2"]),
        (["relu", 2], ["f*"], ["flatten", "fc"]),
        (["relu", 2], "all", [*SPATIAL, *FLAT]),
    ],
)
def test_the_layers_are_those_of_the_views_or_of_the_explorer(
    tmp_path: Path, layers: list[str | int], explored: Any, expected: list[str]
) -> None:
    index = draw_layers(tmp_path, layers=layers, explored=explored)[1]
    assert [layer["name"] for layer in index["layers"]] == expected


def test_an_unknown_layer_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"networks\.own\.views\.atlas\.layers: no layer 'nothing'"):
        draw_layers(tmp_path, explored=["nothing"])


def test_a_layer_without_records_or_maps_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    results = complete_layers()
    del results.activations["second"]["relu"]
    for outputs in results.activations.values():
        outputs["neck"] = np.zeros((2, 3, 4, 5), np.float32)
        outputs["fc"] = np.zeros((4, 0), np.float32)
    caplog.set_level("INFO", "convatlas")
    names = [layer["name"] for layer in draw_layers(tmp_path, results)[1]["layers"]]
    assert not {"relu", "neck", "fc"} & set(names)
    assert "conv1" in names
    assert "neck is not in the explorer: its output is 2 × 3 × 4 × 5" in caplog.text


def test_2048_units_are_one_file_per_image(tmp_path: Path) -> None:
    results = complete_layers()
    results.layers.append(
        make_layer("wide", "activation", (5, 8, 6), (2048, 7, 7), within=[], inputs=["input"])
    )
    for n, outputs in enumerate(results.activations.values()):
        outputs["wide"] = np.random.default_rng(n).normal(size=(2048, 7, 7)).astype(np.float32)
    folder, index = draw_layers(tmp_path, results, layers=["wide"])
    (wide,) = index["layers"]
    assert wide["sheets"] == 1
    assert len(list((folder / "maps/wide").iterdir())) == len(results.activations)
    tiles = cut_tiles(folder / "maps/wide/first", wide, 2048)
    assert (tiles.reshape(2048, -1).min(1) == 0).all()
    assert (tiles.reshape(2048, -1).max(1) == 255).all()


def test_files_of_layers_with_hostile_names_have_safe_names(tmp_path: Path) -> None:
    results = complete_layers()
    names = ["<img onerror=1 src=x>", "../../x", "a" * 300]
    for layer, name in zip(results.layers, names, strict=False):
        for outputs in results.activations.values():
            outputs[name] = outputs.pop(layer["name"])
        layer["name"] = name
    folder, index = draw_layers(tmp_path, results)
    assert [layer["name"] for layer in index["layers"]][:3] == names
    files = [path for path in tmp_path.rglob("*") if path.is_file() and "own" not in path.parts]
    assert all(folder in path.parents for path in files)
    for path in files:
        assert path.stem.replace("-", "").replace("_", "").replace(".", "").isalnum()


def command(folder: Path, settings: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "scripts/explorer.py", "--name", "own", "--settings", json.dumps(settings),
         "--output", str(folder)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip


def test_the_script_draws_the_same_bytes_twice(tmp_path: Path) -> None:
    views = VIEWS | {"atlas": {"levels": 16, "layers": None}}
    runs = []
    for name in ("one", "two"):
        folder = complete_layers().write(tmp_path / name)
        done = command(folder, views)
        assert done.returncode == 0, done.stderr
        assert "own: drew 10 layers on 2 images" in done.stderr
        runs.append(read_files(folder / "atlas"))
    assert runs[0] == runs[1]
    assert {"atlas.json", "inputs/first.png", "maps/conv1/second.png", "units/conv1.json"} <= set(runs[0])
    assert json.loads(runs[0]["atlas.json"])["levels"] == 16
    pixels = read_pixels(tmp_path / "one/atlas/maps/conv1/first.png")
    assert len(np.unique(pixels)) <= 16


def test_the_script_says_what_is_missing(tmp_path: Path) -> None:
    folder = complete_layers().write(tmp_path / "own")
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
    draw_layers(tmp_path, layers=["pool"])
    assert set(alive) == {"input", "pool", "pool@peak"}


# In the site


def test_the_script_of_units_escapes_markup() -> None:
    script = format_units_script("a</script><!--\u2028", "x", {"maps": {"<b>": [1, None]}})
    call, _, text = script.decode().partition(', "x", ')
    assert call == r'convatlas.registerUnits("a\u003c/script\u003e\u003c!--\u2028"'
    assert text.startswith('"') and text.endswith('");\n')
    bits = "".join(f"{ord(character) & 127:07b}" for character in text[1:-4])
    content = bytes(int(bits[n : n + 8], 2) for n in range(0, len(bits) // 8 * 8, 8))
    assert json.loads(zlib.decompress(content)) == {"maps": {"<b>": [1, None]}}


def test_nan_and_infinity_are_marked_and_never_in_json(tmp_path: Path) -> None:
    results = complete_layers()
    outputs, projections = results.activations["first"], results.projections["first"]
    outputs["conv1"] = outputs["conv1"].copy()
    outputs["conv1"][0, 0, :2], outputs["conv1"][1] = [np.nan, np.inf], np.nan
    projections["conv1"] = projections["conv1"].copy()
    projections["conv1"][0, 0, 1, 2] = np.nan
    folder, index = draw_layers(tmp_path, results)
    units = json.loads((folder / "units/conv1.json").read_text(), parse_constant=pytest.fail)
    numbers = units["maps"]["first"]
    area = outputs["conv1"][0].size
    assert numbers["non_finite"][:3] == [2, area, 0] and numbers["infinite"][:3] == [1, 0, 0]
    finite = outputs["conv1"][0][np.isfinite(outputs["conv1"][0])]
    assert numbers["max"][0] == pytest.approx(finite.max(), rel=1e-5)
    assert numbers["mean"][:2] == [None, None] and numbers["max"][1] is None
    assert [image for image, maps in units["maps"].items() if "non_finite" in maps] == ["first"]
    assert units["non_finite_deconv"] == ["first"]
    layer = index["layers"][0]
    marks = np.asarray(Image.open(folder / "maps/conv1/first.nan.png").convert("RGBA"))[..., 3]
    sheet = read_pixels(folder / "maps/conv1/first.png")
    assert marks.shape == sheet.shape[:2]
    height, width = layer["tile_size"]
    np.testing.assert_array_equal(marks[:height, :width] == 255, ~np.isfinite(outputs["conv1"][0]))
    assert {path.name for path in folder.rglob("*.nan*.png")} == {"first.nan.png"}
