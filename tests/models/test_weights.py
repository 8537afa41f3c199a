"""Trained weights from the user's files: what is read, what is refused, and what does not fit."""

import io
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import Tensor, nn
from torch.ao.quantization import quantize_dynamic
from torch.nn import functional as F

from convatlas import UserError
from convatlas.models import weights
from tests.support.real_data import get_real_data

KEY = "networks.own.weights"


def build_small(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))


def save_checkpoint(path: Path, content: Any, **settings: str) -> dict[str, Any]:
    """Save a checkpoint, and return its section of the config."""
    torch.save(content, path)
    return {"path": str(path), **settings}


def get_error(network: nn.Module, settings: dict[str, Any]) -> str:
    """Load weights that do not fit, and return the message."""
    with pytest.raises(UserError) as error:
        weights.load_weights(network, settings, KEY)
    return str(error.value)


def have_equal_weights(one: nn.Module, other: nn.Module) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


# Weights that fit


@pytest.mark.parametrize(
    ("wrap", "settings"),
    [
        (lambda state: state, {}),
        (lambda state: {"state_dict": state, "epoch": 3}, {"key": "state_dict"}),
        (lambda state: {"a": {"b.c": state}, "d": 1}, {"key": "a.b.c"}),
        (lambda state: {"model.ema": state}, {"key": "model.ema"}),
        (lambda state: {f"module.{k}": v for k, v in state.items()}, {"strip_prefix": "module."}),
        (
            lambda state: (
                {f"net.{k}": v for k, v in state.items()} | {"loss.weight": torch.ones(2), "step": 3}
            ),
            {"strip_prefix": "net."},
        ),
    ],
    ids=["flat", "key", "dots", "a key with dots", "prefix", "others skipped"],
)
def test_a_checkpoint_is_loaded(tmp_path: Path, wrap: Callable, settings: dict[str, str]) -> None:
    network = build_small(1)
    content = wrap(build_small(2).state_dict())
    if settings.get("key") == "a.b.c":
        content = {"a": {"b": {"c": build_small(2).state_dict()}}}
    weights.load_weights(network, save_checkpoint(tmp_path / "c.pth", content, **settings), KEY)
    assert have_equal_weights(network, build_small(2))


def test_safetensors_are_loaded_from_a_file_of_any_name(tmp_path: Path) -> None:
    for name in ("w.safetensors", "w.bin"):
        save_file(build_small(2).state_dict(), tmp_path / name)
        network = build_small(1)
        weights.load_weights(network, {"path": str(tmp_path / name)}, KEY)
        assert have_equal_weights(network, build_small(2))


def test_batch_counters_may_be_missing_and_float16_is_converted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    state = {
        k: v.half() for k, v in build_small(2).state_dict().items() if not k.endswith("num_batches_tracked")
    }
    network = build_small(1)
    weights.load_weights(network, save_checkpoint(tmp_path / "old.pth", state), KEY)
    assert network[0].weight.dtype == torch.float32
    assert torch.equal(network[0].weight, build_small(2)[0].weight.half().float())
    assert "torch.float16 are converted to the network's precision" in caplog.text


# What PyTorch's load_state_dict accepts


def build_weight_normed(*, old: bool, seed: int) -> nn.Module:
    network = build_small(seed)
    normalize = nn.utils.weight_norm if old else nn.utils.parametrizations.weight_norm
    normalize(network[3])
    return network


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("prefix", ["", "module."])
def test_names_that_pytorch_has_changed_are_accepted(tmp_path: Path, prefix: str) -> None:
    old = build_weight_normed(old=True, seed=2)
    state = {prefix + name: tensor for name, tensor in old.state_dict().items()}
    network = build_weight_normed(old=False, seed=1)
    weights.load_weights(network, save_checkpoint(tmp_path / "c.pth", state, strip_prefix=prefix), KEY)
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(network.eval()(images), old.eval()(images))
    del state[prefix + "0.bias"]
    unchanged = build_weight_normed(old=False, seed=1)
    message = get_error(unchanged, save_checkpoint(tmp_path / "c.pth", state, strip_prefix=prefix))
    assert "missing: 0.bias" in message
    assert have_equal_weights(unchanged, build_weight_normed(old=False, seed=1))


