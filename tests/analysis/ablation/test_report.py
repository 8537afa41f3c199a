"""ablation.json and ablation.npz, and what is said where there is nothing to measure."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convatlas import UserError
from convatlas.analysis.ablation import report
from convatlas.analysis.ablation.ablate import ablate
from convatlas.models.outputs import Output
from convatlas.models.preprocessing import Preprocessing
from convatlas.training.labelled_images import LabelledImages

DESCRIPTION: Any = {
    "dataset": "digits",
    "classes": ["0", "1", "2"],
    "weights": {"name": None},
    "output": {"kind": "softmax", "path": "", "shape": [3], "reason": ""},
}
DATASET = {"format": "mnist", "classes": ["0", "1", "2"], "counts": {"train": [5, 5, 5], "test": [5, 5, 5]}}
SETTINGS = {"layers": None, "units": 2, "images": "all", "random_orders": 3, "seed": 0}


@pytest.mark.parametrize(
    ("description", "dataset", "layers", "message"),
    [
        ({}, {}, ["conv1"], None),
        ({"output": DESCRIPTION["output"] | {"kind": "none"}}, {}, ["conv1"], "no class scores"),
        ({}, {"classes": []}, ["conv1"], "no labels: set `dataset`"),
        ({"classes": ["a"] * 1000}, {}, ["conv1"], "3 classes are not the network's 1000: set `dataset`"),
        (
            {"weights": {"name": "DEFAULT"}, "classes": ["a", "b", "c"]},
            {},
            ["conv1"],
            "are not the network's",
        ),
        ({}, {"counts": {"test": [0, 0, 0]}}, ["conv1"], "no test images"),
        ({"output": DESCRIPTION["output"] | {"shape": [3, 8, 8]}}, {}, ["conv1"], "no masks: set `dataset`"),
        ({}, {}, [], "name layers in `views.ablation.layers`"),
    ],
)
def test_what_cannot_be_measured_is_said_with_its_cure(
    monkeypatch: pytest.MonkeyPatch, description: Any, dataset: Any, layers: list[str], message: str | None
) -> None:
    monkeypatch.setattr(report.formats, "describe", lambda data: DATASET | dataset)
    reason = report._explain_undefined(DESCRIPTION | description, "data", layers)
    assert reason is None if message is None else message in str(reason)


def test_a_network_without_a_data_set_is_undefined(tmp_path: Path) -> None:
    (tmp_path / "network.json").write_text(json.dumps(DESCRIPTION))
    (tmp_path / "layers.json").write_text("[]")
    report.write_ablation(tmp_path, None, SETTINGS, torch.device("cpu"))
    content = json.loads((tmp_path / "ablation/ablation.json").read_text())
    assert content == {"undefined": "the network has no data set: set `dataset` to one with labels of its "
                       "classes, or with masks"}  # fmt: skip


def test_the_description_is_json_and_the_arrays_are_float32() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4))
    images = torch.randint(0, 256, (12, 1, 6, 6)).byte()
    split = LabelledImages(images, torch.arange(12) % 3)  # no image of the fourth class
    ablation = ablate(network, Preprocessing(6, (0.0,), (1.0,)), split, ["0"], 4, max_units=2, n_random=3)
    content = report.describe_ablation(ablation, DESCRIPTION, 12, SETTINGS, {"3": "it is the output"})
    json.dumps(content, allow_nan=False)
    assert content["class_images"] == [4, 4, 4, 0]
    assert content["class_values"][3] is None
    assert content["half_images"] == [6, 6]
    assert content["left_out"] == {"3": "it is the output"}
    (layer,) = content["layers"]
    assert (layer["units"], layer["measured"]) == (4, 2)
    assert [len(row) for row in layer["curves"]["zero"]["random"]] == [3, 3, 3]
    assert layer["costs"]["zero"]["class_effects"][3] is None
    arrays = dict(report._list_arrays(ablation))
    assert arrays["0@units"].tolist() == [1, 3]
    assert arrays["0@means"].shape == (4,)
    assert arrays["0@zero_class_intervals"].shape == (2, 4, 2)
    assert {array.dtype for name, array in arrays.items() if "_" in name} == {np.dtype(np.float32)}


class OneAtATime(nn.Module):
    """Reshapes its input for a single image; `limit` is the largest batch that it takes."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.conv, self.fc, self.limit = nn.Conv2d(1, 2, 3), nn.Linear(32, 3), limit

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.limit:
            raise RuntimeError("too many images")
        return self.fc(self.conv(x).relu().flatten(1))


def make_split() -> LabelledImages:
    """Return six random images of three classes."""
    images = torch.randint(0, 256, (6, 1, 6, 6), generator=torch.Generator().manual_seed(0)).byte()
    return LabelledImages(images, torch.arange(6) % 3)


def test_a_network_that_takes_one_image_at_a_time_is_measured_image_by_image() -> None:
    torch.manual_seed(0)
    single, batched = OneAtATime(1), OneAtATime(500)
    batched.load_state_dict(single.state_dict())
    preprocessing = Preprocessing(6, (0.0,), (1.0,))
    results = [ablate(net, preprocessing, make_split(), ["conv"], 3) for net in (single, batched)]
    effects = [result.layers[0].effects["zero"].loss_changes for result in results]
    assert np.abs(effects[0]).max() > 0
    assert np.allclose(*effects, rtol=1e-4)


def test_a_network_that_fails_on_a_single_image_is_an_error_of_the_user() -> None:
    with pytest.raises(UserError, match="fails on a single test image: too many images"):
        ablate(OneAtATime(0), Preprocessing(6, (0.0,), (1.0,)), make_split(), ["conv"], 3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["multi-label", "softmax"])
@pytest.mark.parametrize("bias", [torch.inf, -1.0])
def test_infinite_scores_are_none_in_json(kind: Any, bias: float) -> None:
    """With an infinite bias no loss is finite; with infinite weights only with unit 0 as it is."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    with torch.no_grad():
        network[3].bias[0] = bias
        if bias < 0:
            network[0].bias[0] = 1e30  # type: ignore[index]
            network[3].weight[0, :16] = 1e30
    split = make_split()
    output = Output(kind, "", (3,), 3)
    result = ablate(network, Preprocessing(6, (0.0,), (1.0,)), split, ["0"], 3, output, n_random=1)
    content = report.describe_ablation(result, DESCRIPTION, 6, SETTINGS, {})
    json.dumps(content, allow_nan=False)
    cost = content["layers"][0]["costs"]["zero"]
    if kind == "multi-label":
        assert content["value"] is None
        assert content["interval"] == [None, None]
        assert cost["effect"] is None
    if bias < 0:  # without unit 0 the loss falls from infinity
        assert content["layers"][0]["significant"]["zero"] == 0
