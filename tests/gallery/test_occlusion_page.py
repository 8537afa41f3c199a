"""The maps on the page of occlusion, as functions of the square's position."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from convatlas.gallery.occlusion_data import OcclusionReader, format_total, summarise_occlusion

ENTRY: Any = {
    "name": "one", "rows": [-2, 2], "columns": [-2, 2, 6], "unit": 3, "activation": 10.0, "has_truth": True,
    "target": 1, "probability": 0.9, "prediction": 1, "iou": None, "others": [], "no_projection": None,
}  # fmt: skip


def make_reader(entry: Any = ENTRY, n_classes: int = 12, **arrays: np.ndarray) -> OcclusionReader:
    maps = {
        "one@activations": np.arange(6.0).reshape(2, 3),
        "one@probabilities": np.array([[0.9, 0.8, 0.9], [0.1, 0.9, 0.95]]),
        "one@predictions": np.array([[1, 1, 1], [0, 1, 1]]),
        "one@projection": np.ones((1, 4, 8), np.float32),
    } | {f"one@{key}": array for key, array in arrays.items()}
    analysis: Any = {
        "undefined": None, "layer": "conv2", "size": 4, "stride": 4,
        "is_segmentation": entry["iou"] is not None,
        "classes": [f"class {n}" for n in range(n_classes)], "images": [entry],
    }  # fmt: skip
    results = SimpleNamespace(
        occlusion=analysis,
        occlusion_arrays=maps,
        activations=lambda name: {"input": np.zeros((1, 4, 8), np.float32)},
    )
    network: Any = SimpleNamespace(
        name="net", results=results, image_titles={"one": "image one"},
        description={"preprocessing": {"size": [4, 8], "mean": [0.0], "std": [1.0]}},
    )  # fmt: skip
    return OcclusionReader(network, analysis)


def test_the_square_is_drawn_where_it_costs_most_within_the_image() -> None:
    reader = make_reader()
    (image,) = reader.read_images()
    assert image.square == (0, 2, 2, 2)  # columns -2 to 1, rows 2 to 5, of 4 rows
    assert image.square_text == "probability 90.0 % → 10.0 %"
    assert len(image.projections) == 1
    assert set(reader.pictures) == {"occlusion/net/one.webp", "occlusion/net/one-projection-0.webp"}
    assert summarise_occlusion(reader.network) == (
        "A square of 4 pixels lowers the score most on image one: probability 90.0 % → 10.0 % for its class; "
        "it changes the most probable class of 1 of 1 images."
    )


def test_each_cell_says_where_the_square_is_and_what_it_gives() -> None:
    (image,) = make_reader().read_images()
    activation, probability, classes = image.maps
    assert [(cell.x, cell.y) for cell in activation.cells[:4]] == [(-2, -2), (2, -2), (6, -2), (-2, 2)]
    assert probability.cells[3].text == "rows 2 to 5, columns -2 to 1: 10.0 %"
    assert "as it is: 90.0 %" in probability.note
    assert classes.legend == [(0, "class 1 (5)"), (1, "class 0 (1)")]
    assert [cell.colour for cell in classes.cells] == [0, 0, 0, 1, 0, 0]


def test_of_many_classes_the_rare_ones_share_a_colour() -> None:
    reader = make_reader(
        ENTRY | {"rows": [0], "columns": list(range(12))},
        activations=np.zeros((1, 12)), probabilities=np.full((1, 12), 0.9), predictions=np.arange(12)[None],
    )  # fmt: skip
    (image,) = reader.read_images()
    assert len(image.maps[-1].legend) == 8
    assert image.maps[-1].legend[-1] == (7, "another class (5)")


def test_a_segmentation_has_a_map_of_the_iou_of_each_class() -> None:
    ious = np.full((2, 3, 3), [0.5, 0.25, np.nan])
    ious[1, 1, 0] = 0.1
    entry = ENTRY | {"target": None, "probability": None, "prediction": None, "iou": [0.5, 0.25, None]}
    (image,) = make_reader(entry, 3, ious=ious).read_images()
    titles = [item.title for item in image.maps]
    assert titles[1:] == ["Change of the IoU of class 0", "Change of the IoU of class 1"]
    assert image.maps[1].cells[4].text.endswith(": −0.400")
    assert image.square_text == "mean IoU drops by 0.200"


def test_positions_without_a_value_are_grey_and_have_no_class() -> None:
    probabilities = np.array([[np.nan, 0.8, 0.9], [0.1, 0.9, 0.95]])
    reader = make_reader(
        activations=np.array([[np.inf, np.nan, 2.0], [3.0, 4.0, 5.0]]),
        probabilities=probabilities,
        predictions=np.array([[-1, 1, 1], [1, 1, 1]]),
    )
    (image,) = reader.read_images()
    activation, probability, classes = image.maps
    assert [cell.fill == "#808080" for cell in activation.cells] == [True, True, False, False, False, False]
    assert "colours 2 to 5" in activation.note
    assert "grey: no value at 1 of 6 positions" in probability.note
    assert classes.legend == [(0, "class 1 (5)"), (1, "no prediction (1)")]
    assert image.square_text == "probability 90.0 % → 10.0 %"
    assert "it changes the most probable class of 0 of 1 images" in summarise_occlusion(reader.network)


def test_totals_have_no_exponent() -> None:
    assert (format_total(7549.6), format_total(0.01234), format_total(-2000.0)) == (
        "7,550",
        "0.0123",
        "−2,000",
    )