class Negated(nn.Linear):
    """A layer whose version 2 holds the weights with the opposite sign."""

    _version = 2

    def _load_from_state_dict(self, state: dict, prefix: str, metadata: dict, *others: Any) -> None:
        if metadata.get("version") == 1:
            state[prefix + "weight"] = -state[prefix + "weight"]
        super()._load_from_state_dict(state, prefix, metadata, *others)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("version", [1, 2])
def test_versions_of_modules_are_heeded(tmp_path: Path, prefix: str, version: int) -> None:
    old = nn.Sequential(Negated(3, 2))
    old[0]._version = version
    state = (nn.DataParallel(old) if prefix else old).state_dict()
    network = nn.Sequential(Negated(3, 2))
    weights.load_weights(network, save_checkpoint(tmp_path / "c.pth", state, strip_prefix=prefix), KEY)
    assert torch.equal(network[0].weight, old[0].weight * (-1 if version == 1 else 1))


class Noted(nn.Linear):
    """A layer with extra state."""

    note: Any = "by hand"

    def get_extra_state(self) -> Any:
        return {"note": self.note}

    def set_extra_state(self, state: Any) -> None:
        self.note = state["note"]


def test_extra_state_is_accepted_where_it_is_the_networks_own(tmp_path: Path) -> None:
    saved, network = nn.Sequential(Noted(3, 2)), nn.Sequential(Noted(3, 2))
    settings = save_checkpoint(tmp_path / "c.pth", {"net": saved.state_dict()}, key="net")
    weights.load_weights(network, settings, KEY)
    assert torch.equal(network[0].weight, saved[0].weight)
    tensors = {name: item for name, item in saved.state_dict().items() if isinstance(item, Tensor)}
    weights.load_weights(nn.Sequential(Noted(3, 2)), save_checkpoint(tmp_path / "t.pth", tensors), KEY)
    weights.load_weights(nn.Sequential(nn.Linear(3, 2)), settings, KEY)  # a network without it


def test_extra_state_that_would_be_lost_is_refused_in_one_line(tmp_path: Path) -> None:
    saved, network = nn.Sequential(Noted(3, 2)), nn.Sequential(Noted(3, 2))
    saved[0].note = "by another hand"
    kept = network[0].weight.clone()
    message = get_error(network, save_checkpoint(tmp_path / "c.pth", saved.state_dict()))
    assert "the extra state of 0._extra_state differs" in message
    assert "\n" not in message
    assert network[0].note == "by hand"
    assert torch.equal(network[0].weight, kept)


# Weights that do not fit


STATE = build_small(2).state_dict()


@pytest.mark.parametrize(
    ("content", "settings", "words"),
    [
        ({"state_dict": STATE, "best": 1}, {}, ["are nested deeper", "give key: state_dict"]),
        ({"a": {"b": STATE}, "ema": STATE}, {}, ["key: a.b or key: ema"]),
        ({"a": {"b": STATE}}, {"key": "a"}, ["key: a.b"]),
        ({"state_dict": STATE}, {"key": "statedict"}, ["weights.key", "'statedict'", "mean 'state_dict'"]),
        ({"lr": 0.1, "epoch": 3}, {}, ["holds no weights by name, but a mapping of lr, epoch"]),
        (torch.ones(3), {}, ["holds no weights by name, but a Tensor"]),
        (
            {f"module.{k}": v for k, v in STATE.items()},
            {},
            ['give strip_prefix: "module."', "missing: 0.weight"],
        ),
        (
            {f"net.model.{k}": v for k, v in STATE.items()} | {"loss.w": torch.ones(1)},
            {},
            ['give strip_prefix: "net.model."'],
        ),
        (STATE, {"strip_prefix": "module."}, ["weights.strip_prefix", "begins with 'module.'", "0.weight"]),
        ({k: v for k, v in STATE.items() if k != "3.bias"}, {}, ["1 of the network's are missing: 3.bias"]),
        (STATE | {"4.weight": torch.ones(1)}, {}, ["1 are not the network's: 4.weight"]),
        (
            {k.replace("0.weight", "0.weights"): v for k, v in STATE.items()},
            {},
            ["is 0.weight named 0.weights there?"],
        ),
        (
            STATE | {"3.weight": torch.ones(5, 144)},
            {},
            ["3.weight is 5 × 144 there and 2 × 144 in the network"],
        ),
        ({str(n): torch.ones(1) for n in range(9)}, {}, ["9 are not the network's: 0, 1, 2, 3 and 5 more"]),
    ],
)
def test_weights_that_do_not_fit_are_reported(
    tmp_path: Path, content: Any, settings: dict, words: list[str]
) -> None:
    network = build_small(1)
    message = get_error(network, save_checkpoint(tmp_path / "c.pth", content, **settings))
    assert message.startswith(KEY)
    for word in words:
        assert word in message
    assert have_equal_weights(network, build_small(1))


