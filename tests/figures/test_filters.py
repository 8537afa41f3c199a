"""Figures of filters, and of filters beside their feature maps."""

import numpy as np
import pytest

from convatlas.analysis.kernels import random_baseline
from tests.support.drawings import Draw, make_wide_results
from tests.support.fake_results import (
    make_results,
    match_first_filters,
)


def test_each_filter_is_its_unit_and_channel(draw: Draw) -> None:
    results = make_results()
    drawn = draw(results)
    drawn_units = []
    for label, unit, tile in drawn["filters", "block.conv2"].tiles:
        channel = int(label.removeprefix("channel "))
        np.testing.assert_array_equal(tile.values, results.filters["block.conv2"][unit, channel])
        drawn_units.append((unit, channel))
    assert len(drawn_units) == len(set(drawn_units)) == 18 * 8


def test_each_filter_of_a_transposed_convolution_is_its_unit(draw: Draw) -> None:
    """Their weight is (inputs, units, ...), as in state_dict()."""
    results = make_results()
    results.layers[3]["type"] = "ConvTranspose2d"
    weight = results.filters["block.conv2"] = results.filters["block.conv2"].swapaxes(0, 1).copy()
    drawn_units = set()
    for label, unit, tile in draw(results)["filters", "block.conv2"].tiles:
        np.testing.assert_array_equal(tile.values, weight[int(label.removeprefix("channel ")), unit])
        drawn_units.add(unit)
    assert drawn_units == set(range(18))


def test_filters_of_rgb_images_are_drawn_as_rgb(draw: Draw) -> None:
    """Grey is zero, and the end of the scale is the largest weight of any unit."""
    results = make_results()
    weight = results.filters["conv1"]
    results.filter_matches = match_first_filters(weight)
    drawing = draw(results, scale="per_layer")["filters", "conv1"]
    assert [len(row) for row in drawing.rows] == [16, 4]
    assert drawing.labels == ["units\n0–3", "units\n4"] and drawing.layout["group_starts"] == (4, 8, 12)
    tiles = [tile for row in drawing.rows for tile in row if tile]
    for unit, kernel in enumerate(weight):
        composite, *channels = tiles[4 * unit : 4 * unit + 4]
        expected = 0.5 + kernel.transpose(1, 2, 0) / (2 * abs(weight).max())
        np.testing.assert_allclose(composite.values, expected, atol=1e-6)
        assert (composite.title, composite.note) == (
            str(unit),
            results.filter_matches["colour_classes"][unit],
        )
        assert [tile.title for tile in channels] == ["R", "G", "B"]
        red, green, blue = kernel.reshape(3, -1)
        pairs = {"RG": (red, green), "GB": (green, blue), "BR": (blue, red)}
        for tile, values, (name, pair) in zip(channels, kernel, pairs.items(), strict=True):
            np.testing.assert_array_equal(tile.values, values)
            letters, r = tile.note.split()
            assert letters == name
            assert float(r.replace("−", "-")) == pytest.approx(np.corrcoef(*pair)[0, 1], abs=0.00501)


def test_captions_name_the_matched_kernels(draw: Draw) -> None:
    results = make_results()
    results.filters["conv1"] *= 1e-3
    results.filters["conv1"][3, 1] -= [[1, 0, -1], [2, 0, -2], [1, 0, -1]]
    results.filter_matches = match_first_filters(results.filters["conv1"])
    caption = draw(results)["filters", "conv1"].figure.explanation
    assert "by correlation: 3 Sobel x in G (1.00)" in caption
    assert f"95th percentile of random filters: {random_baseline(3):.2f}" in caption
    results.filter_matches |= {"baseline": 1.0}
    caption = draw(results)["filters", "conv1"].figure.explanation
    assert "No filter matches a classical kernel better than random filters do" in caption
    assert "Sobel" not in caption


