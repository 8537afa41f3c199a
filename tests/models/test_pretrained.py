"""What train.py makes of weights, a data set, both or neither; torchvision's weights, from a server here."""

import hashlib
import http.server
import io
import json
import runpy
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models
from torchvision.models import Weights, WeightsEnum
from torchvision.models._api import BUILTIN_MODELS
from torchvision.transforms._presets import ImageClassification

from convatlas.files import sha256
from convatlas.models.build import build_network, load_network
from convatlas.models.preprocessing import Preprocessing
from tests.support.workspace import ROOT

SCRIPTS = ROOT / "scripts"


# torchvision's weights, of a network that it does not have


class Tiny(nn.Module):
    """Maps (N, 3, H, W) to logits (N, K), mirrored first if asked for."""

    def __init__(self, num_classes: int = 5, mirrored: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, num_classes)
        self.mirrored = mirrored

    def forward(self, x: Tensor) -> Tensor:
        x = x.flip(3) if self.mirrored else x
        return self.fc(self.conv(x).relu()[:, :, 0].mean(2) + self.conv(x).relu()[:, :, 1, 0])


TRAINED = Tiny(3, mirrored=True)


@pytest.fixture
def file() -> bytes:
    content = io.BytesIO()
    torch.save(TRAINED.state_dict(), content)
    return content.getvalue()


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A server of tmp_path/served."""
    (tmp_path / "served").mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def run(tmp_path: Path, address: str, file: bytes, monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """Run a script here, where torchvision has one network more; give its exit status or last words."""
    name = f"tiny-{hashlib.sha256(file).hexdigest()[:8]}.pth"
    (tmp_path / "served" / name).write_bytes(file)
    preset = partial(ImageClassification, crop_size=12, resize_size=14)
    meta = {"categories": ["ant", "bee", "cat"], "num_params": 127, "_metrics": {"Few": {"acc@1": 50.0}}}

    class Tiny_Weights(WeightsEnum):  # noqa: N801
        FEW_V1 = Weights(url=f"{address}/{name}", transforms=preset, meta=meta)
        DEFAULT = FEW_V1

    def tiny(*, weights: Tiny_Weights | None = None, progress: bool = True, **kwargs: Any) -> Tiny:
        network = Tiny(**kwargs if weights is None else {"num_classes": 3, "mirrored": True, **kwargs})
        if weights is not None:
            network.load_state_dict(weights.get_state_dict(progress=progress, check_hash=True))
        return network

    def start(script: str, settings: dict, *arguments: str) -> object:
        words = ["--name", "own", "--settings", json.dumps(settings), *arguments]
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *words])
        monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
        monkeypatch.setattr(torch, "set_deterministic_debug_mode", lambda mode: None)
        try:
            runpy.run_path(str(SCRIPTS / f"{script}.py"), run_name="__main__")
        except SystemExit as end:
            return end.code
        return 0

    monkeypatch.setitem(BUILTIN_MODELS, "tiny", tiny)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("convatlas.datasets.download.time.sleep", lambda seconds: None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    return start


SETTINGS = {"architecture": "torchvision/tiny", "weights": "FEW_V1", "mirrors": []}


def test_weights_are_fetched_and_told_of(run: Callable, tmp_path: Path, file: bytes, address: str) -> None:
    output = tmp_path / "data/weights/tiny-FEW_V1.pth"
    mirrored = SETTINGS | {"mirrors": [f"{address}/nowhere"]}
    assert run("weights", mirrored, "--output", str(output)) == 0
    assert output.read_bytes() == file
    told = json.loads(output.with_suffix(".json").read_text())
    assert told["sha256"] == hashlib.sha256(file).hexdigest()
    assert told["categories"] == ["ant", "bee", "cat"]
    assert told["metrics"] == {"Few": {"acc@1": 50.0}}
    assert told["preprocessing"]["size"] == 12
    assert told["preprocessing"]["resize"] == 14
    assert not (tmp_path / "data/weights/.partial").exists()
    # What is there already is not fetched again.
    next((tmp_path / "served").iterdir()).unlink()
    assert run("weights", SETTINGS, "--output", str(output)) == 0


def test_a_mirrors_altered_file_is_refused_and_nothing_is_left(run: Callable, tmp_path: Path) -> None:
    next((tmp_path / "served").iterdir()).write_bytes(b"altered")
    told = str(run("weights", SETTINGS, "--output", str(tmp_path / "made/w.pth")))
    assert told.startswith("error: networks.own.weights: could not download tiny-")
    assert "corrupted: its SHA-256 begins with" in told
    assert [path.name for path in tmp_path.glob("made/*")] == []


def test_weights_that_torchvision_lacks_are_named(run: Callable, tmp_path: Path) -> None:
    told = str(run("weights", SETTINGS | {"weights": "FEW_V2"}, "--output", str(tmp_path / "w.pth")))
    assert "networks.own.weights: torchvision/tiny has no weights 'FEW_V2'; did you mean 'FEW_V1'" in told


def made(run: Callable, folder: Path, settings: dict, *arguments: str) -> dict[str, Any]:
    assert run("train", settings, *arguments, "--output", str(folder)) == 0
    return json.loads((folder / "network.json").read_text())


def test_a_network_with_them_is_not_trained_and_is_built_again(run: Callable, tmp_path: Path) -> None:
    fetched = tmp_path / "tiny-FEW_V1.pth"
    run("weights", SETTINGS, "--output", str(fetched))
    description = made(run, tmp_path / "own", SETTINGS, "--weights", str(fetched))
    assert description["weights"]["origin"] == "torchvision FEW_V1"
    assert description["weights"]["url"].startswith("http://127.0.0.1")
    assert description["classes"] == ["ant", "bee", "cat"]
    assert (description["training"], description["dataset"], description["dataset_sha256"]) == (None,) * 3
    assert "torchvision" in description["versions"]
    assert json.loads((tmp_path / "own/metrics.json").read_text()) == {}
    assert (tmp_path / "own/history.csv").read_text().splitlines()[0].startswith("epoch,")
    assert len((tmp_path / "own/history.csv").read_text().splitlines()) == 1
    assert json.loads((tmp_path / "own/timing.json").read_text())["training_seconds"] is None
    fetched.unlink()
    network, preprocessing = load_network(tmp_path / "own")
    x = torch.rand(2, *preprocessing.shape)
    assert torch.equal(network(x), TRAINED(x))
    assert not torch.equal(network(x), network(x.flip(3)))


def test_a_wrong_number_of_names_is_told(run: Callable, tmp_path: Path) -> None:
    fetched = tmp_path / "tiny-FEW_V1.pth"
    run("weights", SETTINGS, "--output", str(fetched))
    arguments = ("--weights", str(fetched), "--output", str(tmp_path / "own"))
    told = run("train", SETTINGS | {"classes": ["a", "b"]}, *arguments)
    assert told == "error: networks.own.classes: 2 names of classes for a network of 3 outputs"
    assert not (tmp_path / "own").exists()


def test_without_weights_and_data_it_keeps_those_of_its_seed(run: Callable, tmp_path: Path) -> None:
    settings = {"architecture": "torchvision/tiny", "arguments": {"num_classes": 4}, "input": {"size": 12}}
    description = made(run, tmp_path / "own", settings, "--seed", "7")
    assert description["weights"]["origin"] == "random, seed 7"
    assert description["classes"] == ["0", "1", "2", "3"]
    network, _ = build_network(settings, None, seed=7)
    assert torch.equal(load_file(tmp_path / "own/weights.safetensors")["fc.weight"], network.fc.weight)
    again, _ = load_network(tmp_path / "own")
    assert torch.equal(again.fc.weight, network.fc.weight)


def test_weights_of_a_file_are_tested_on_a_data_set_of_its_classes(run: Callable, tmp_path: Path) -> None:
    digits = {"format": "mnist", "source": "embedded", "mirrors": []}
    run("data", digits, "--output", str(tmp_path / "digits"))
    network, _ = build_network({"architecture": "lenet5"}, [str(n) for n in range(10)], seed=3)
    settings = {"architecture": "lenet5", "dataset": "digits"}
    torch.save({"net": network.state_dict()}, tmp_path / "c.pth")
    settings["weights"] = {"path": str(tmp_path / "c.pth"), "key": "net"}
    description = made(run, tmp_path / "own", settings, "--data", str(tmp_path / "digits"))
    assert description["weights"]["origin"] == str(tmp_path / "c.pth")
    assert description["weights"]["source_sha256"] == sha256(tmp_path / "c.pth")
    assert description["dataset"] == "digits"
    assert description["training"] is None
    metrics = json.loads((tmp_path / "own/metrics.json").read_text())
    assert metrics["images"] == 360
    again, preprocessing = load_network(tmp_path / "own")
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(again(x), network(x))
    assert preprocessing == Preprocessing(28, (0.1307,), (0.3081,))


def test_no_network_of_torchvisions_is_left_behind() -> None:
    assert "tiny" not in models.list_models()
