"""Networks with downloaded, loaded or untrained weights; a local server takes the place of torchvision's."""

import hashlib
import http.server
import io
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import Weights, WeightsEnum
from torchvision.models._api import BUILTIN_MODELS
from torchvision.transforms._presets import ImageClassification

from convatlas import UserError
from convatlas.datasets import formats
from convatlas.files import read_json, sha256
from convatlas.models.build import build_network, load_network
from convatlas.models.preprocessing import Preprocessing
from convatlas.models.pretrained import download_weights
from convatlas.results import Results
from convatlas.training.run import train_network


class Tiny(nn.Module):
    """Maps (N, 3, H, W) to logits (N, K), of the mirrored image where `mirrored` is set."""

    def __init__(self, num_classes: int = 5, mirrored: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, num_classes)
        self.mirrored = mirrored

    def forward(self, x: Tensor) -> Tensor:
        x = x.flip(3) if self.mirrored else x
        return self.fc(self.conv(x).relu()[:, :, 0].mean(2) + self.conv(x).relu()[:, :, 1, 0])


TRAINED = Tiny(3, mirrored=True)
SETTINGS: dict[str, Any] = {"architecture": "torchvision/tiny", "weights": "FEW_V1"}


@pytest.fixture
def weights_bytes() -> bytes:
    """A file of the weights of TRAINED."""
    content = io.BytesIO()
    torch.save(TRAINED.state_dict(), content)
    return content.getvalue()


@pytest.fixture
def served(tmp_path: Path, weights_bytes: bytes) -> Path:
    """The file that the server offers."""
    (tmp_path / "served").mkdir()
    path = tmp_path / f"served/tiny-{hashlib.sha256(weights_bytes).hexdigest()[:8]}.pth"
    path.write_bytes(weights_bytes)
    return path


@pytest.fixture
def address(served: Path) -> Iterator[str]:
    """The address of a server of the folder tmp_path/served."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(served.parent))
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(autouse=True)
def torchvision_with_tiny(address: str, served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the network `tiny` to torchvision, and take its own downloads away."""
    preset = partial(ImageClassification, crop_size=12, resize_size=14)
    meta = {"categories": ["ant", "bee", "cat"], "num_params": 127, "_metrics": {"Few": {"acc@1": 50.0}}}

    class Tiny_Weights(WeightsEnum):  # noqa: N801
        FEW_V1 = Weights(url=f"{address}/{served.name}", transforms=preset, meta=meta)
        DEFAULT = FEW_V1

    def tiny(*, weights: Tiny_Weights | None = None, progress: bool = True, **kwargs: Any) -> Tiny:
        weights = Tiny_Weights.verify(weights)
        network = Tiny(**kwargs if weights is None else {"num_classes": 3, "mirrored": True, **kwargs})
        if weights is not None:
            network.load_state_dict(weights.get_state_dict(progress=progress, check_hash=True))
        return network

    monkeypatch.setitem(BUILTIN_MODELS, "tiny", tiny)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("convatlas.download.time.sleep", lambda seconds: None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)


@pytest.fixture(autouse=True)
def torch_state() -> Iterator[None]:
    """Restore torch's global state, which training sets."""
    threads, debug_mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    yield
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode(debug_mode)


def download(output: Path, weights: str = "FEW_V1", mirrors: list[str] | None = None) -> Path:
    download_weights("torchvision/tiny", weights, mirrors or [], output, "networks.own")
    return output


