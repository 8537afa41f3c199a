"""The tensors of a network's state, with modules whose extra state is something else."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from convatlas.files import read_json
from convatlas.models.build import load_network
from convatlas.models.state import get_tensor_state, load_tensor_state
from convatlas.pipeline.config import resolve_config
from convatlas.training.run import train_network

CODE = """
from torch import nn


class Scaled(nn.Conv2d):
    def get_extra_state(self):
        return {"made by": "hand", "scale": [1, 2]}

    def set_extra_state(self, state):
        assert state == self.get_extra_state()


def build():
    return nn.Sequential(Scaled(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


class Versioned(nn.Linear):
    def get_extra_state(self) -> dict[str, int]:
        return {"version": 2}

    def set_extra_state(self, state: Any) -> None:
        assert state == {"version": 2}


class Counted(nn.Linear):
    def get_extra_state(self) -> torch.Tensor:
        return torch.tensor([3])

    def set_extra_state(self, state: Any) -> None:
        self.count = state


def test_only_tensors_are_state() -> None:
    network = nn.Sequential(Versioned(2, 3), Counted(3, 1))
    names = ["0.weight", "0.bias", "1.weight", "1.bias", "1._extra_state"]
    assert list(get_tensor_state(network)) == names


def test_the_state_is_loaded_beside_the_networks_own_extra_state() -> None:
    one, other = (nn.Sequential(Versioned(2, 3), Counted(3, 1)) for _ in range(2))
    load_tensor_state(other, get_tensor_state(one))
    assert torch.equal(one[0].weight, other[0].weight)
    assert torch.equal(other[1].count, torch.tensor([3]))
    with pytest.raises(RuntimeError, match=r"Missing key.*0\.bias"):
        load_tensor_state(other, {k: v for k, v in get_tensor_state(one).items() if k != "0.bias"})


def test_a_network_with_extra_state_is_written_and_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(CODE, encoding="utf-8")
    config = resolve_config({"networks": {"n": {"architecture": "net.py:build", "input": {"size": 8}}}})
    train_network("n", config["networks"]["n"], tmp_path / "results/n", device="cpu")
    assert set(load_file("results/n/weights.safetensors")) == {"0.weight", "0.bias"}
    network, _ = load_network("results/n")
    assert torch.equal(network[0].weight, load_file("results/n/weights.safetensors")["0.weight"])


def test_the_precision_that_was_converted_is_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(CODE + "\n\ndef build_half():\n    return build().half()\n", encoding="utf-8")
    networks = {
        name: {"architecture": f"net.py:{name}", "input": {"size": 8}} for name in ("build", "build_half")
    }
    config = resolve_config({"networks": networks})
    for name, settings in config["networks"].items():
        train_network(name, settings, tmp_path / name, device="cpu")
    assert "converted_from" not in read_json("build/network.json")
    assert read_json("build_half/network.json")["converted_from"] == "float16"
    assert load_network("build_half")[0][0].weight.dtype == torch.float32
