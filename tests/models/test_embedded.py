"""SqueezeNet's embedded ImageNet weights: what they predict, and what is refused."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from skimage import data
from torchvision.models import SqueezeNet1_1_Weights

from convatlas import UserError
from convatlas.files import read_json, sha256
from convatlas.models import embedded
from convatlas.models.prepare import PreparedNetwork, prepare_network
from convatlas.pipeline import architecture_names
from tests.support.imagenet import predict, rank_breeds

SETTINGS: Any = {"architecture": "torchvision/squeezenet1_1", "weights": "embedded"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The converted weights."""
    path = tmp_path_factory.mktemp("weights") / "squeezenet1_1-embedded.safetensors"
    embedded.write_embedded_weights(path, "networks.squeezenet")
    return path


@pytest.fixture(scope="module")
def prepared(weights: Path) -> PreparedNetwork:
    return prepare_network(SETTINGS, None, weights, 0, "networks.squeezenet")


@pytest.mark.parametrize(
    ("file", "name", "probability"), [("chelsea.png", "tiger cat", 0.39), ("coffee.png", "espresso", 0.97)]
)
def test_photographs_are_recognised(
    prepared: PreparedNetwork, file: str, name: str, probability: float
) -> None:
    probabilities = predict(prepared, Path(data.__file__).parent / file)
    assert prepared.classes[int(probabilities.argmax())] == name
    assert float(probabilities.max()) == pytest.approx(probability, abs=0.005)


def test_breeds_of_real_pets_are_recognised(prepared: PreparedNetwork) -> None:
    ranks = rank_breeds(prepared)
    assert len(ranks) == 58
    assert np.mean(ranks == 0) == pytest.approx(0.74, abs=0.02)
    assert np.mean(ranks < 5) == pytest.approx(0.945, abs=0.02)


def test_the_files_say_where_the_weights_come_from(weights: Path, prepared: PreparedNetwork) -> None:
    description = read_json(weights.with_suffix(".json"))
    assert description["sha256"] == sha256(weights)
    assert description["categories"] == SqueezeNet1_1_Weights.IMAGENET1K_V1.meta["categories"]
    assert description["parameters"] == sum(p.numel() for p in prepared.network.parameters())
    with safe_open(weights, "pt") as file:
        metadata = file.metadata()
        assert len(metadata) == 1  # the order of several is random, and so would be the file's hash
        assert metadata["origin"].endswith(f"licence: {description['licence']}")
    assert "ndf" in prepared.weights_origin["origin"]
    assert "MIT" in prepared.weights_origin["origin"]


def test_another_file_is_refused_before_it_is_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "PACKAGE_FILE_SHA256", hashlib.sha256(b"another").hexdigest())
    monkeypatch.setattr(embedded, "_NumpyUnpickler", None)
    with pytest.raises(UserError, match=r"networks.n.weights: .*squeezenet_weights.pkl .* SHA-256"):
        embedded.write_embedded_weights(tmp_path / "w.safetensors", "networks.n")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "PACKAGE", "no-such-package")
    with pytest.raises(UserError, match=r"networks.n.weights: .*no-such-package.*make setup"):
        embedded.write_embedded_weights(tmp_path / "w.safetensors", "networks.n")


class Command:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("it ran",)


def test_a_pickle_calls_nothing_but_numpy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = pickle.dumps({"conv1": Command()})
    (tmp_path / "file.pkl").write_bytes(content)
    monkeypatch.setattr(embedded, "PACKAGE_FILE", str(tmp_path / "file.pkl"))
    monkeypatch.setattr(embedded, "PACKAGE_FILE_SHA256", hashlib.sha256(content).hexdigest())
    with pytest.raises(pickle.UnpicklingError, match=r"builtins\.print is refused"):
        embedded.write_embedded_weights(tmp_path / "w.safetensors", "networks.n")


def test_other_networks_have_no_embedded_weights() -> None:
    error = architecture_names.find_weights_error("torchvision/resnet18", "embedded")
    assert error == "torchvision/resnet18 has no embedded weights, only torchvision/squeezenet1_1 has"
    assert architecture_names.find_weights_error("torchvision/squeezenet1_1", "embedded") is None