def test_of_many_filters_fewer_channels_are_drawn(draw: Draw) -> None:
    results = make_wide_results(2048, 7)
    weight = results.filters["block.conv2"]
    drawing = draw(results, layers=["block.conv2"], show="filters")["filters", "block.conv2"]
    largest = sorted(np.argsort(-(weight.astype(float) ** 2).sum((0, 2, 3)))[:2])
    for label, row in zip(drawing.labels, drawing.rows, strict=True):
        units, channel = label.split(", channel ")
        first, last = map(int, units.split("–"))
        assert int(channel) in largest
        np.testing.assert_array_equal([t.values for t in row if t], weight[first : last + 1, int(channel)])
    assert len(drawing.rows) == 2 * 2048 / 64
    assert "2 of 12 input channels" in drawing.figure.explanation


def test_of_many_input_channels_those_with_the_largest_weights(draw: Draw) -> None:
    results = make_results()
    drawn = draw(results)
    squares = [sum(float(w) ** 2 for w in results.filters["block.conv2"][:, c].flat) for c in range(12)]
    largest = sorted(sorted(range(12), key=lambda c: squares[c])[-8:])
    labels = drawn["filters", "block.conv2"].labels
    assert labels == [f"channel {c}" for c in largest] * 2  # 18 units, 16 a row
    assert [tile.right_title for tile in drawn["pairs", "block.conv2"].rows[1][:8]] == [
        f"ch {c}" for c in largest
    ]
    assert "all 3 input channels" in drawn["pairs", "conv1"].figure.explanation
    for kind in ("filters", "pairs"):
        caption = drawn[kind, "block.conv2"].figure.explanation
        assert "8 of 12 input channels, those with the largest weights" in caption


def test_each_pair_is_a_filter_and_its_feature_maps(draw: Draw) -> None:
    results = make_results(1)
    for name in ("conv1", "block.conv2"):
        pairs = draw(results)["pairs", name]
        assert pairs.labels == ["input", *(f"unit {unit}" for unit in range(len(results.filters[name])))]
        for unit, row in enumerate(pairs.rows[1:]):
            *kernels, first, second = row
            assert {tile.title for tile in row if tile} == {str(unit)}
            for tile in kernels:
                channel = int(tile.right_title.removeprefix("ch "))
                np.testing.assert_array_equal(tile.values, results.filters[name][unit, channel])
            for tile, image in ((first, "first"), (second, "second")):
                np.testing.assert_array_equal(tile.values, results.activations[image][name][unit])
        assert pairs.layout["group_starts"] == (len(kernels),)
        assert len(pairs.rows[0]) == len(row)
        assert [tile is not None for tile in pairs.rows[0]] == [False] * len(kernels) + [True] * 2


def test_pairs_of_rgb_filters(draw: Draw) -> None:
    results = make_results()
    weight = results.filters["conv1"]
    drawing = draw(results)["pairs", "conv1"]
    assert drawing.layout["group_starts"] == (4,)
    for unit, row in enumerate(drawing.rows[1:]):
        composite, *channels, first, second = row
        np.testing.assert_allclose(
            composite.values, 0.5 + weight[unit].transpose(1, 2, 0) / (2 * abs(weight).max()), atol=1e-6
        )
        assert composite.title == str(unit) and [tile.right_title for tile in channels] == ["R", "G", "B"]
        for tile, values in zip(channels, weight[unit], strict=True):
            np.testing.assert_array_equal(tile.values, values)
        for tile, image in ((first, "first"), (second, "second")):
            np.testing.assert_array_equal(tile.values, results.activations[image]["conv1"][unit])


def test_the_height_of_a_figure_limits_its_pairs(draw: Draw) -> None:
    drawing = draw(make_wide_results(100, 7), layers=["block.conv2"])["pairs", "block.conv2"]
    assert len(drawing.labels) == 1 + 34
    assert "units 0–33 of 100" in drawing.figure.caption
