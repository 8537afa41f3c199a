"""What a data set says of units, as readers see it: mosaics, plates, sprites, pages, against plain loops."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser

from convatlas.figures import build as figure_build
from convatlas.files import read_json, write_json, write_npz
from convatlas.gallery import build, explorer_statistics
from convatlas.gallery.pages.units import compute_class_responses, find_selective_units, format_ranges
from convatlas.plotting import top_activation_tiles
from convatlas.plotting.labelled_figure import figure_style
from convatlas.results import Results
from tests.support.browser import needs_chromium
from tests.support.explorer_site import (
    build_explorer_site,
    complete_layers,
    get_part,
    open_address,
    read_state,
)
from tests.support.fake_results import VIEWS, FakeResults, make_results
from tests.support.site import CONFIG, DATASET, RUN, PageParser, open_page, write_network
from tests.support.workspace import ROOT

K, IMAGES, CLASSES = 4, 30, ["ant", "bee", "cat", "dog"]
LABELS = np.arange(IMAGES) % 3  # no dog
FIELD = (5, 4)  # of conv1 and pool, as if
DEAD = {"conv1": [2], "relu": [2], "fc": [0, 3]}
SETTINGS = VIEWS | {"strongest": {"k": K}, "atlas": {"layers": None, "levels": 64}}


def outputs(results: FakeResults) -> dict[str, np.ndarray]:
    """What each layer makes of every image of the set, (N, units, ...)."""
    rng = np.random.default_rng(5)
    found = {}
    for layer in results.layers:
        if not layer["called"]:
            continue
        values = rng.normal(size=(IMAGES, *layer["output_shape"])).astype(np.float32)
        if layer["kind"] == "activation":  # behind a ReLU, more of some classes than of others
            more = 1 + 2 * rng.random((3, layer["output_shape"][0]))[LABELS]
            values = np.clip(values, 0, None) * more[..., None, None].astype(np.float32)
        units = DEAD.get(layer["name"], [])
        values[:, units] = -np.abs(values[:, units]) if layer["kind"] != "activation" else 0
        found[layer["name"]] = values
    return found


def survey(folder: Path, results: FakeResults) -> dict[str, dict[str, np.ndarray]]:
    """Write what merge.py and project.py write, worked out the plain way; gives it by layers."""
    rng, found = np.random.default_rng(6), {}
    for name, values in outputs(results).items():
        flat = values.reshape(IMAGES, values.shape[1], -1).astype(np.float64)
        classes = np.full((values.shape[1], 4), np.nan)
        for c in range(3):
            classes[:, c] = flat[c == LABELS].mean((0, 2))
        selectivity = np.full(len(classes), np.nan)
        for unit, (own, defined) in enumerate(zip(classes, (classes[:, :3] >= 0).all(1), strict=True)):
            best = own[:3].max()
            rest = (own[:3].sum() - best) / 2
            if defined:
                selectivity[unit] = (best - rest) / (best + rest) if best + rest else 0
        most = flat.max(2).T
        order = np.argsort(-most, 1, kind="stable")[:, :K]
        width = values.shape[-1] if values.ndim > 3 else 1
        place = np.take_along_axis(flat.argmax(2).T, order, 1)
        found[name] = {
            "mean": flat.mean((0, 2)),
            "std": flat.std((0, 2)),
            "max": flat.max((0, 2)),
            "zero_fraction": (flat == 0).mean((0, 2)),
            "classes": classes,
            "selectivity": selectivity,
            "dead": flat.max((0, 2)) <= 0,
            "values": np.take_along_axis(most, order, 1),
            "images": order.astype(np.int32),
            "positions": np.stack(np.divmod(place, width), -1).astype(np.int32),
        }
        for what in ("mean", "std", "max", "zero_fraction", "classes", "selectivity", "values"):
            found[name][what] = found[name][what].astype(np.float32)
    channels = results.layers[0]["input_shape"][0]
    strongest = {}
    for name in found:
        strongest |= {f"{name}@{what}": found[name][what] for what in ("values", "images", "positions")}
        if name not in ("conv1", "pool"):
            continue
        units = np.arange(5) if name == "conv1" else np.array([7, 2, 11], np.int32)
        shape = (len(units), K, channels, *FIELD)
        found[name]["projections"] = rng.normal(size=shape).astype(np.float32)
        found[name]["patches"] = rng.normal(size=shape).astype(np.float32)
        for what in ("projections", "patches"):
            found[name][what][:, 1, :, :2] = np.nan  # beyond the upper border
        found[name]["units"] = units
        strongest |= {f"{name}@{what}": found[name][what] for what in ("projections", "patches")}
        if name == "pool":
            strongest[f"{name}@units"] = units
    write_npz(folder / "strongest.npz", strongest)
    keys = [key for key in found["fc"] if key not in ("projections", "patches", "units")]
    statistics = {f"{name}@{key}": found[name][key] for name in found for key in keys}
    write_npz(folder / "statistics.npz", statistics)
    layers = [
        {"name": name, "units": len(of["mean"]), "dead": np.flatnonzero(of["dead"]).tolist()}
        for name, of in found.items()
    ]
    about = {
        "dataset": "animals",
        "split": "test",
        "images": IMAGES,
        "skipped": [],
        "k": K,
        "class_source": "label",
    }
    counts = {"classes": CLASSES, "class_images": [10, 10, 10, 0], "dataset_sha256": DATASET["sha256"]}
    write_json(folder / "statistics.json", about | counts | {"layers": layers})
    return found


# Mosaics


def test_a_block_has_its_pictures_in_rows() -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (7, 3, 2, 3), np.uint8)
    found = top_activation_tiles.assemble_tile_block(pictures, 4)
    assert found.shape == (
        3 * 12 + 2 * top_activation_tiles.TILE_GAP,
        3 * 8 + 2 * top_activation_tiles.TILE_GAP,
        3,
    )
    seen = np.zeros(found.shape[:2], bool)
    for n, picture in enumerate(pictures):
        top, left = n // 3 * (12 + top_activation_tiles.TILE_GAP), n % 3 * (8 + top_activation_tiles.TILE_GAP)
        for row in range(12):
            for column in range(8):
                assert (found[top + row, left + column] == picture[row // 4, column // 4]).all()
                seen[top + row, left + column] = True
    assert (found[~seen] == top_activation_tiles.OUTSIDE_COLOUR).all()


def test_patches_are_the_images_own_pixels_and_what_is_beyond_is_neutral() -> None:
    preprocessing = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
    pixels = np.random.default_rng(1).integers(0, 256, (2, 3, 4, 5))
    mean, std = (np.array(preprocessing[key], np.float32)[:, None, None] for key in ("mean", "std"))
    patches = ((pixels / 255 - mean) / std).astype(np.float32)
    patches[1, :, 0] = np.nan
    found = top_activation_tiles.render_patches(preprocessing, patches)
    np.testing.assert_array_equal(found[0], pixels[0].transpose(1, 2, 0))
    np.testing.assert_array_equal(found[1, 1:], pixels[1, :, 1:].transpose(1, 2, 0))
    assert (found[1, 0] == top_activation_tiles.OUTSIDE_COLOUR).all()
    grey = top_activation_tiles.render_patches(
        {"mean": [0.0], "std": [1.0]}, np.full((1, 1, 1, 1), 0.5, np.float32)
    )
    assert grey.tolist() == [[[[128, 128, 128]]]]


@pytest.mark.parametrize("channels", [1, 3])
def test_projections_are_signed_about_zero(channels: int) -> None:
    values = np.zeros((1, channels, 1, 4), np.float32)
    values[..., 0], values[..., 1], values[..., 2] = 2, -2, np.nan
    scale = top_activation_tiles.fit_projection_scale(values)
    assert (scale.low, scale.high) == (-2, 2)
    plus, minus, beyond, zero = top_activation_tiles.render_projections(scale, values)[0, 0].astype(int)
    assert tuple(beyond) == top_activation_tiles.OUTSIDE_COLOUR
    if channels == 3:
        assert plus.tolist() == [255] * 3
        assert minus.tolist() == [0] * 3
        assert np.abs(zero - 128).max() <= 1
    else:
        assert plus[0] > plus[2]  # red
        assert minus[2] > minus[0]  # blue
        assert zero.min() > 240


def test_a_few_values_do_not_grey_all_others() -> None:
    values = np.full((1, 3, 100, 100), 0.1, np.float32)
    values[0, 0, 0, 0] = 50
    assert top_activation_tiles.fit_projection_scale(values).high == pytest.approx(0.1)
    assert top_activation_tiles.fit_projection_scale(np.zeros((2, 3, 4, 4))).high == 1
    assert top_activation_tiles.fit_projection_scale(np.full((2, 1, 4, 4), np.nan)).high == 1


# Plates


def prepared(folder: Path, channels: int) -> Any:
    """results/own/ under a folder with a survey, the made-up network, and what the survey has."""
    results = complete_layers(make_results(channels))
    results.layers[0]["receptive_field"] = list(FIELD)
    write_network(folder, "own", results)
    return folder, results, survey(folder / "results/own", results)


@pytest.fixture(scope="module", params=[3, 1], ids=["colour", "grey"])
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return prepared(tmp_path_factory.mktemp("network"), request.param)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return prepared(tmp_path_factory.mktemp("own"), 3)


def plates_of(folder: Path, **views: Any) -> dict[str, Any]:
    with figure_style():
        drawn = figure_build.draw_figures(
            Results(folder / "results/own"), VIEWS | {"strongest": {"k": K}} | views
        )
        return {plate.subject: plate for plate in drawn if plate.kind == "strongest"}


def places(canvas: np.ndarray, picture: np.ndarray) -> list[tuple[int, int]]:
    """Where in a canvas a picture stands."""
    height, width = picture.shape[:2]
    corners = np.argwhere((canvas == picture[0, 0]).all(-1))
    return [
        (top, left)
        for top, left in corners.tolist()
        if np.array_equal(canvas[top : top + height, left : left + width], picture)
    ]


def test_a_plate_has_each_unit_its_projections_beside_its_patches(network: Any) -> None:
    folder, results, found = network
    plates = plates_of(folder)
    assert list(plates) == ["conv1", "pool"]
    for layer, plate in plates.items():
        canvas = plate.figure.images[0].pixels
        projections, patches = found[layer]["projections"], found[layer]["patches"]
        scale = top_activation_tiles.fit_projection_scale(projections)
        factor = round(72 / 5)
        before = (0, -1)
        for n, _ in enumerate(found[layer]["units"]):
            caused = top_activation_tiles.assemble_tile_block(
                top_activation_tiles.render_projections(scale, projections[n]), factor
            )
            seen = top_activation_tiles.assemble_tile_block(
                top_activation_tiles.render_patches(results.network["preprocessing"], patches[n]), factor
            )
            if n in DEAD.get(layer, []):
                continue  # crossed
            [(top, left)], [(beside, right)] = places(canvas, caused), places(canvas, seen)
            assert top == beside
            assert left + caused.shape[1] < right
            assert (top, left) > before  # in the order of the units
            before = (top, left)
        words = plate.caption
        assert f"over the {IMAGES} test images of animals" in words
        assert "beyond an image's border is beige" in words
    assert "each unit of conv1" in plates["conv1"].caption
    assert "receptive field 5 × 4 pixels" in plates["conv1"].caption
    assert "3 of 18 units of pool" in plates["pool"].caption


def test_units_are_named_with_their_strongest_value(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _, found = network
    given: dict[str, Any] = {}

    def montage(self: Any, kind: str, subject: str, lines: list, *rest: Any, **layout: Any) -> Any:
        given[subject] = lines
        return plain(self, kind, subject, lines, *rest, **layout)

    plain = figure_build.FigureContext.make_montage
    monkeypatch.setattr(figure_build.FigureContext, "make_montage", montage)
    plates_of(folder)
    for layer in ("conv1", "pool"):
        heads = [tile for line in given[layer] for tile in line[::2]]
        units, dead = found[layer]["units"], DEAD.get(layer, [])
        assert [tile.title for tile in heads] == [f"unit {unit}" for unit in units]
        marks = ["dead" if u in dead else f"{found[layer]['values'][u, 0]:.3g}" for u in units]
        assert [tile.right_title for tile in heads] == marks
        assert [tile.crossed_out for tile in heads] == [unit in dead for unit in units]


def test_scales_are_a_units_own_or_all_layers(own: Any) -> None:
    folder, _, found = own
    alone = plates_of(folder, scale="per_tile")["conv1"]
    assert "each unit has a scale of its own" in alone.caption
    most = max(
        top_activation_tiles.fit_projection_scale(found[layer]["projections"]).high
        for layer in ("conv1", "pool")
    )
    for plate in plates_of(folder, scale="shared").values():
        texts = [text.get_text() for text in plate.figure.texts]
        assert f"{most:.3g}" in texts


def test_no_plates_where_it_is_left_out(own: Any) -> None:
    folder, *_ = own
    assert plates_of(folder, strongest=None) == {}


# Sprites


@pytest.fixture(scope="module")
def atlas(own: Any) -> Any:
    """Its sprites, results/own/atlas/."""
    folder, results, found = own
    script = [str(ROOT / "scripts/explorer.py"), "--name", "own", "--settings"]
    command = [sys.executable, *script, json.dumps(SETTINGS | {"has_top_activations": True}), "--output"]
    output = str(folder / "results/own")
    done = subprocess.run([*command, output], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "results/own/atlas", results, found


def test_each_tile_has_its_units_projections_and_patches(atlas: Any) -> None:
    folder, results, found = atlas
    index = {layer["name"]: layer for layer in read_json(folder / "atlas.json")["layers"]}
    for name in ("conv1", "pool"):
        told = index[name]["strongest"]
        assert told["units"] == found[name]["units"].tolist()
        assert (told["patch"], told["suffix"]) == ([*FIELD], "png")
        sheet = np.asarray(Image.open(folder / f"strongest/{index[name]['slug']}.png").convert("RGB"))
        height, width = told["tile"]
        for n in range(len(told["units"])):
            projections, patches = (found[name][what][n] for what in ("projections", "patches"))
            scale = top_activation_tiles.fit_projection_scale(projections)
            assert told["ends"][n] == pytest.approx(scale.high, rel=1e-5)
            row, column = divmod(n, told["columns"])
            tile = sheet[row * height : (row + 1) * height, column * width : (column + 1) * width]
            caused = top_activation_tiles.assemble_tile_block(
                top_activation_tiles.render_projections(scale, projections)
            ).astype(int)
            seen = top_activation_tiles.assemble_tile_block(
                top_activation_tiles.render_patches(results.network["preprocessing"], patches)
            ).astype(int)
            assert np.abs(tile[:, : caused.shape[1]] - caused).mean() <= 1.2
            assert np.abs(tile[:, -seen.shape[1] :] - seen).mean() <= 1.2
    assert not any(layer.get("strongest") for name, layer in index.items() if name not in ("conv1", "pool"))


def test_numbers_of_units_are_those_of_the_set(atlas: Any) -> None:
    folder, _, found = atlas
    index = read_json(folder / "atlas.json")
    assert index["set"]["images"] == IMAGES
    for layer in index["layers"]:
        told, of = read_json(folder / f"units/{layer['slug']}.json")["set"], found[layer["name"]]
        for key, what in explorer_statistics.STATISTICS.items():
            expected = [None if np.isnan(value) else value for value in of[what].tolist()]
            assert len(told[key]) == len(expected)
            for value, wanted in zip(told[key], expected, strict=True):
                assert (value is None) == (wanted is None)
                assert value is None or value == pytest.approx(wanted, rel=1e-3)
        assert told["dead"] == np.flatnonzero(of["dead"]).tolist()
        assert told["class"] == np.nanargmax(of["classes"], 1).tolist()
        assert ("values" in told) == (layer["kind"] != "reshape")
        if "values" in told:
            assert told["images"] == of["images"].tolist()
            np.testing.assert_allclose(told["values"], of["values"], rtol=5e-3, atol=1e-6)
        assert ("positions" in told) == ("values" in told and len(layer["shape"]) > 1)


# The page's tables


def test_ranges_name_every_number_once() -> None:
    assert format_ranges([]) == ""
    assert format_ranges([0, 2, 3, 7, 8, 9, 12]) == "0, 2, 3, 7–9, 12"


def test_the_most_selective_units_are_those_of_all_activations(own: Any) -> None:
    _, _, found = own
    flat = {f"{layer}@{key}": array for layer, of in found.items() for key, array in of.items()}
    rows = find_selective_units(flat, ["relu", "relu:2", "relu_2"], CLASSES)
    expected = []
    for layer in ("relu", "relu:2", "relu_2"):
        for unit, worth in enumerate(found[layer]["selectivity"].tolist()):
            if worth > 0 and found[layer]["values"][unit, -1] > 0:
                expected.append((-worth, len(expected), layer, unit))
    expected.sort()
    assert [(row["layer"], row["unit"]) for row in rows] == [
        (layer, unit) for *_, layer, unit in expected[:20]
    ]
    first = found[rows[0]["layer"]]["classes"][rows[0]["unit"]][:3]
    assert rows[0]["class"] == CLASSES[int(first.argmax())]
    assert rows[0]["response"] == pytest.approx(first.max())
    assert rows[0]["others"] == pytest.approx(np.sort(first)[:2].mean())


def test_a_last_unit_is_told_by_its_classes(own: Any) -> None:
    *_, found = own
    flat = {f"fc@{key}": array for key, array in found["fc"].items()}
    rows = compute_class_responses(flat, "fc", CLASSES, CLASSES)
    assert [row["name"] for row in rows] == CLASSES
    for unit, row in enumerate(rows):
        own = found["fc"]["classes"][unit]
        assert row["class"] == CLASSES[int(np.nanargmax(own))]
        assert [name for name, _ in row["responses"]] == CLASSES
        assert row["responses"][3][1] is None  # no image of it
    many = [str(n) for n in range(20)]
    flat["fc@classes"] = np.arange(80.0).reshape(4, 20)[:, ::-1]
    assert [name for name, _ in compute_class_responses(flat, "fc", many, [])[0]["responses"]] == [
        "0",
        "1",
        "2",
    ]


def views(strongest: Any) -> dict[str, Any]:
    return CONFIG | {"networks": {"own": {"views": VIEWS | {"strongest": strongest}}}}


def page_of(folder: Path, results: Path | None = None) -> PageParser:
    build.build_gallery(folder / "site", folder / "results", folder / "data", ["own"], views({"k": K}), RUN)
    return PageParser(folder / "site/networks/own-units.html")


def test_the_page_lists_the_dead_by_layer_and_calls_classes_what_they_are(own: Any) -> None:
    folder, *_ = own
    text = " ".join(page_of(folder).text.split())
    assert "over the 30 test images of animals" in text
    assert "conv1512 relu512 fc420, 3" in text  # layer, units, dead, which
    assert "predicted class" not in text
    path = folder / "results/own/statistics.json"
    kept = read_json(path)
    write_json(
        path,
        kept
        | {"class_source": "predicted class", "skipped": [{"image": 3, "name": "a.png", "reason": "cut"}]},
    )
    try:
        text = " ".join(page_of(folder).text.split())
        assert "the data set has no labels" in text
        assert "over the images of each predicted class" in text
        assert "1 unreadable image skipped" in text
    finally:
        write_json(path, kept)


def test_no_page_where_it_is_left_out(own: Any) -> None:
    folder, *_ = own
    build.build_gallery(folder / "site", folder / "results", folder / "data", ["own"], views(None), RUN)
    assert not (folder / "site/networks/own-units.html").exists()
    assert "own-units" not in (folder / "site/networks/own.html").read_text()


# In a browser


@pytest.fixture(scope="module")
def site(atlas: Any) -> Path:
    folder = atlas[0].parents[2]
    return build_explorer_site(folder, "own", strongest={"k": K})


def shown(page: Any) -> list[int]:
    """The units of the sheet, in its order."""
    return [int(text.split()[0]) for text in page.locator(".tiles text").all_text_contents()]


@needs_chromium
@pytest.mark.parametrize("key", ["zero_fraction", "selectivity"])
def test_units_are_sorted_by_what_the_set_says(browser: Browser, site: Path, atlas: Any, key: str) -> None:
    page, faults = open_address(browser, site, "networks/own.html#layer=relu:2&unit=0")
    assert shown(page) == list(range(18))
    get_part(page, "sort").select_option(key)
    page.wait_for_timeout(300)
    worth = [float(f"{value:.4g}") for value in atlas[2]["relu:2"][key].tolist()]
    order = sorted(range(18), key=lambda unit: (-worth[unit], unit))
    assert shown(page) == order
    assert read_state(page)["sort"] == key
    get_part(page, "next-unit").click()
    expected = order[(order.index(0) + 1) % 18]
    assert read_state(page)["unit"] == str(expected)
    page.reload()
    page.wait_for_timeout(500)
    assert shown(page) == order
    assert faults == []
    page.context.close()


@needs_chromium
@pytest.mark.parametrize(("former", "key"), [("zeros", "zero_fraction"), ("maximum", "max")])
def test_addresses_of_earlier_galleries_open(browser: Browser, site: Path, former: str, key: str) -> None:
    page, errors = open_address(browser, site, f"networks/own.html#layer=relu:2&sort={former}&view=sheet")
    assert get_part(page, "sort").input_value() == key
    assert page.locator("dialog[open]").count() == 0
    assert shown(page) != list(range(18))
    get_part(page, "next-unit").click()
    state = read_state(page)
    assert state["sort"] == key and "view" not in state
    assert errors == []
    page.context.close()


@needs_chromium
def test_only_the_dead_or_the_alive_are_shown(browser: Browser, site: Path) -> None:
    page, faults = open_address(browser, site, "networks/own.html#layer=conv1&only=dead")
    assert shown(page) == DEAD["conv1"]
    assert read_state(page) == {"layer": "conv1", "only": "dead"}
    assert get_part(page, "unit-number").input_value() == "2"
    get_part(page, "only").select_option("alive")
    page.wait_for_timeout(300)
    assert shown(page) == [0, 1, 3, 4]
    page.evaluate("location.hash = 'layer=pool&only=dead'")
    page.wait_for_timeout(400)
    assert not page.locator(".tiles").is_visible()
    assert get_part(page, "empty").text_content() == "No dead units in this layer."
    get_part(page, "only").select_option("all")
    page.wait_for_timeout(300)
    assert len(shown(page)) == 18
    assert faults == []
    page.context.close()


@needs_chromium
def test_a_unit_is_told_by_the_set(browser: Browser, site: Path, atlas: Any) -> None:
    page, faults = open_address(browser, site, "networks/own.html#layer=pool&unit=11")
    told = page.locator(".dataset-statistics")
    of = atlas[2]["pool"]
    assert "30 test images of animals" in told.text_content()
    assert CLASSES[int(np.nanargmax(of["classes"][11]))] in told.locator(".description").text_content()
    told.locator("canvas").scroll_into_view_if_needed()
    told.locator("summary").click()
    lines = told.locator("li").all_text_contents()
    assert len(lines) == K
    for line, image, (row, column) in zip(lines, of["images"][11], of["positions"][11], strict=True):
        assert f"test image {image}, row {row}, column {column}" in line
    page.evaluate("location.hash = 'layer=pool&unit=1'")
    page.wait_for_timeout(400)
    assert page.locator(".dataset-statistics canvas").count() == 0  # not projected
    page.evaluate("location.hash = 'layer=conv1&unit=2'")
    page.wait_for_timeout(400)
    assert "Dead: never positive." in page.locator(".dataset-statistics").text_content()
    assert faults == []
    page.context.close()


@needs_chromium
@pytest.mark.parametrize("name", ["networks/own-units.html", "networks/own.html#layer=pool&unit=11"])
@pytest.mark.parametrize("width", [360, 1280])
def test_pages_fit_and_axe_finds_nothing(browser: Browser, site: Path, name: str, width: int) -> None:
    for scheme in ("light", "dark"):
        if "#" in name:
            page, faults = open_address(browser, site, name, width=width, scheme=scheme)
        else:
            page, faults = open_page(browser, site, name, width, scheme)
        page.wait_for_timeout(300)
        assert faults == []
        found = Axe().run(page).response["violations"]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        rows = page.locator("th[scope=row]")
        rows.evaluate_all("all => all.forEach(name => name.append('.of.a.block'.repeat(4)))")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.context.close()
