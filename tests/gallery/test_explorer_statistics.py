"""The statistics over the data set in the explorer's files, against plain loops."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convatlas.files import read_json
from convatlas.gallery.explorer_sprites import draw_explorer
from convatlas.gallery.explorer_statistics import encode_histograms
from convatlas.plotting import top_activation_tiles
from convatlas.statistics.class_preference import find_preferred_classes
from convatlas.statistics.histogram_bins import list_bin_edges
from tests.support.explorer_site import SETTINGS
from tests.support.fake_statistics import (
    FIELD,
    N_IMAGES,
    FakeStatistics,
    count_bins,
    write_network_with_statistics,
)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> FakeStatistics:
    """A network with statistics whose sprites are drawn."""
    network = write_network_with_statistics(tmp_path_factory.mktemp("own"))
    draw_explorer(network.network_folder, "own", SETTINGS | {"has_top_activations": True})
    return network


def read_index(folder: Path) -> dict[str, Any]:
    """Return the layers of atlas.json, by name."""
    return {layer["name"]: layer for layer in read_json(folder / "atlas.json")["layers"]}


def test_a_tile_has_the_projections_and_patches_of_its_unit(network: FakeStatistics) -> None:
    folder = network.network_folder / "atlas"
    index = read_index(folder)
    preprocessing = network.results.network["preprocessing"]
    for name in ("conv1", "pool"):
        sheets, arrays = index[name]["top_activations"], network.layers[name]
        assert sheets["units"] == arrays["units"].tolist()
        assert (sheets["patch_size"], sheets["suffix"]) == ([*FIELD], "png")
        sheet = np.asarray(Image.open(folder / f"strongest/{index[name]['slug']}.png").convert("RGB"))
        height, width = sheets["tile_size"]
        for n in range(len(sheets["units"])):
            scale = top_activation_tiles.fit_projection_scale(arrays["projections"][n])
            assert sheets["max_abs"][n] == pytest.approx(scale.high, rel=1e-5)
            row, column = divmod(n, sheets["columns"])
            tile = sheet[row * height : (row + 1) * height, column * width : (column + 1) * width]
            left = top_activation_tiles.assemble_tile_block(
                top_activation_tiles.render_projections(scale, arrays["projections"][n])
            ).astype(int)
            right = top_activation_tiles.assemble_tile_block(
                top_activation_tiles.render_patches(preprocessing, arrays["patches"][n])
            ).astype(int)
            assert np.abs(tile[:, : left.shape[1]] - left).mean() <= 1.2
            assert np.abs(tile[:, -right.shape[1] :] - right).mean() <= 1.2
    others = [layer for name, layer in index.items() if name not in ("conv1", "pool")]
    assert not any(layer["top_activations"] for layer in others)


def test_the_numbers_of_units_are_those_of_the_statistics(network: FakeStatistics) -> None:
    folder = network.network_folder / "atlas"
    assert read_json(folder / "atlas.json")["dataset_pass"]["images"] == N_IMAGES
    for name, layer in read_index(folder).items():
        numbers = read_json(folder / f"units/{layer['slug']}.json")["dataset_pass"]
        arrays = network.layers[name]
        for key in ("mean", "std", "max", "zero_fraction", "selectivity"):
            expected = [None if np.isnan(value) else value for value in arrays[key].tolist()]
            assert len(numbers[key]) == len(expected)
            for value, expected_value in zip(numbers[key], expected, strict=True):
                assert (value is None) == (expected_value is None)
                assert value is None or value == pytest.approx(expected_value, rel=1e-3)
        assert numbers["dead"] == np.flatnonzero(arrays["dead"]).tolist()
        class_images = np.array(read_json(network.network_folder / "statistics.json")["class_images"])
        preference = find_preferred_classes(
            {f"a@{key}": array for key, array in arrays.items()}, "a", class_images, N_IMAGES
        )
        assert {int(unit): number for unit, (number, _) in numbers["preferred_classes"].items()} == {
            unit: number for unit, number in enumerate(preference.preferred.tolist()) if number >= 0
        }
        assert ("histogram" in numbers) == (layer["kind"] != "reshape")


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_the_bars_of_a_histogram_are_the_density_of_the_values(scale: float) -> None:
    values = scale * np.random.default_rng(0).normal(0.5, 1, (1000, 3, 4)).astype(np.float32)
    values[:, 1] = np.maximum(values[:, 1], 0)  # as behind a ReLU
    values[:, 2] = 0
    histograms = encode_histograms(count_bins(values))
    assert histograms["values"] == 4000
    assert histograms["largest"][2] == 0 and histograms["levels"][2] == ""
    for unit in (0, 1):
        last = histograms["largest"][unit]
        edges = np.array([0, *list_bin_edges()[max(last - 10, 1) : last + 1]])
        bounds = np.array([*-edges[:0:-1], *edges]) if unit == 0 else edges
        nonzero = values[:, unit][values[:, unit] != 0]
        assert np.abs(nonzero).max() < bounds[-1]
        density, _ = np.histogram(nonzero, bounds, density=True)
        levels = np.array([int(level, 36) for level in histograms["levels"][unit]])
        assert len(levels) == len(bounds) - 1
        np.testing.assert_allclose(levels / 35, density / density.max(), atol=1 / 35 + 1e-3)