def add_counters(prefix: str = "") -> dict[str, Tensor]:
    """Return the weights with numbers that a profiler left in them, for the network and its layers."""
    places = ["", "0.", "1.", "3."]
    counters = {
        f"{place}{name}": torch.zeros(1) for place in places for name in ("total_ops", "total_params")
    }
    return {prefix + name: tensor for name, tensor in (STATE | counters).items()}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_ignored_names_are_not_loaded(tmp_path: Path, prefix: str) -> None:
    content = add_counters(prefix)
    settings = save_checkpoint(tmp_path / "c.pth", content, strip_prefix=prefix)
    message = get_error(build_small(), settings)
    assert 'to leave them out, give ignore: ["*total_ops", "*total_params"]' in message
    network = build_small()
    weights.load_weights(network, settings | {"ignore": ["*total_ops", "*total_params"]}, KEY)
    assert have_equal_weights(network, build_small(2))


def test_what_ignore_cannot_do_is_reported(tmp_path: Path) -> None:
    settings = save_checkpoint(tmp_path / "c.pth", add_counters())
    message = get_error(build_small(), settings | {"ignore": ["*.totl_ops"]})
    assert f"{KEY}.ignore: no name matches '*.totl_ops'; the names are: 0.weight" in message
    message = get_error(build_small(), settings | {"ignore": ["*total*", "3.*"]})
    assert "2 of the network's are missing: 3.weight, 3.bias" in message
    message = get_error(build_small(), save_checkpoint(tmp_path / "c.pth", STATE | {"4.w": torch.ones(1)}))
    assert message.endswith('1 are not the network\'s: 4.w; to leave them out, give ignore: ["4.w"]')
    heads = {f"{n}.weight": torch.ones(1) for n in range(4, 9)}
    message = get_error(build_small(), save_checkpoint(tmp_path / "c.pth", STATE | heads))
    assert "5 are not the network's" in message
    assert "ignore" not in message  # "*.weight" would match the network's own


def list_adam_state() -> dict[str, Any]:
    """Return the state of an optimizer, which holds a mapping of tensors for each of 4 × 6 parameters."""
    networks = nn.ModuleList([build_small() for _ in range(4)])
    optimizer = torch.optim.Adam(networks.parameters())
    sum(network(torch.rand(2, 3, 8, 8)).sum() for network in networks).backward()
    optimizer.step()
    return optimizer.state_dict()


def test_only_places_that_fit_are_suggested(tmp_path: Path) -> None:
    others = {"optimizer": list_adam_state(), "teacher": nn.Linear(3, 4).state_dict()}
    wrapped = {f"module.{name}": tensor for name, tensor in STATE.items()}
    suggestions = [
        ({"model": STATE}, {}, "give key: model"),
        ({"model": STATE, "ema": {"shadow": STATE}}, {}, "give key: model or key: ema.shadow"),
        ({"model": wrapped}, {}, 'give key: model and strip_prefix: "module."'),
        ({"model": wrapped}, {"strip_prefix": "module."}, "give key: model"),
        ({"model": STATE}, {"strip_prefix": "module."}, "give key: model and no strip_prefix"),
    ]
    for content, settings, suggestion in suggestions:
        file = save_checkpoint(tmp_path / "c.pth", others | content, **settings)
        assert get_error(build_small(), file).endswith(f"are nested deeper; {suggestion}")


def test_where_no_place_fits_a_few_are_named(tmp_path: Path) -> None:
    message = get_error(build_small(), save_checkpoint(tmp_path / "c.pth", {"optimizer": list_adam_state()}))
    assert "give key: optimizer.state.0 or key: optimizer.state.1" in message
    assert "or one of 20 more; none of them fits the network" in message


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_is_not_run_and_a_conversion_is_shown(tmp_path: Path) -> None:
    settings = save_checkpoint(
        tmp_path / "c.pth", {"net": {"w": STATE}, "trap": Trap(tmp_path / "run")}, key="net.w"
    )
    message = get_error(build_small(), settings)
    assert not (tmp_path / "run").exists()
    assert f"{tmp_path}/c.pth holds more than tensors, " in message
    command = message[message.index("python -c") :].strip()
    assert os.system(f"cd {tmp_path} && {command.replace('python', sys.executable, 1)}") == 0
    network = build_small(1)
    weights.load_weights(network, {"path": str(tmp_path / "c.safetensors")}, KEY)
    assert have_equal_weights(network, build_small(2))


