"""The classes whose scores are attributed."""

from typing import Any, cast

import pytest
import torch
from torch import nn

from convatlas import UserError
from convatlas.attribution.class_scores import ClassScores
from convatlas.attribution.targets import number_classes, rank_classes
from convatlas.models.outputs import Output
from convatlas.names import number_label
from convatlas.records import NetworkDescription, SampleImage

CLASSES = ["ant", "crane", "cat", "crane"]


def test_classes_are_named_by_number_or_name() -> None:
    assert number_classes([2, "ant", 3, "cat"], CLASSES, "targets") == [2, 0, 3]


def test_classes_that_do_not_exist_or_share_a_name_are_errors() -> None:
    with pytest.raises(UserError) as error:
        number_classes([4, "cst", "crane"], CLASSES, "targets")
    assert str(error.value).splitlines() == [
        "targets: no class 4; there are 4, counted from 0",
        "targets: no class 'cst'; did you mean 'cat'? there are: ant, crane, cat, crane",
        "targets: 'crane' is the name of 2 classes; give a number: 1, 3",
    ]


@pytest.mark.parametrize(
    ("dataset_classes", "label", "number"),
    [
        (CLASSES, 3, 3),  # the network's own, even where two share a name
        (["cat", "dog"], 0, 2),
        (["cat", "dog"], 1, None),
        (["crane", "dog"], 0, None),
        ([], None, None),
        (None, None, None),
    ],
)
def test_a_label_is_a_class_of_the_network_by_its_name(
    dataset_classes: list[str] | None, label: int | None, number: int | None
) -> None:
    network: Any = {"classes": CLASSES, "dataset_classes": dataset_classes, "output": {"shape": [4]}}
    image = cast(SampleImage, {"label": label})
    assert number_label(image, cast(NetworkDescription, network)) == number
    network["output"]["shape"] = [4, 8, 8]  # whose classes are of pixels
    assert number_label(image, cast(NetworkDescription, network)) is None


def test_classes_are_ranked_by_score_or_by_area() -> None:
    class_scores = ClassScores(nn.Identity(), Output(shape=(4,), class_count=4))
    scores = torch.tensor([[0.1, 3.0, -1.0, 2.0], [0.0, float("nan"), 1.0, 2.0]])
    assert rank_classes(class_scores, scores).tolist() == [[1, 3, 0, 2], [-1] * 4]
    predicted = torch.tensor([[2, 2, 0], [2, 0, 1]])
    pixels = torch.nn.functional.one_hot(predicted, 4).permute(2, 0, 1)[None].float()
    assert rank_classes(class_scores, pixels).tolist() == [[2, 0, 1, 3]]
    assert rank_classes(class_scores, torch.full((1, 4, 2, 2), torch.inf)).tolist() == [[-1] * 4]
    independent = ClassScores(nn.Identity(), Output("multi-label", shape=(4, 2, 3), class_count=4))
    pixels[0, 1] = 1  # a class beside the others
    assert rank_classes(independent, pixels).tolist() == [[1, 2, 0, 3]]
