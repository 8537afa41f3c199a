"""The figures of top activations, tile by tile."""

from typing import Any

import numpy as np
import pytest

from convatlas.figures import build
from convatlas.files import write_npz
from convatlas.plotting import top_activation_tiles
from convatlas.plotting.labelled_figure import figure_style
from convatlas.results import Results
from tests.support.fake_results import VIEWS
from tests.support.fake_statistics import (
    DEAD_UNITS,
    N_IMAGES,
    FakeStatistics,
    K,
    write_network_with_statistics,
)


@pytest.fixture(scope="module", params=[3, 1], ids=["colour", "grey"])
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FakeStatistics:
    return write_network_with_statistics(tmp_path_factory.mktemp("network"), request.param)


@pytest.fixture(scope="module")
def colour_network(tmp_path_factory: pytest.TempPathFactory) -> FakeStatistics:
    return write_network_with_statistics(tmp_path_factory.mktemp("own"))


def draw(network: FakeStatistics, **views: Any) -> dict[str, Any]:
    """Draw the figures of top activations, by layer."""
    with figure_style():
        figures = build.draw_figures(Results(network.network_folder), VIEWS | {"strongest": {"k": K}} | views)
        return {figure.subject: figure for figure in figures if figure.kind == "strongest"}


def find_positions(canvas: np.ndarray, picture: np.ndarray) -> list[tuple[int, int]]:
    """Find where a picture is on a canvas."""
    height, width = picture.shape[:2]
    corners = np.argwhere((canvas == picture[0, 0]).all(-1))
    return [
        (top, left)
        for top, left in corners.tolist()
        if np.array_equal(canvas[top : top + height, left : left + width], picture)
    ]


def test_a_figure_shows_the_projections_of_each_unit_beside_its_patches(network: FakeStatistics) -> None:
    figures = draw(network)
    assert list(figures) == ["conv1", "pool"]
    preprocessing = network.results.network["preprocessing"]
    for layer, figure in figures.items():
        canvas = figure.figure.images[0].pixels
        projections, patches = network.layers[layer]["projections"], network.layers[layer]["patches"]
        scale = top_activation_tiles.fit_projection_scale(projections)
        factor = round(72 / 5)
        previous = (0, -1)
        for n, _ in enumerate(network.layers[layer]["units"]):
            left_block = top_activation_tiles.assemble_tile_block(
                top_activation_tiles.render_projections(scale, projections[n]), factor
            )
            right_block = top_activation_tiles.assemble_tile_block(
                top_activation_tiles.render_patches(preprocessing, patches[n]), factor
            )
            if n in DEAD_UNITS.get(layer, []):
                continue  # crossed out
            [(top, left)], [(right_top, right)] = (
                find_positions(canvas, left_block),
                find_positions(canvas, right_block),
            )
            assert top == right_top
            assert left + left_block.shape[1] < right
            assert (top, left) > previous  # in the order of the units
            previous = (top, left)
        assert f"over {N_IMAGES} test images of animals" in figure.caption
        assert "Beige: outside the image." in figure.explanation
    assert "of each unit" in figures["conv1"].caption
    assert "receptive field 5 × 4 pixels" in figures["conv1"].explanation
    assert "3 of 18 units" in figures["pool"].caption


def test_units_are_labelled_with_their_top_activation(
    network: FakeStatistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_by_layer: dict[str, Any] = {}
    make_montage = build.FigureContext.make_montage

    def record_rows(self: Any, kind: str, subject: str, rows: list, *rest: Any, **layout: Any) -> Any:
        rows_by_layer[subject] = rows
        return make_montage(self, kind, subject, rows, *rest, **layout)

    monkeypatch.setattr(build.FigureContext, "make_montage", record_rows)
    draw(network)
    for layer in ("conv1", "pool"):
        tiles = [tile for row in rows_by_layer[layer] for tile in row[::2]]
        units, dead_units = network.layers[layer]["units"], DEAD_UNITS.get(layer, [])
        values = network.layers[layer]["values"]
        assert [tile.title for tile in tiles] == [f"unit {unit}" for unit in units]
        labels = ["dead" if unit in dead_units else f"{values[unit, 0]:.3g}" for unit in units]
        assert [tile.right_title for tile in tiles] == labels
        assert [tile.crossed_out for tile in tiles] == [unit in dead_units for unit in units]


def test_units_have_their_own_scale_or_share_one(colour_network: FakeStatistics) -> None:
    figure = draw(colour_network, scale="per_tile")["conv1"]
    assert "a scale per unit" in figure.explanation
    max_abs = max(
        top_activation_tiles.fit_projection_scale(colour_network.layers[layer]["projections"]).high
        for layer in ("conv1", "pool")
    )
    for figure in draw(colour_network, scale="shared").values():
        texts = [text.get_text() for text in figure.figure.texts]
        assert f"{max_abs:.3g}" in texts


def test_there_are_no_figures_where_the_config_asks_for_none(colour_network: FakeStatistics) -> None:
    assert draw(colour_network, strongest=None) == {}


def test_a_box_is_outlined_as_far_as_it_is_within_its_tile() -> None:
    tile = np.zeros((20, 24, 3), np.uint8)
    top_activation_tiles.outline_box(tile, np.array([6, 8]), np.array([4, 5]))
    is_drawn = (tile == top_activation_tiles.OUTLINE_COLOUR).all(-1)
    assert is_drawn[4:12, 6:15].sum() == is_drawn.sum() == 8 * 9 - 4 * 5
    assert not tile[6:10, 8:13].any()
    tile[:] = 0
    top_activation_tiles.outline_box(tile, np.array([-3, 20]), np.array([6, 9]))
    is_drawn = (tile == top_activation_tiles.OUTLINE_COLOUR).all(-1)
    assert is_drawn[:5, 18:20].all() and is_drawn[3:5, 18:].all() and not is_drawn[:3, 20:].any()
    assert is_drawn.sum() == 5 * 2 + 2 * 4


def test_tiny_patches_are_outlined_in_the_image_around_them(network: FakeStatistics) -> None:
    folder = network.network_folder
    with np.load(folder / "strongest.npz") as file:
        arrays = dict(file)
    shape = arrays["conv1@patches"].shape
    contexts = np.random.default_rng(0).random((*shape[:3], 12, 12), dtype=np.float32)
    corners = np.zeros((*shape[:2], 2), np.int32)
    arrays |= {"conv1@contexts": contexts, "conv1@context_corners": corners}
    arrays["conv1@corners"] = corners + np.array([3, 4])
    write_npz(folder / "strongest.npz", arrays)
    figure = draw(network)["conv1"]
    assert "outlined in the image around them" in figure.explanation
    canvas = figure.figure.images[0].pixels
    n_outlined = (canvas == top_activation_tiles.OUTLINE_COLOUR).all(-1).sum()
    height, width = 6 * shape[3], 6 * shape[4]  # pixels of 12 enlarged to 72
    assert n_outlined == shape[0] * shape[1] * ((height + 4) * (width + 4) - height * width)