def test_a_refused_class_is_named(tmp_path: Path) -> None:
    network_file = save_checkpoint(tmp_path / "whole.pth", build_small())
    assert "more than tensors, torch.nn.modules" in get_error(build_small(), network_file)
    numpy_file = save_checkpoint(
        tmp_path / "numpy.pth", {"state_dict": STATE, "best": np.float64(3)}, key="state_dict"
    )
    assert "numpy" in get_error(build_small(), numpy_file)


def list_wrong_files() -> dict[str, tuple[bytes, str]]:
    """Return contents of files that are not weights, each with words of its message."""
    file = io.BytesIO()
    torch.save(STATE, file)
    complete = file.getvalue()
    script = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.ReLU(), torch.ones(1)), script)
    return {
        "empty": (b"", "is empty"),
        "page": (b"\n<!DOCTYPE html><html>", "is a web page"),
        "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        "half": (complete[: len(complete) // 2], "is damaged"),
        "text": (b"no weights at all\n", "is damaged, or not a checkpoint"),
        "half safetensors": (b"\xff\0\0\0\0\0\0\0" + b'{"a":', "is damaged"),
        "pickle": (pickle.dumps(object()), "more than tensors"),
        "script": (script.getvalue(), "is a TorchScript program"),
    }


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize(
    "name", ["empty", "page", "pointer", "half", "text", "half safetensors", "pickle", "script"]
)
def test_files_that_are_not_weights_are_reported(tmp_path: Path, name: str) -> None:
    content, words = list_wrong_files()[name]
    (tmp_path / "odd.pth").write_bytes(content)
    message = get_error(build_small(), {"path": str(tmp_path / "odd.pth")})
    assert f"{KEY}.path: {tmp_path}/odd.pth" in message
    assert words in message


def write_archive(path: Path, names: list[str]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "{}")


def test_an_exported_program_is_named_and_its_weights_are_converted(tmp_path: Path) -> None:
    program = torch.export.export(build_small(2).eval(), (torch.zeros(1, 3, 8, 8),))
    torch.export.save(program, tmp_path / "net.pt2")
    message = get_error(build_small(), {"path": str(tmp_path / "net.pt2")})
    assert f"{KEY}.path: {tmp_path}/net.pt2 is an exported program (torch.export)" in message
    command = message[message.index("python -c") :]
    assert os.system(f"cd {tmp_path} && {command.replace('python', sys.executable, 1)}") == 0
    network = build_small(1)
    weights.load_weights(network, {"path": str(tmp_path / "net.safetensors")}, KEY)
    assert have_equal_weights(network, build_small(2))


def test_files_of_other_frameworks_are_named_with_the_way_to_convert(tmp_path: Path) -> None:
    for name in ("old.h5", "old.keras", "old.pth"):
        (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99))
        message = get_error(build_small(), {"path": str(tmp_path / name)})
        assert f"{name} is an HDF5 file, as Keras writes them, not weights of PyTorch" in message
        assert "transposed from (H, W, in, out) to (out, in, H, W)" in message
    write_archive(tmp_path / "new.keras", ["metadata.json", "config.json", "model.weights.h5"])
    message = get_error(build_small(), {"path": str(tmp_path / "new.keras")})
    assert "new.keras is a Keras model, not weights of PyTorch; load it with Keras" in message
    (tmp_path / "net.onnx").write_bytes(b"\x08\x08\x12\x07pytorch" + bytes(99))
    message = get_error(build_small(), {"path": str(tmp_path / "net.onnx")})
    assert "net.onnx is an ONNX model, not weights of PyTorch" in message
    assert f"onnx.load('{tmp_path}/net.onnx')" in message


