"""Networks prepared for training or with weights: their classes, by what their output means."""

import logging
from pathlib import Path
from typing import Any

import pytest

from convatlas import UserError
from convatlas.models.prepare import DatasetClasses, PreparedNetwork, prepare_network

NETWORK = """
from torch import nn


class Net(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.conv, self.flatten = nn.Conv2d(3, 4, 8), nn.Flatten()
        self.heads = nn.ModuleList(nn.Linear(4, width) for width in widths)

    def forward(self, x):
        features = self.flatten(self.conv(x))
        outputs = [head(features) for head in self.heads]
        return outputs if len(outputs) > 1 else outputs[0]


def build(widths):
    return Net(widths)


def build_pixels(channels, size):
    return nn.Conv2d(3, channels, size, stride=size)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)


def prepare(
    arguments: dict[str, Any], images: str = "", pixels: str = "", function: str = "build", **settings: Any
) -> PreparedNetwork:
    """Prepare a network of inputs of 8 pixels; each letter of `images` and `pixels` names a class."""
    network: Any = {"architecture": f"net.py:{function}", "arguments": arguments, "input": {"size": 8}}
    dataset = DatasetClasses(list(images), list(pixels)) if images or pixels else None
    return prepare_network(network | settings, dataset, None, 0, "networks.own")


def test_of_several_outputs_those_as_many_as_the_data_sets_classes_are_trained() -> None:
    prepared = prepare({"widths": [4, 3]}, "abc")
    assert (prepared.output.path, prepared.output.kind) == ("1", "softmax")
    assert prepared.classes == ["a", "b", "c"]
    prepared = prepare({"widths": [4, 3]}, output={"path": 0})
    assert prepared.classes == ["0", "1", "2", "3"]


def test_one_logit_is_trained_on_two_classes() -> None:
    prepared = prepare({"widths": [1]}, "ab")
    assert prepared.output.is_binary
    assert prepared.classes == ["a", "b"]
    assert prepare({"widths": [1]}, classes=["pet"]).output.class_count == 1


def test_several_outputs_that_may_be_scores_are_not_trained_and_not_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(UserError, match=r"networks\.own\.dataset: .*2 of the tensors .*output: \{path: 0\}"):
        prepare({"widths": [4, 3]}, "abcde")
    caplog.set_level(logging.WARNING)
    prepared = prepare({"widths": [4, 3]}, classes=["a", "b"])
    assert prepared.classes == []
    assert "networks.own: no class scores: 2 of the tensors" in caplog.text


@pytest.mark.parametrize(
    ("function", "arguments"),
    [("build", {"widths": [3]}), ("build_pixels", {"channels": 3, "size": 1})],
)
def test_class_names_are_counted_against_the_scores(function: str, arguments: dict[str, Any]) -> None:
    message = r"networks\.own\.classes: got 7 class names, but the network's output has 3 scores; give 3"
    with pytest.raises(UserError, match=message):
        prepare(arguments, function=function, classes=list("abcdefg"))


def test_scores_of_pixels_are_trained_at_the_inputs_resolution_or_a_fraction_of_it() -> None:
    for size in (1, 2):
        prepared = prepare({"channels": 3, "size": size}, "ab", "xyz", "build_pixels")
        assert prepared.is_segmentation
        assert prepared.classes == ["x", "y", "z"]
        assert prepared.output.shape == (3, 8 // size, 8 // size)
    with pytest.raises(UserError, match="2 × 4, is no whole fraction"):
        prepare({"channels": 3, "size": (3, 2)}, "ab", "xyz", "build_pixels")
    with pytest.raises(UserError, match="has 3 classes of pixels, the network has 5 outputs"):
        prepare({"channels": 5, "size": 1}, "ab", "xyz", "build_pixels")
