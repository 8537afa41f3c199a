"""The figures of the images on which units are most relevant to a class."""

from pathlib import Path

import numpy as np
import pytest

from convatlas.figures import build
from convatlas.files import write_npz
from convatlas.plotting.labelled_figure import figure_style
from convatlas.plotting.top_activation_tiles import assemble_tile_block, render_patches
from convatlas.results import Results
from tests.figures.test_top_activations import find_positions
from tests.support.arrays import read_npz
from tests.support.fake_results import VIEWS
from tests.support.fake_statistics import (
    FIELD,
    PROJECTED_UNITS,
    FakeStatistics,
    K,
    write_network_with_statistics,
)


def add_relevance(network: FakeStatistics, classes: list[int]) -> dict[str, np.ndarray]:
    """Add relevance of the units of pool to strongest.npz; the first unit has no relevant image."""
    path = network.network_folder / "strongest.npz"
    arrays = read_npz(path)
    units = PROJECTED_UNITS["pool"]
    shape = (len(classes), len(units), K)
    images = np.broadcast_to(arrays["pool@images"][units], shape).copy()
    images[:, :, 0] = 29 - images[:, :, 0]  # another image, in most units
    images[:, 0] = -1
    patches = np.random.default_rng(3).normal(size=(*shape, 3, *FIELD)).astype(np.float32)
    patches[images < 0] = np.nan
    added = {
        "pool@relevance_classes": np.array(classes, np.int32),
        "pool@relevance": (images >= 0).astype(np.float32),
        "pool@relevance_images": images,
        "pool@relevance_positions": np.zeros((*shape, 2), np.int32),
        "pool@relevance_patches": patches,
    }
    write_npz(path, arrays | added)
    return arrays | added


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> FakeStatistics:
    return write_network_with_statistics(tmp_path_factory.mktemp("own"))


def test_patches_by_relevance_stand_beside_those_by_activation(
    network: FakeStatistics, tmp_path: Path
) -> None:
    arrays = add_relevance(network, [2, 0])
    with figure_style():
        figures = [
            figure
            for figure in build.draw_figures(Results(network.network_folder), VIEWS | {"strongest": {"k": K}})
            if figure.kind == "relevance"
        ]
    assert [figure.file for figure in figures] == ["relevance-pool-2.png", "relevance-pool-0.png"]
    preprocessing = network.results.network["preprocessing"]
    names = network.results.network["classes"]
    for row, (label, figure) in enumerate(zip((2, 0), figures, strict=True)):
        assert f"most relevant to the class {names[label]} beside" in figure.caption
        canvas = figure.figure.images[0].pixels
        for n in (1, 2):
            blocks = [
                assemble_tile_block(render_patches(preprocessing, patches), round(72 / 5))
                for patches in (arrays["pool@patches"][n], arrays["pool@relevance_patches"][row, n])
            ]
            [(top, left)], [(right_top, right)] = (find_positions(canvas, block) for block in blocks)
            assert top == right_top
            assert left < right
