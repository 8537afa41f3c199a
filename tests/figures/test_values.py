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
    for name, names, highlighted in (("fc", CLASSES, [2, 3]), ("neck", list("0123456"), [None, None])):
        values, drawn_names, titles, drawn_highlighted, _ = drawn["values", name].chart
        np.testing.assert_array_equal(values, [outputs[name] for outputs in results.activations.values()])
        assert (drawn_names, drawn_highlighted) == (names, highlighted)
        assert titles[1].split("   ") == ["second", "true cat", "predicted dog (75.0 %)"]
    assert "the prediction is coloured" in drawn["values", "fc"].figure.caption
    assert "coloured" not in drawn["values", "neck"].figure.caption


def test_many_values_are_heat_maps(draw: Draw) -> None:
    results = make_results()
    drawing = draw(results)["values", "flatten"]
    values, _, scale, highlighted, caption = drawing.chart
    assert highlighted == [None, None]
    np.testing.assert_array_equal(values, [outputs["flatten"] for outputs in results.activations.values()])
    assert (scale.low, scale.high) == find_ends(values)
    assert "The 216 values of flatten" in caption and "100 units" in caption


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
    assert "The 9 vectors of 20 values of relu_2" in drawing.figure.caption
    assert drawing.labels == ["first", "second"]
    for (_, tile), outputs in zip(drawing.rows, results.activations.values(), strict=True):
        np.testing.assert_array_equal(tile.values, outputs["relu_2"])
    assert get_ends(drawing.bars[0]) == (0, 180)


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
