"""The expected size of a gallery, printed before a run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convatlas.attribution.feature_visualisation import selection
from convatlas.files import write_json
from convatlas.gallery import evolution_pictures, feature_pictures, feature_views
from convatlas.gallery.pages import evolution
from convatlas.pipeline import size_estimate
from convatlas.plotting import sprites
from tests.support.explorer_site import complete_layers, draw_layers
from tests.support.fake_results import VIEWS, FakeResults, make_layer

ATLAS = {"atlas": {"levels": 64, "layers": None}}


def large_results() -> FakeResults:
    """Return results with smooth, noisy feature maps, so large that file headers are negligible."""
    results = complete_layers()
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :30] / 12
    for described, units in zip(results.layers[:3], (40, 30, 20), strict=True):
        described["output_shape"] = [units, 40, 30]
        for outputs in results.activations.values():
            phases = rng.uniform(0, 6, (units, 1, 1))
            smooth = np.sin(x + phases) * np.cos(2 * y + phases)
            outputs[described["name"]] = (smooth + rng.normal(0, 0.1, (units, 40, 30))).astype(np.float32)
    results.filters["conv1"] = rng.normal(size=(40, 3, 3, 3)).astype(np.float32)
    results.layers[0]["parameters"] = 40 * 27
    results.unit_matches.clear()
    return results


@pytest.mark.parametrize("levels", [16, 64, 256])
def test_the_expected_size_is_near_the_real_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, levels: int
) -> None:
    results = large_results()
    names = [described["name"] for described in results.layers[:3]]
    folder, _ = draw_layers(tmp_path, results, layers=names, levels=levels)
    size = sum(
        path.stat().st_size for part in ("maps", "filters", "units") for path in (folder / part).rglob("*.*")
    )
    expected = size_estimate.estimate_sprite_sheets(results.layers, names, len(results.activations), levels)
    assert 0.67 < expected / size < 1.5


def test_an_output_of_a_single_value_is_one_unit() -> None:
    single, vector = make_layer("mean", "pool", (3, 8, 8), ()), make_layer("mean", "pool", (3, 8, 8), (1,))
    sizes = [size_estimate.estimate_sprite_sheets([layer], ["mean"], 2, 64) for layer in (single, vector)]
    assert sizes[0] == sizes[1] > 0


def test_the_limits_are_those_of_the_sprites() -> None:
    assert size_estimate.MAX_TILE_CHANNELS == sprites.MAX_TILE_CHANNELS
    limits = evolution.MAX_LAYERS, evolution.MAX_UNITS, evolution_pictures.MAX_SIDE
    assert limits == (
        size_estimate.MAX_EVOLUTION_LAYERS,
        size_estimate.MAX_EVOLUTION_UNITS,
        size_estimate.MAX_EVOLUTION_SIDE,
    )
    limits = selection.DEFAULT_LAYER_COUNT, feature_pictures.MAX_UNITS, feature_views.MAX_CLASSES
    assert limits == (
        size_estimate.DEFAULT_OPTIMISED_LAYERS,
        size_estimate.MAX_OPTIMISED_UNITS,
        size_estimate.MAX_OPTIMISED_CLASSES,
    )


def test_optimised_images_grow_with_their_number_and_size() -> None:
    views = {"layers": ["conv1"], "units": 2, "classes": 0, "size": None}
    few = parts(feature_visualisation=views)["optimised images"]
    assert parts(feature_visualisation=views | {"units": [0, 1, 4, 3]})["optimised images"] == 2 * few
    assert parts(feature_visualisation=views | {"size": 224})["optimised images"] > few
    assert parts()["optimised images"] == 0


def parts(**changes: Any) -> dict[str, float]:
    """Return the expected bytes of each part, with these changes of the views."""
    views = VIEWS | ATLAS | {"layers": ["conv1", "pool"]}
    views["deconv"] = views["deconv"] | {"layers": ["pool"], "units": 4} | changes.pop("deconv", {})
    return size_estimate.estimate_part_sizes(
        complete_layers().layers, views | changes, changes.pop("images", 2)
    )


def test_each_setting_bounds_its_part() -> None:
    before = parts()
    fewer = parts(images=1)
    assert fewer["projections"] == before["projections"] / 2
    assert fewer["feature maps and filters"] < before["feature maps and filters"]
    assert 0.99 * before["figures"] < fewer["figures"] < before["figures"]  # which show the image
    assert (
        parts(atlas={"levels": 8, "layers": None})["feature maps and filters"]
        < before["feature maps and filters"]
    )
    assert (
        parts(atlas={"levels": 64, "layers": ["pool"]})["feature maps and filters"]
        < before["feature maps and filters"]
    )
    for change in ({"units": 2}, {"select": ["map"]}):
        assert parts(deconv=change)["projections"] == before["projections"] / 2
    assert parts(deconv={"layers": "all", "units": "all"})["projections"] > before["projections"]
    assert parts(layers=["pool"])["figures"] == before["figures"] / 2


def test_top_activations_count_where_there_is_a_pass_over_the_data_set() -> None:
    strongest = {"k": 9, "units": 4, "project": None}
    assert parts()["top activations"] == parts(strongest=None)["top activations"] == 0
    size = parts(strongest=strongest)["top activations"]
    assert parts(strongest=strongest | {"k": 3})["top activations"] == pytest.approx(size / 3)
    assert parts(strongest=strongest)["top-activating images"] > parts()["top-activating images"] == 0
    assert parts(strongest=strongest | {"units": 2})["top activations"] == pytest.approx(size / 2)
    assert parts(strongest=strongest | {"project": ["conv1", "pool"]})["top activations"] > size


def test_attribution_maps_count_by_image_method_and_target() -> None:
    attribution = {"methods": ["gradient", "occlusion"], "targets": "predicted", "images": "all"}
    assert parts()["attribution maps"] == parts(attribution=None)["attribution maps"] == 0
    size = parts(attribution=attribution)["attribution maps"]
    for change, factor in (
        ({"images": 1}, 0.5),
        ({"images": 9}, 1),
        ({"images": ["first"]}, 0.5),
        ({"targets": "top3"}, 3),
        ({"targets": ["ant", 2]}, 2),
        ({"methods": ["gradient"]}, 0.5),
    ):
        assert parts(attribution=attribution | change)["attribution maps"] == pytest.approx(factor * size)


def test_large_weight_matrices_and_most_channels_of_kernels_are_not_counted() -> None:
    few = make_layer("a", "linear", (10,), (10,), parameters=100)
    many = make_layer("a", "linear", (10_000,), (1000,), parameters=10_000_000)
    wide = make_layer("a", "conv", (512, 8, 8), (10, 8, 8), parameters=10 * 512 * 9, kernel=[3, 3])
    weights = [
        size_estimate.estimate_sprite_sheets([layer], ["a"], 0, 64) / size_estimate.WEIGHT_BYTES
        for layer in (few, many, wide)
    ]
    assert weights == [100, 0, 10 * 9 * 9]


def test_expected_sizes_are_known_for_recorded_layers(tmp_path: Path) -> None:
    """A network that was never recorded, or whose views name other layers, is listed as unknown."""
    views = VIEWS | ATLAS
    write_json(tmp_path / "known/layers.json", complete_layers().layers)
    write_json(tmp_path / "changed/layers.json", complete_layers().layers)
    networks = {
        "known": {"images": {"first": 5}, "views": views},
        "changed": {"images": {"digits": [1]}, "views": views | {"layers": ["block"]}},
        "new": {"images": {"photographs": ["cat"], "files": ["folder"]}, "views": views},
    }
    files = {"known": [], "changed": [], "new": [f"{n}.png" for n in range(49)]}
    known, unknown = size_estimate.describe_expected_sizes(networks, files, tmp_path)
    assert known.startswith("known takes about ")
    assert "5 images, 10 layers explored; less with" in known
    assert unknown.startswith("changed (1 image), new (50 images): ")
    assert "views.atlas.layers" in unknown
    assert size_estimate.describe_expected_sizes({}, {}, tmp_path) == []


def test_the_largest_part_is_named_with_its_settings() -> None:
    views = VIEWS | ATLAS
    layers = [make_layer("a", "conv", (3, 224, 224), (64, 224, 224), kernel=[3, 3], parameters=1728)]
    views["deconv"] = views["deconv"] | {"layers": ["a"], "units": 1}
    text = size_estimate.describe_size("own", layers, views, 50)
    assert "most of it feature maps and filters: 50 images, 1 layers explored; less with fewer" in text
    assert "views.atlas" in text
    assert json.loads(text.split("about ")[1].split(" MB")[0]) > 50
