"""Figures of layers without spatial axes."""

import logging

import numpy as np
import pytest

from tests.support.drawings import Draw, find_ends, get_ends
from tests.support.fake_results import (
    CLASSES,
    FakeResults,
    make_results,
)


def test_few_values_are_bars(draw: Draw) -> None:
    results = make_results()
    drawn = draw(results)
    for name, names, highlighted in (("fc", CLASSES, [[2], [3]]), ("neck", list("0123456"), [[], []])):
        values, drawn_names, titles, drawn_highlighted, _ = drawn["values", name].chart
        np.testing.assert_array_equal(values, [outputs[name] for outputs in results.activations.values()])
        assert (drawn_names, drawn_highlighted) == (names, highlighted)
        assert titles[1].split("   ") == ["cat, test image 1", "predicted dog (75.0 %)"]
    assert "the prediction is coloured" in drawn["values", "fc"].figure.explanation
    assert "coloured" not in drawn["values", "neck"].figure.explanation


def test_many_values_are_heat_maps(draw: Draw) -> None:
    results = make_results()
    drawing = draw(results)["values", "flatten"]
    values, _, scale, highlighted, caption = drawing.chart
    assert highlighted == [[], []]
    np.testing.assert_array_equal(values, [outputs["flatten"] for outputs in results.activations.values()])
    assert (scale.low, scale.high) == find_ends(values)
    assert "own, flatten: 216 activations on 2 images, " in caption
    assert "Rows of 100 units" in drawing.figure.explanation


def make_results_with_shape(*shape: int) -> FakeResults:
    """Return results whose relu_2 has this output shape."""
    results = make_results()
    results.layers[5]["output_shape"] = list(shape)
    for n, outputs in enumerate(results.activations.values()):
        outputs["relu_2"] = np.arange(n, n + np.prod(shape), dtype=np.float32).reshape(shape)
    return results


def test_tokens_are_one_tile_per_image(draw: Draw) -> None:
    """Such as a transformer's."""
    results = make_results_with_shape(9, 20)
    drawing = draw(results)["values", "relu_2"]
    assert drawing.figure.caption == "own, relu_2: 9 vectors of 20 values, on 2 images, 0 to 180."
    assert [label.partition("\n")[0] for label in drawing.labels] == [
        "cat, test image 0",
        "cat, test image 1",
    ]
    for (_, tile), outputs in zip(drawing.rows, results.activations.values(), strict=True):
        np.testing.assert_array_equal(tile.values, outputs["relu_2"])
    assert get_ends(drawing.bars[0]) == (0, 180)


@pytest.mark.parametrize("length", [20, 2048, 5000])
def test_a_network_of_series_has_a_row_per_unit(draw: Draw, length: int) -> None:
    """Of long rows the means of neighbours, 3 of 5000; the input is a row per channel, from min to max."""
    results = make_results_with_shape(9, length)
    results.network["preprocessing"] |= {"size": [length]}
    shapes = {name: outputs["input"].shape for name, outputs in results.activations.items()}
    for outputs in results.activations.values():
        outputs["input"] = np.linspace(-3, 5, 3 * length, dtype=np.float32).reshape(3, length)
    drawing = draw(results)["values", "relu_2"]
    assert f"9 units at {length} positions" in drawing.figure.caption and shapes
    assert ("means of 3 neighbours" in drawing.figure.caption) == (length == 5000)
    for (head, tile), outputs in zip(drawing.rows, results.activations.values(), strict=True):
        expected = outputs["relu_2"]
        if length == 5000:
            expected = np.stack(
                [[part.mean() for part in np.split(row, range(3, 5000, 3))] for row in expected]
            )
        repeats = max(1, round(expected.shape[1] / (8 * 9)))  # so that rows are no hairlines
        np.testing.assert_allclose(tile.values, expected.repeat(repeats, axis=0), rtol=1e-5)
        assert head.values.shape == (3 * max(1, round(expected.shape[1] / (8 * 3))), expected.shape[1])
        assert 0 <= head.values.min() < 0.01 and 0.99 < head.values.max() <= 1


def test_of_volumes_the_central_slice_is_drawn(draw: Draw) -> None:
    results = make_results_with_shape(2, 3, 4, 5)
    results.network["preprocessing"] |= {"size": [6, 8, 7]}
    volume = np.random.default_rng(0).random((3, 6, 8, 7), dtype=np.float32)
    for outputs in results.activations.values():
        outputs["input"] = volume
    drawing = draw(results)["maps", "relu_2"]
    assert "4 × 5 each" in drawing.figure.caption
    assert "Of a depth of 3 the central slice, 1, is drawn." in drawing.figure.explanation
    for (head, *tiles), outputs in zip(drawing.rows, results.activations.values(), strict=True):
        for tile, unit in zip(tiles, outputs["relu_2"], strict=True):
            np.testing.assert_array_equal(tile.values, unit[1])
        assert head.values.shape == (8, 7)


def test_outputs_of_four_axes_are_skipped_with_a_log_line(
    draw: Draw, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "convatlas"):
        drawn = draw(make_results_with_shape(2, 3, 4, 5))
    assert not [subject for _, subject in drawn if subject == "relu_2"] and ("maps", "pool") in drawn
    assert caplog.messages == ["no figure of relu_2: its output has 4 axes"]


@pytest.mark.parametrize("scale", ["per_layer", "shared"])
def test_maps_of_one_pixel_are_values(draw: Draw, scale: str) -> None:
    """Such as after global average pooling; a convolution between such maps has filters, but no pairs."""
    results = make_results_with_shape(30, 1, 1)
    results.layers[5] |= {"kind": "conv", "module": "block.conv2"}
    drawn = draw(results, scale=scale)
    values = drawn["values", "relu_2"].chart[0]
    np.testing.assert_array_equal(values, [np.arange(30), np.arange(1, 31)])
    assert not {("maps", "relu_2"), ("pairs", "relu_2")} & set(drawn) and ("filters", "relu_2") in drawn
