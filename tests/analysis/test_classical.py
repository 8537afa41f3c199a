"""Classical operators: against scipy, scikit-image, numpy and pictures made by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import laplace, maximum_filter, minimum_filter
from scipy.signal import convolve2d
from skimage import data
from skimage.feature import peak_local_max
from skimage.filters import prewitt_v, scharr_v, sobel_h, sobel_v

from convatlas.analysis.classical import (
    COLUMN_CAPTIONS,
    FEATURES,
    MapGrid,
    compute_features,
    correlate_maps,
    match_units,
    mean_correlations,
    resample_columns,
    resample_to_grid,
    untrained_baseline,
)
from convatlas.analysis.classical_report import match_first_filters, match_layer, write_classical_matches
from convatlas.analysis.kernels import (
    channel_correlations,
    classical_kernels,
    classify_channels,
    match_kernels,
    random_baseline,
)
from convatlas.analysis.sobel import SOBEL_X
from convatlas.datasets import formats
from convatlas.files import Npz, write_json, write_npz
from convatlas.image_io import denormalize
from convatlas.models import build
from convatlas.pixels import GREY
from convatlas.records import FeatureMatch
from convatlas.tracing.record import collect_filters, record_to_file
from tests.support.dataset_pass import write_digits, write_lenet5

pytestmark = pytest.mark.filterwarnings("error")
RNG = np.random.default_rng(0)
INNER = np.s_[1:-1, 1:-1]
CAT = data.chelsea()[60:188, 100:228].transpose(2, 0, 1) / 255  # the eye
COINS = data.coins()[20:148, 20:148] / 255


def filtered(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """What a convolution layer without padding makes of an image."""
    return convolve2d(image, kernel[::-1, ::-1], mode="valid")


@pytest.mark.parametrize("shape", [(28, 28), (1, 50, 50), (3, 37, 53), (5, 8, 4)])
def test_features_are_of_the_image_s_size(shape: tuple[int, ...]) -> None:
    features = compute_features(RNG.random(shape))
    assert list(features) == list(FEATURES)
    assert {(f.shape, f.dtype.name) for f in features.values()} == {(shape[-2:], "float32")}


def test_edges_are_scipy_s_and_scikit_image_s() -> None:
    gray = RNG.random((20, 30))
    features = compute_features(gray)
    down = np.array([[-2, -1, 0], [-1, 0, 1], [0, 1, 2]])
    for name, kernel in {
        "sobel_x": SOBEL_X,
        "sobel_y": SOBEL_X.T,
        "sobel_diagonal_down": down,
        "sobel_diagonal_up": np.flipud(down),
    }.items():
        np.testing.assert_allclose(features[name][INNER], filtered(gray, kernel) / 4, atol=1e-6)
    np.testing.assert_allclose(features["sobel_x"], sobel_v(gray), atol=1e-6)
    np.testing.assert_allclose(features["sobel_y"], sobel_h(gray), atol=1e-6)
    both = np.hypot(features["sobel_x"], features["sobel_y"]) / np.sqrt(2)
    np.testing.assert_allclose(features["sobel_magnitude"], both, atol=1e-6)
    np.testing.assert_allclose(features["laplacian"], -laplace(gray, mode="nearest"), atol=1e-6)


def test_erosion_and_dilation_are_the_darkest_and_brightest_neighbours() -> None:
    gray = RNG.random((20, 30))
    features = compute_features(gray)
    np.testing.assert_allclose(features["erosion"], minimum_filter(gray, 3, mode="nearest"), atol=1e-6)
    np.testing.assert_allclose(features["dilation"], maximum_filter(gray, 3, mode="nearest"), atol=1e-6)


def test_colours_count_by_their_luminance() -> None:
    brightness = compute_features(np.eye(3)[:, :, None] * np.ones((3, 3, 4)))["brightness"]
    np.testing.assert_allclose(brightness[:, 0], [0.2125, 0.7154, 0.0721], atol=1e-4)


def test_steps_are_edges_of_one_direction() -> None:
    step = np.zeros((9, 9))
    step[:, 5:] = 1
    features, turned = compute_features(step), compute_features(step.T)
    assert features["sobel_x"].max() == 1 and features["sobel_x"].min() == 0
    assert not features["sobel_y"].any() and not features["harris"][2:-2].max() > 1e-4
    assert turned["sobel_y"].max() == 1 and not turned["sobel_x"].any()
    lower_right = compute_features(np.add.outer(np.arange(9), np.arange(9)) > 8)
    assert lower_right["sobel_diagonal_down"].max() == 1
    assert not lower_right["sobel_diagonal_up"][2:-2, 2:-2].any()


def test_a_square_has_four_corners_and_the_frame_has_none() -> None:
    square = np.full((40, 40), 0.8)
    square[10:30, 12:28] = 0.1
    harris = compute_features(square)["harris"]
    peaks = peak_local_max(harris, threshold_rel=0.5, exclude_border=False)
    expected = np.array([(y, x) for y in (10, 29) for x in (12, 27)])
    np.testing.assert_allclose(peaks[np.lexsort(peaks.T[::-1])], expected, atol=1)
    assert harris.min() >= 0 and harris[:4].max() < 1e-6


def test_binary_patterns_count_neighbours_as_bright() -> None:
    dot = np.full((9, 9), 0.2)
    dot[4, 4] = 0.9
    pattern = compute_features(dot)["lbp"]
    assert pattern[4, 4] == 0 and pattern[0, 0] == 8 and pattern.max() <= 9


def test_a_flat_image_shows_nothing() -> None:
    features = compute_features(np.full((3, 12, 12), 0.3))
    assert not any(features[name].any() for name, feature in FEATURES.items() if feature.bright_side)
    assert not correlate_maps(RNG.random((4, 6, 6)), resample_columns(features, (6, 6))).any()


@pytest.mark.parametrize("size", [(7, 7), (5, 9), (28, 20), (56, 40)])
def test_reduction_is_the_mean_over_boxes(size: tuple[int, int]) -> None:
    values = RNG.random((2, 28, 20))
    fine = values.repeat(size[0], axis=1).repeat(size[1], axis=2)
    expected = fine.reshape(2, size[0], 28, size[1], 20).mean(axis=(2, 4))
    np.testing.assert_allclose(resample_to_grid(values, size), expected)


def test_correlations_are_numpy_s_without_the_border() -> None:
    maps = RNG.standard_normal((5, 28, 30)).astype(np.float32)
    known = resample_columns(compute_features(CAT), (28, 30))
    correlation = correlate_maps(maps, known)
    rows = np.concatenate([maps, np.stack(list(known.values()))])[:, 2:-2, 2:-2].reshape(
        5 + len(COLUMN_CAPTIONS), -1
    )
    np.testing.assert_allclose(correlation, np.corrcoef(rows)[:5, 5:], atol=1e-6)
    assert correlation.dtype == np.float32
    framed = maps.copy()
    framed[:, :2] = framed[:, -2:] = 1e3
    np.testing.assert_array_equal(correlate_maps(framed, known), correlation)


def test_constant_and_broken_maps_correlate_with_nothing() -> None:
    maps = np.stack([np.full((8, 8), v, np.float32) for v in (0, 0.1, -1e6, np.nan, np.inf)])
    maps[4, 0, 0] = 0
    assert not correlate_maps(maps, resample_columns(compute_features(CAT), (8, 8))).any()
    small = 1e-9 * RNG.random((1, 8, 8), np.float32)
    assert correlate_maps(small, resample_columns(compute_features(CAT), (8, 8))).all()


def match_photographs(*maps: np.ndarray, grid: MapGrid | None = None) -> list[FeatureMatch | None]:
    """Match the units with these maps of both photographs, alternately of the eye and of the coins."""
    correlations = [
        correlate_maps(np.stack(unit_maps), resample_columns(features, unit_maps[0].shape, grid))
        for unit_maps, features in (
            (maps[0::2], compute_features(CAT)),
            (maps[1::2], compute_features(COINS)),
        )
    ]
    return match_units(mean_correlations(correlations), baseline=0.4)


def test_units_match_the_features_of_their_filters() -> None:
    images = compute_features(CAT)["brightness"], COINS
    valid = MapGrid((1.0, 1.0))
    edges = [filtered(image, SOBEL_X) for image in images]
    noise = [RNG.standard_normal(edge.shape) for edge in edges]
    signed = match_photographs(*edges, *(-3 * edge.T for edge in edges), *noise, grid=valid)
    assert [match and match["feature"] for match in signed] == ["sobel_x", None, None]
    assert signed[0]["r"] == pytest.approx(1, abs=1e-5)
    assert signed[0]["description"] == "vertical edge"
    assert match_photographs(*(-edge for edge in edges), grid=valid)[0]["r"] == pytest.approx(-1, abs=1e-5)

    halves = [np.maximum(sign * edge, 0) for sign in (1, -1) for edge in edges]
    rectified = match_photographs(*halves, grid=valid)
    assert [match["feature"] for match in rectified] == ["sobel_x+", "sobel_x-"]
    assert [match["r"] for match in rectified] == pytest.approx([1, 1], abs=1e-5)
    assert rectified[1]["description"] == "vertical edge, darker to the right"


@pytest.mark.parametrize("name", COLUMN_CAPTIONS)
def test_a_feature_matches_itself_best(name: str) -> None:
    """Also at half the size."""
    maps = [resample_columns(compute_features(image), (64, 64))[name] for image in (CAT, COINS)]
    match = match_photographs(*maps)[0]
    # Erosion and dilation are close to brightness in a photograph.
    similar = COLUMN_CAPTIONS if name in ("erosion", "dilation") else [name]
    assert match["feature"] in similar and match["r"] > 0.98


def test_brightness_is_preferred_unless_another_feature_is_clearly_better() -> None:
    row = np.zeros((1, len(COLUMN_CAPTIONS)), np.float32)
    row[0, list(COLUMN_CAPTIONS).index("erosion")] = 0.9
    for brightness, name in ((-0.89, "brightness"), (0.87, "erosion")):
        row[0, 0] = brightness
        assert match_units(row, 0.5)[0]["feature"] == name
    assert match_photographs(CAT.mean(axis=0), COINS)[0]["feature"] == "brightness"


def test_a_match_reaches_the_threshold_and_exceeds_the_baseline() -> None:
    row = np.zeros((1, len(COLUMN_CAPTIONS)), np.float32)
    row[0, 1] = -0.75
    match = {"feature": "sobel_x", "description": "vertical edge", "r": -0.75}
    assert match_units(row, 0.41) == [match]
    assert match_units(row, 0.41, threshold=0.75) == [match]  # the threshold itself suffices
    assert match_units(row, 0.75) == [None]  # the baseline must be exceeded
    assert match_units(row, 0.1, threshold=0.8) == [None]


def test_a_twentieth_of_untrained_units_beat_their_baseline() -> None:
    untrained = RNG.uniform(-1, 1, (400, len(COLUMN_CAPTIONS))).astype(np.float32)
    baseline = untrained_baseline(untrained)
    assert np.mean(np.abs(untrained).max(axis=1) > baseline) == pytest.approx(0.05)
    assert sum(match is not None for match in match_units(untrained, baseline, 0)) <= 20


def test_all_images_count_alike() -> None:
    a, b = RNG.random((2, 3, len(COLUMN_CAPTIONS)), np.float32)
    np.testing.assert_allclose(mean_correlations([a, b]), (a + b) / 2, rtol=1e-6)


def test_kernels_of_three_are_the_published_ones() -> None:
    impulse = np.zeros((5, 5))
    impulse[2, 2] = 1
    kernels = classical_kernels(3)
    for name, operator in {"Sobel x": sobel_v, "Prewitt x": prewitt_v, "Scharr x": scharr_v}.items():
        published = operator(impulse)[1:4, ::-1][:, 1:4]  # an impulse shows a kernel turned around
        np.testing.assert_allclose(kernels[name], published / np.linalg.norm(published), atol=1e-12)
    assert not any("Gabor" in name for name in kernels)


def test_wider_kernels() -> None:
    sobel = np.outer([1, 4, 6, 4, 1], [-1, -2, 0, 2, 1])  # OpenCV's of five
    np.testing.assert_allclose(classical_kernels(5)["Sobel x"], sobel / np.linalg.norm(sobel))
    for size in (3, 5, 7, 11):
        for name, kernel in classical_kernels(size).items():
            assert kernel.shape == (size, size) and abs(kernel.mean()) < 1e-12, name
            assert np.linalg.norm(kernel) == pytest.approx(1)
            if "Gabor" in name:
                turned = kernel[::-1, ::-1]
                np.testing.assert_allclose(kernel, turned if "even" in name else -turned, atol=1e-12)
    down = classical_kernels(7)["Gabor 45° λ7 odd"]
    assert (down * classical_kernels(7)["Sobel 45° down"]).sum() > 0.9
    assert classical_kernels(0) == classical_kernels(1) == classical_kernels(2) == classical_kernels(4) == {}


def test_planted_kernels_are_found_with_their_sign() -> None:
    known = classical_kernels(7)
    weight = np.array(
        [[-3 * known["Gabor 90° λ4 even"] + 5, known["Gaussian"]], [np.ones((7, 7)), known["Prewitt y"]]]
    )
    values, names = match_kernels(weight)
    assert names == [["Gabor 90° λ4 even", "Gaussian"], ["", "Prewitt y"]]
    np.testing.assert_allclose(values, [[-1, 1], [0, 1]], atol=1e-6)


def test_kernels_are_matched_by_numpy_s_correlation() -> None:
    weight = RNG.standard_normal((4, 2, 5, 5)).astype(np.float32)
    values, names = match_kernels(weight)
    known = classical_kernels(5)
    for unit in range(4):
        for channel in range(2):
            r = {n: np.corrcoef(weight[unit, channel].ravel(), k.ravel())[0, 1] for n, k in known.items()}
            name = max(r, key=lambda n: abs(r[n]))
            assert names[unit][channel] == name
            assert values[unit, channel] == pytest.approx(r[name], abs=1e-6)


@pytest.mark.parametrize("shape", [(8, 3, 1, 1), (8, 3, 2, 2), (8, 3, 4, 4), (8, 3, 3, 5)])
def test_other_filters_have_no_matches(shape: tuple[int, ...]) -> None:
    assert match_kernels(RNG.standard_normal(shape)) is None


def test_a_twentieth_of_random_filters_beat_their_baseline() -> None:
    for size in (3, 5, 7):
        values, _ = match_kernels(RNG.standard_normal((4000, 1, size, size)))
        assert np.mean(np.abs(values) > random_baseline(size)) == pytest.approx(0.05, abs=0.02)
    assert random_baseline(3) > random_baseline(5) > random_baseline(11)
    assert random_baseline(4) == 1


def test_colours_of_filters() -> None:
    edge, other, noise = RNG.standard_normal((3, 7, 7))
    weight = np.stack([[edge, 2 * edge, edge + 1], [edge, edge, -edge], [edge, other, noise]])
    correlations = channel_correlations(weight)
    rows = [np.corrcoef(unit.reshape(3, -1))[[0, 0, 1], [1, 2, 2]] for unit in weight]
    np.testing.assert_allclose(correlations, rows, atol=1e-6)
    assert [classify_channels(row) for row in correlations] == ["luminance", "colour", "mixed"]
    chance = channel_correlations(RNG.standard_normal((4000, 3, 3, 3)))
    assert np.mean([classify_channels(row) != "mixed" for row in chance]) < 0.05
    assert not channel_correlations(RNG.standard_normal((2, 3, 1, 1))).any()


# The report

COLOUR: Any = {"mean": [0.5] * 3, "std": [0.5] * 3}


def make_layer(**changes: Any) -> Any:
    """Return an entry of layers.json of a first convolution."""
    layer = {"name": "conv", "module": "conv", "ordinal": 1, "called": True, "output_shape": [4, 8, 8]}
    return layer | changes


def test_the_first_filters_are_matched(tmp_path: Path) -> None:
    weight = np.stack([np.stack([SOBEL_X] * 3), np.stack([SOBEL_X, SOBEL_X, -SOBEL_X])])
    write_npz(tmp_path / "filters.npz", {"conv": weight.astype(np.float32), "line": weight[..., 0]})
    filters = Npz(tmp_path / "filters.npz")
    matches = match_first_filters([make_layer(name="other", ordinal=None), make_layer()], filters, COLOUR)
    assert matches["layer"] == "conv"
    assert matches["kernels"][0] == ["Sobel x"] * 3
    np.testing.assert_allclose(matches["r"], [[1, 1, 1], [1, 1, -1]], atol=1e-6)
    assert matches["colour_classes"] == ["luminance", "colour"]
    assert matches["baseline"] == random_baseline(3)
    channels = np.stack([SOBEL_X, SOBEL_X.T, SOBEL_X]).astype(np.float32)
    write_npz(tmp_path / "bgr.npz", {"conv": channels[None]})
    swapped = match_first_filters([make_layer()], Npz(tmp_path / "bgr.npz"), {**COLOUR, "channels": "bgr"})
    assert swapped["kernels"] == [["Sobel x", "Sobel y", "Sobel x"]]
    assert match_first_filters([make_layer(module="line")], filters, COLOUR) is None
    assert match_first_filters([make_layer(module="absent")], filters, COLOUR) is None
    assert match_first_filters([], filters, COLOUR) is None


def test_a_layer_is_matched_above_what_it_reaches_untrained() -> None:
    trained = np.zeros((2, len(COLUMN_CAPTIONS)), np.float32)
    trained[:, 1] = 0.9, 0.55
    untrained = np.full((2, len(COLUMN_CAPTIONS)), 0.6, np.float32)
    result = match_layer([trained, trained], [untrained], 0.5)
    assert result["baseline"] == pytest.approx(0.6)
    assert [match and match["feature"] for match in result["units"]] == ["sobel_x", None]


@pytest.mark.filterwarnings("default")
def test_matches_of_a_network_are_written_with_its_features(tmp_path: Path) -> None:
    folder, data = write_lenet5(tmp_path / "results/lenet5"), write_digits(tmp_path)
    network, preprocessing = build.load_network(folder)
    pixels = formats.load(data, "test").read_images(GREY, preprocessing.size, preprocessing.resize, [3, 7])
    (folder / "activations").mkdir()
    for name, x in zip(("a", "b"), preprocessing(torch.from_numpy(pixels)), strict=True):
        record_to_file(network, x[None], folder / f"activations/{name}.npz")
    write_npz(folder / "filters.npz", {k: w.numpy() for k, w in collect_filters(network).items()})
    write_json(folder / "images.json", [{"name": "a"}, {"name": "b"}])
    description = json.loads((folder / "network.json").read_text())
    write_json(folder / "network.json", description | {"seed": 0})

    write_classical_matches(folder, 0.3, torch.device("cpu"))

    written = folder / "classical"
    assert sorted(path.name for path in written.iterdir()) == ["a.npz", "b.npz", "filters.json", "units.json"]
    assert list(Npz(written / "a.npz")) == list(FEATURES)
    units = json.loads((written / "units.json").read_text())
    assert units["threshold"] == 0.3
    assert list(units["layers"]) == ["conv1", "relu1", "pool1", "conv2", "relu2", "pool2"]
    outputs, inputs = Npz(folder / "activations/a.npz"), Npz(folder / "activations/b.npz")
    expected = []
    for arrays in (outputs, inputs):
        features = compute_features(denormalize(arrays["input"], preprocessing.to_dict()))
        expected.append(correlate_maps(arrays["conv1"], resample_columns(features, (28, 28), MapGrid())))
    baseline = units["layers"]["conv1"]["baseline"]
    assert units["layers"]["conv1"]["units"] == match_units(mean_correlations(expected), baseline, 0.3)
    assert 0.3 < baseline < 1
    filters = json.loads((written / "filters.json").read_text())
    assert (filters["layer"], filters["channel_correlations"]) == ("conv1", None)
