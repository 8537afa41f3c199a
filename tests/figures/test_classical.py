"""Figures of classical features."""

import numpy as np

from convatlas.analysis.classical import FEATURES
from tests.support.drawings import Draw
from tests.support.fake_results import (
    make_match,
    make_results,
)


def test_each_row_is_a_feature_and_the_feature_maps_that_match_it(draw: Draw) -> None:
    results = make_results()
    results.unit_matches["block.conv2"]["units"][7] = make_match("sobel_x+", 0.9)
    results.unit_matches["relu:2"] = {"baseline": 0.3, "units": [None] * 18}
    results.unit_matches["relu:2"]["units"][7] = make_match("sobel_x", 0.899)
    drawing = draw(results)["classical", "second"]
    head, *rows = drawing.rows
    assert [tile.title for tile in head] == ["input"]
    for row, (name, feature), label in zip(rows, FEATURES.items(), drawing.labels[1:], strict=True):
        np.testing.assert_array_equal(row[0].values, results.classical["second"][name])
        assert label.replace("\n", " ") == feature.caption
        if name not in ("sobel_x", "sobel_y"):
            assert len(row) == 1
    vertical, horizontal = ([(t.note, t.title, t.right_title) for t in rows[n][1:]] for n in (1, 2))
    assert vertical == [  # and not relu:2, which only repeats block.conv2
        ("block.conv2", "unit 7", "0.90"), ("conv1", "unit 0", "−0.83"), ("relu", "unit 0", "0.75"),
    ]  # fmt: skip
    assert horizontal == [("conv1", "unit 4", "0.60")]
    outputs = results.activations["second"]
    for tile, values in zip(rows[1][1:], (outputs["block.conv2"][7], outputs["conv1"][0]), strict=False):
        np.testing.assert_array_equal(tile.values, values)
