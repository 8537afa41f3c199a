"""Inputs of several channels, and of BGR: the figures are those of the RGB images that they show."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from tests.support.drawings import Draw
from tests.support.fake_results import FakeResults, make_results


def embed_channels(results: FakeResults, order: list[int], **preprocessing: Any) -> FakeResults:
    """Return results of a network whose input has the three channels of another at the places in `order`."""
    embedded = deepcopy(results)
    count = max(3, *(place + 1 for place in order))

    def spread(values: np.ndarray) -> np.ndarray:
        shape = (*values.shape[:-3], count, *values.shape[-2:])
        spread_values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        spread_values[..., order, :, :] = values
        return spread_values

    record = embedded.network["preprocessing"]
    for key in ("mean", "std"):
        values = [0.5] * count
        for place, value in zip(order, record[key], strict=True):
            values[place] = value
        record[key] = values
    record |= preprocessing
    embedded.filters["conv1"] = spread(results.filters["conv1"])
    for image, arrays in results.projections.items():
        embedded.activations[image]["input"] = spread(results.activations[image]["input"])
        embedded.projections[image] = {key: spread(values) for key, values in arrays.items()}
    return embedded


@pytest.mark.parametrize(
    ("order", "preprocessing", "note"),
    [
        ([2, 1, 0], {"channels": "bgr"}, "BGR images, which are shown in their true colours"),
        ([3, 0, 4], {"display": [3, 0, 4]}, "Of the 5 channels, 3, 0 and 4 are shown as red, green and blue"),
    ],
)
def test_figures_show_the_chosen_channels(
    draw: Draw, order: list[int], preprocessing: dict[str, Any], note: str
) -> None:
    results = make_results()
    expected = draw(results)
    drawn = draw(embed_channels(results, order, **preprocessing))
    assert list(drawn) == list(expected)
    compared = 0
    for (kind, subject), drawing in drawn.items():
        if subject == "conv1" and kind in ("filters", "pairs") and "display" in preprocessing:
            continue  # of five channels each kernel is drawn, not RGB
        for row, expected_row in zip(drawing.rows, expected[kind, subject].rows, strict=True):
            for tile, expected_tile in zip(row, expected_row, strict=True):
                if tile is not None:
                    np.testing.assert_array_equal(tile.values, expected_tile.values, f"{kind} {subject}")
                    compared += 1
        if kind in ("cover", "deconv"):
            assert note in drawing.figure.explanation
    assert compared > 100


def test_filters_of_five_channels_are_drawn_by_channel(draw: Draw) -> None:
    drawn = draw(embed_channels(make_results(), [3, 0, 4]))["filters", "conv1"]
    assert drawn.labels == [f"channel {channel}" for channel in range(5)]
    assert len(drawn.rows) == 5


def test_one_channel_is_shown_in_grey(draw: Draw) -> None:
    results = embed_channels(make_results(), [3, 0, 4], display=[4])
    drawn = draw(results)["deconv", "first"]
    mean, std = (results.network["preprocessing"][key][4] for key in ("mean", "std"))
    expected = results.activations["first"]["input"][4] * np.float32(std) + np.float32(mean)
    np.testing.assert_allclose(drawn.inputs[0].values, expected.clip(0, 1), rtol=1e-6)
    label, unit, tile = next(drawn.tiles)
    assert label == "conv1\nwhole map"
    np.testing.assert_array_equal(tile.values, results.projections["first"]["conv1"][unit, 4])
    assert "channel 4 is shown" in drawn.figure.explanation
