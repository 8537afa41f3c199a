"""Which test images the config may select, against data sets that hold fewer."""

from pathlib import Path
from typing import Any, cast

import pytest

from convatlas import UserError
from convatlas.datasets import embedded_digits, formats
from convatlas.datasets.image_selection import (
    KNOWN_IMAGE_COUNTS,
    SplitContent,
    check_selection,
    describe_test_split,
    find_selection_errors,
    predict_test_split,
)
from convatlas.datasets.synthetic_pets.breeds import BREEDS
from convatlas.files import write_json
from convatlas.pipeline import resources
from convatlas.pipeline.config_types import DatasetConfig, NetworkConfig
from convatlas.records import DatasetDescription
from convatlas.training.run import train_network

DESCRIPTION = cast(DatasetDescription, {"classes": ["ant", "bee", "cat"], "counts": {"test": [4, 0, 3]}})


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"first": 7, "indices": [6], "digits": [0, 2], "files": ["a.png"]}, []),
        ({"first": 8}, ["x.first: 8 test images are selected, and the data set has 7"]),
        ({"indices": [2, 7, 90]}, ["x.indices: there is no test image 7, 90; there are 7, counted from 0"]),
        ({"digits": [1]}, ["x.digits: no test image is of class 1, bee"]),
        ({"digits": [3]}, ["x.digits: there is no class 3; there are 3 classes, counted from 0"]),
    ],
)
def test_what_a_data_set_lacks_is_named(selection: dict[str, Any], expected: list[str]) -> None:
    assert list(find_selection_errors(selection, describe_test_split(DESCRIPTION), "x")) == expected


def test_a_data_set_without_classes_or_test_images() -> None:
    unlabelled = cast(DatasetDescription, {"classes": [], "counts": {"test": [2]}})
    with pytest.raises(UserError, match=r"^x.first: 3 .* has 2; x.digits: the data set has no classes; sel"):
        check_selection({"first": 3, "digits": [0, 1]}, unlabelled, "x")
    errors = find_selection_errors({"indices": [0]}, SplitContent(0, 2, {}), "x")
    assert list(errors) == ["x.indices: there is no test image 0; there are none"]


def test_training_stops_before_it_begins(tmp_path: Path) -> None:
    write_json(tmp_path / "dataset.json", {**DESCRIPTION, "format": "images"})
    settings = cast(NetworkConfig, {"architecture": "lenet5", "dataset": "own"})
    with pytest.raises(UserError, match=r"networks.n.images.indices: there is no test image 9; there are 7"):
        train_network(
            "n", settings, tmp_path / "n", tmp_path, device="cpu", threads=1, images={"indices": [9]}
        )


def predict(name: str, source: str, target: str = "breed") -> SplitContent | None:
    return predict_test_split(cast(DatasetConfig, {"format": name, "source": source, "target": target}))


def test_the_splits_that_are_known_beforehand() -> None:
    assert predict("mnist", "embedded") == SplitContent(360, 10, {})
    assert predict("oxford-iiit-pet", "download") == SplitContent(3669, 37, {})
    assert predict("oxford-iiit-pet", "embedded", "species") == SplitContent(144, 2, {})
    assert predict("oxford-iiit-pet", "embedded") == SplitContent(144, len(BREEDS), {})
    assert predict("images", "my/folder") is None
    assert KNOWN_IMAGE_COUNTS["mnist", "embedded"] == embedded_digits.TEST_COUNT
    assert KNOWN_IMAGE_COUNTS["images", "embedded"] == resources.EMBEDDED_PHOTOGRAPH_COUNT
    assert {name for name, _ in KNOWN_IMAGE_COUNTS} == set(formats.FORMATS)
