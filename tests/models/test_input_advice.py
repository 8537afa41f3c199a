"""What to change where a network does not take its input."""

from pathlib import Path
from typing import Any

import pytest

from convatlas import UserError
from convatlas.models.build import build_network

NETWORKS = """
import torch
from torch import nn


def fixed():  # takes 32 x 32 alone
    return nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.Flatten(), nn.Linear(2 * 32 * 32, 2))


def odd():  # takes 40 x 50 alone
    return nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.Flatten(), nn.Linear(2 * 40 * 50, 2))


def audio():
    return nn.Sequential(nn.Conv1d(2, 4, 9), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3))


def volume():
    return nn.Sequential(nn.Conv3d(1, 4, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3))


class Indexed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.embedding = nn.Conv2d(3, 2, 3), nn.Embedding(5, 2)

    def forward(self, x):
        return self.embedding(self.conv(x))


def batch_alone():
    norm = nn.BatchNorm1d(4, track_running_stats=False)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), norm)


class Squares(nn.Module):  # shuffles channels into pixels, so that its input has another number of axes
    def forward(self, x):
        raise RuntimeError("no reason given")
"""


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("advice") / "advised.py"
    path.write_text(NETWORKS)
    return path


@pytest.mark.parametrize(
    ("name", "settings", "advice"),
    [
        ("fixed", {"size": 64}, "set own.input.size to the size that it was designed for (at 32 it runs)"),
        ("odd", {"size": [50, 40]}, ""),
        ("odd", {"size": 64}, "set own.input.size to the size that it was designed for"),
        ("audio", {}, "its first convolution is a Conv1d: set own.input.size to [length], and choose NumPy"),
        ("volume", {"size": [64]}, "is a Conv3d: set own.input.size to [depth, height, width], and choose"),
        ("fixed", {"size": [64]}, "its first convolution is a Conv2d: set own.input.size to [height, width]"),
        ("batch_alone", {"size": 32}, "let it keep running statistics, or use a GroupNorm"),
        ("Indexed", {"size": 32}, "fix the network's forward"),
        ("Squares", {"size": 32}, "fix the network's forward"),
    ],
)
def test_the_advice_names_what_helps(
    networks: Path, name: str, settings: dict[str, Any], advice: str
) -> None:
    section = {"architecture": f"{networks}:{name}", "input": settings}
    if not advice:  # height and width changed over: as many values, and it runs
        assert build_network(section, None, seed=0)[1].size == (50, 40)
        return
    with pytest.raises(UserError) as error:
        build_network(section, None, seed=0, key="own")
    message = str(error.value)
    assert advice in message and "\n" not in message
    assert ("input.size" in message.split("; ")[-1]) == ("size" in advice)


@pytest.mark.parametrize(
    ("name", "size", "shape"), [("audio", [64], (2, 64)), ("volume", [4, 8, 9], (1, 4, 8, 9))]
)
def test_inputs_with_one_and_three_axes(
    networks: Path, name: str, size: list[int], shape: tuple[int, ...]
) -> None:
    """Their channels are those of the first convolution; their values are not changed by default."""
    network, preprocessing = build_network(
        {"architecture": f"{networks}:{name}", "input": {"size": size}}, None, seed=0
    )
    assert preprocessing.shape == shape
    assert {*preprocessing.mean} == {0.0} and {*preprocessing.std} == {1.0}
    assert network.training is False


def test_an_input_that_is_no_image_stands_in_the_config(tmp_path: Path) -> None:
    """By it the config's other keys are checked, before the network is built."""
    path = tmp_path / "series.py"
    path.write_text(
        "from torch import nn\nINPUT = {'size': [64]}\n\ndef build():\n    return nn.Conv1d(2, 3, 3)\n"
    )
    section = {"architecture": f"{path}:build"}
    with pytest.raises(UserError, match=r"state its size here: own\.input: \{size: \[64\]\}"):
        build_network(section, None, seed=0, key="own")
    assert build_network(section | {"input": {"size": [64]}}, None, seed=0)[1].shape == (2, 64)
