"""The size of a gallery, told before it is made."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convatlas.files import write_json
from convatlas.pipeline import size_estimate
from tests.plotting.test_sprites import drawn, records
from tests.support.fake_results import VIEWS, FakeResults, make_layer

ATLAS = {"atlas": {"levels": 64, "layers": None}}


def large() -> FakeResults:
    """Maps as networks make them: smooth, with noise; large enough that what a file costs does not count."""
    results = records()
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
def test_what_is_expected_is_what_comes_to_within_a_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, levels: int
) -> None:
    results = large()
    names = [described["name"] for described in results.layers[:3]]
    folder, _ = drawn(tmp_path, results, layers=names, levels=levels)
    made = sum(
        path.stat().st_size for part in ("maps", "filters", "units") for path in (folder / part).rglob("*.*")
    )
    told = size_estimate.estimate_sprite_sheets(results.layers, names, len(results.activations), levels)
    assert 0.67 < told / made < 1.5


def test_the_layers_explored_are_those_of_the_atlas_or_of_the_views() -> None:
    layers = records().layers
    views = VIEWS | {"layers": ["conv1"]}
    assert size_estimate.choose_explored_layers(layers, views | ATLAS) == ["conv1"]
    assert size_estimate.choose_explored_layers(layers, views | {"atlas": {"layers": ["f*"]}}) == [
        "flatten",
        "fc",
    ]


def parts(**changes: Any) -> dict[str, float]:
    views = VIEWS | ATLAS | {"layers": ["conv1", "pool"]}
    views["deconv"] = views["deconv"] | {"layers": ["pool"], "units": 4} | changes.pop("deconv", {})
    return size_estimate.estimate_part_sizes(records().layers, views | changes, changes.pop("images", 2))


def test_each_setting_bounds_what_it_is_said_to() -> None:
    before = parts()
    fewer = parts(images=1)
    assert fewer["projections"] == before["projections"] / 2
    assert fewer["maps and filters"] < before["maps and filters"]
    assert 0.99 * before["plates"] < fewer["plates"] < before["plates"]  # the image is on them
    assert parts(atlas={"levels": 8, "layers": None})["maps and filters"] < before["maps and filters"]
    assert parts(atlas={"levels": 64, "layers": ["pool"]})["maps and filters"] < before["maps and filters"]
    for given in ({"units": 2}, {"select": ["map"]}):
        assert parts(deconv=given)["projections"] == before["projections"] / 2
    assert parts(deconv={"layers": "all", "units": "all"})["projections"] > before["projections"]
    assert parts(layers=["pool"])["plates"] == before["plates"] / 2


def test_what_excites_units_counts_where_it_is_sought_for() -> None:
    asked = {"k": 9, "units": 4, "project": None}
    assert parts()["what excites units most"] == parts(strongest=None)["what excites units most"] == 0
    one = parts(strongest=asked)["what excites units most"]
    assert parts(strongest=asked | {"k": 3})["what excites units most"] == pytest.approx(one / 3)
    assert parts(strongest=asked | {"units": 2})["what excites units most"] == pytest.approx(one / 2)
    assert parts(strongest=asked | {"project": ["conv1", "pool"]})["what excites units most"] > one


def test_single_weights_beyond_number_and_kernels_of_many_channels_cost_nothing() -> None:
    few = make_layer("a", "linear", (10,), (10,), parameters=100)
    many = make_layer("a", "linear", (10_000,), (1000,), parameters=10_000_000)
    wide = make_layer("a", "conv", (512, 8, 8), (10, 8, 8), parameters=10 * 512 * 9, kernel=[3, 3])
    told = [
        size_estimate.estimate_sprite_sheets([each], ["a"], 0, 64) / size_estimate.WEIGHT_BYTES
        for each in (few, many, wide)
    ]
    assert told == [100, 0, 10 * 9 * 9]


def test_before_a_run_what_is_known_is_told_with_what_bounds_it(tmp_path: Path) -> None:
    """Of what was never recorded, or with layers that are not there yet, it is said that it is not known."""
    views = VIEWS | ATLAS
    write_json(tmp_path / "known/layers.json", records().layers)
    write_json(tmp_path / "changed/layers.json", records().layers)
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


def test_most_of_it_is_named_with_its_setting() -> None:
    views = VIEWS | ATLAS
    large = [make_layer("a", "conv", (3, 224, 224), (64, 224, 224), kernel=[3, 3], parameters=1728)]
    views["deconv"] = views["deconv"] | {"layers": ["a"], "units": 1}
    text = size_estimate.describe_size("own", large, views, 50)
    assert (
        "most of it maps and filters: 50 images, 1 layers explored; less with fewer images, views.atlas"
        in text
    )
    assert json.loads(text.split("about ")[1].split(" MB")[0]) > 50