def train(folder: Path, settings: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    """Train a network, or load its weights, and return its network.json."""
    train_network("own", settings, folder, device="cpu", threads=1, **arguments)
    return read_json(folder / "network.json")


def test_weights_are_downloaded_with_their_description(
    tmp_path: Path, weights_bytes: bytes, address: str, served: Path
) -> None:
    output = download(tmp_path / "data/weights/tiny-FEW_V1.pth", mirrors=[f"{address}/nowhere"])
    assert output.read_bytes() == weights_bytes
    description = read_json(output.with_suffix(".json"))
    assert description["sha256"] == hashlib.sha256(weights_bytes).hexdigest()
    assert description["size"] == len(weights_bytes)
    assert description["categories"] == ["ant", "bee", "cat"]
    assert description["metrics"] == {"Few": {"acc@1": 50.0}}
    assert description["preprocessing"]["size"] == 12
    assert description["preprocessing"]["resize"] == 14
    assert not (tmp_path / "data/weights/.partial").exists()
    # A file that is there already is not downloaded again.
    served.unlink()
    download(output)


def test_an_altered_file_of_a_mirror_is_refused_and_removed(tmp_path: Path, served: Path) -> None:
    served.write_bytes(b"altered")
    with pytest.raises(UserError, match=r"^networks\.own\.weights: could not download tiny-") as error:
        download(tmp_path / "downloaded/w.pth")
    assert "corrupted: its SHA-256 begins with" in str(error.value)
    assert list(tmp_path.glob("downloaded/*")) == []


def test_weights_that_torchvision_lacks_are_named(tmp_path: Path) -> None:
    message = r"networks.own.weights: torchvision/tiny has no weights 'FEW_V2'; did you mean 'FEW_V1'"
    with pytest.raises(UserError, match=message):
        download(tmp_path / "w.pth", "FEW_V2")


def test_a_network_with_torchvisions_weights_is_not_trained_and_can_be_loaded(tmp_path: Path) -> None:
    weights = download(tmp_path / "tiny-FEW_V1.pth")
    description = train(tmp_path / "own", SETTINGS, weights=weights)
    assert description["weights"]["origin"] == "torchvision FEW_V1"
    assert description["weights"]["url"].startswith("http://127.0.0.1")
    assert description["weights"]["source_sha256"] == sha256(weights)
    assert description["classes"] == ["ant", "bee", "cat"]
    assert (description["training"], description["dataset"], description["dataset_sha256"]) == (None,) * 3
    assert "torchvision" in description["versions"]
    assert read_json(tmp_path / "own/metrics.json") == {}
    assert Results(tmp_path / "own").predictions == []
    assert (tmp_path / "own/history.csv").read_text().splitlines()[0].startswith("epoch,")
    assert len((tmp_path / "own/history.csv").read_text().splitlines()) == 1
    assert read_json(tmp_path / "own/timing.json")["training_seconds"] is None
    weights.unlink()
    network, preprocessing = load_network(tmp_path / "own")
    x = torch.rand(2, *preprocessing.shape)
    assert torch.equal(network(x), TRAINED(x))
    assert not torch.equal(network(x), network(x.flip(3)))


def test_torchvisions_weights_need_their_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"networks\.own\.weights: --weights must name the file"):
        train(tmp_path / "own", SETTINGS)


def test_a_wrong_number_of_class_names_is_reported(tmp_path: Path) -> None:
    weights = download(tmp_path / "tiny-FEW_V1.pth")
    with pytest.raises(UserError, match=r"^networks\.own\.classes: got 2 class names, but .* 3 scores"):
        train(tmp_path / "own", SETTINGS | {"classes": ["a", "b"]}, weights=weights)
    assert not (tmp_path / "own").exists()


def test_without_weights_and_data_the_weights_are_drawn_from_the_seed(tmp_path: Path) -> None:
    settings = {"architecture": "torchvision/tiny", "arguments": {"num_classes": 4}, "input": {"size": 12}}
    description = train(tmp_path / "own", settings, seed=7)
    assert description["weights"]["origin"] == "random, seed 7"
    assert description["classes"] == ["0", "1", "2", "3"]
    network, _ = build_network(settings, None, seed=7)
    assert torch.equal(load_file(tmp_path / "own/weights.safetensors")["fc.weight"], network.fc.weight)
    loaded, _ = load_network(tmp_path / "own")
    assert torch.equal(loaded.fc.weight, network.fc.weight)


def test_weights_of_a_file_are_evaluated_on_a_data_set_of_their_classes(tmp_path: Path) -> None:
    formats.prepare(
        tmp_path / "digits", {"format": "mnist", "source": "embedded", "mirrors": []}, "datasets.digits"
    )
    network, _ = build_network({"architecture": "lenet5"}, [str(n) for n in range(10)], seed=3)
    torch.save({"net": network.state_dict()}, tmp_path / "c.pth")
    weights = {"path": str(tmp_path / "c.pth"), "key": "net"}
    settings = {"architecture": "lenet5", "dataset": "digits", "weights": weights}
    description = train(tmp_path / "own", settings, data=tmp_path / "digits")
    assert description["weights"]["origin"] == str(tmp_path / "c.pth")
    assert description["weights"]["source_sha256"] == sha256(tmp_path / "c.pth")
    assert description["dataset"] == "digits"
    assert description["training"] is None
    metrics, predictions = read_json(tmp_path / "own/metrics.json"), Results(tmp_path / "own").predictions
    assert metrics["images"] == len(predictions) == 360
    assert metrics["accuracy"] == np.mean([row["label"] == row["prediction"] for row in predictions])
    assert {row["file"] for row in predictions} == {None}
    loaded, preprocessing = load_network(tmp_path / "own")
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(loaded(x), network(x))
    assert preprocessing == Preprocessing(28, (0.1307,), (0.3081,))