@pytest.mark.parametrize("suffix", [".onnx", ".h5", ".keras", ".pt2"])
def test_a_checkpoint_is_loaded_whatever_its_suffix(tmp_path: Path, suffix: str) -> None:
    network = build_small(1)
    weights.load_weights(network, save_checkpoint(tmp_path / f"c{suffix}", STATE), KEY)
    assert have_equal_weights(network, build_small(2))


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    assert "cannot read" in get_error(build_small(), {"path": str(tmp_path / "gone.pth")})
    assert "cannot read" in get_error(build_small(), {"path": str(tmp_path)})


# Network and weights of another project


class Shortcut(nn.Module):
    """Every second row and column, and zeros for the channels that are new."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, x.shape[1] // 2, x.shape[1] // 2))


class Block(nn.Module):
    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(i, o, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(o)
        self.conv2 = nn.Conv2d(o, o, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(o)
        self.shortcut = Shortcut() if stride == 2 else nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class ResNet20(nn.Module):
    """The CIFAR network of He et al. 2015, section 4.2, in the form of those weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.linear(F.avg_pool2d(out, out.shape[3]).flatten(1))


@pytest.fixture
def resnet20() -> Path:
    return get_real_data("weights/resnet20-12fca82f.th")


def test_the_weights_of_another_project(resnet20: Path) -> None:
    network = ResNet20()
    settings = {"path": str(resnet20), "key": "state_dict", "strip_prefix": "module."}
    weights.load_weights(network, settings, KEY)
    expected = nn.DataParallel(ResNet20())
    expected.load_state_dict(torch.load(resnet20, map_location="cpu", weights_only=True)["state_dict"])
    x = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(network.eval()(x), expected.module.eval()(x))
    assert "give key: state_dict" in get_error(network, {"path": str(resnet20)})
    assert 'strip_prefix: "module."' in get_error(network, {"path": str(resnet20), "key": "state_dict"})


# Names that wrappers change, and weights in one place under two names


class Nested(nn.Module):
    """A network with parts, one of which is named `module`, and two weights that are one."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Conv2d(3, 3, 3)
        self.head = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3))
        self.head[0].weight = self.module.weight


def rename(state: dict[str, torch.Tensor], names: dict[str, str]) -> dict[str, torch.Tensor]:
    """Return a state dict with the beginnings of its names replaced."""
    renamed = {}
    for name, tensor in state.items():
        start = next((start for start in names if name.startswith(start)), "")
        renamed[names.get(start, "") + name.removeprefix(start)] = tensor
    return renamed


@pytest.mark.parametrize(
    ("names", "settings"),
    [
        ({"": "_orig_mod."}, {}),
        ({"": "_orig_mod."}, {"strip_prefix": "_orig_mod."}),
        ({"head.0": "head._orig_mod.0"}, {}),
        ({"module": "module._orig_mod", "head.": "head.module._orig_mod."}, {}),
        ({"": "_orig_mod.module."}, {"strip_prefix": "module."}),
        ({"": "_orig_mod.module."}, {"strip_prefix": "_orig_mod.module."}),
        ({"head.0": "head.module.0", "head.1": "head.module.1"}, {}),
    ],
)
def test_names_that_wrappers_within_a_network_change_are_read(
    tmp_path: Path, names: dict[str, str], settings: dict[str, str]
) -> None:
    trained, network = Nested(), Nested()
    state = rename(trained.state_dict(), names)
    assert list(state) != list(network.state_dict())
    weights.load_weights(network, save_checkpoint(tmp_path / "c.pth", state, **settings), KEY)
    assert have_equal_weights(network, trained)


def test_a_file_may_omit_the_second_name_of_tied_weights(tmp_path: Path) -> None:
    """`safetensors.torch.save_model` does so."""
    trained, network = Nested(), Nested()
    save_model(trained, tmp_path / "c.safetensors")
    weights.load_weights(network, {"path": str(tmp_path / "c.safetensors")}, KEY)
    assert have_equal_weights(network, trained)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("is_dynamic", [False, True])
def test_quantised_weights_are_refused_in_one_line(tmp_path: Path, is_dynamic: bool) -> None:
    if is_dynamic:
        state = quantize_dynamic(nn.Sequential(nn.Linear(2, 2))).state_dict()
    else:
        state = {"0.weight": torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)}
    error = get_error(nn.Sequential(nn.Linear(2, 2)), save_checkpoint(tmp_path / "c.pth", state))
    assert "holds quantised weights: 0." in error and "before the quantisation" in error
    assert "\n" not in error
