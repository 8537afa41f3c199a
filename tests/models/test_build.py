"""Networks built from the config and loaded from results, devices, and class names."""

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.ao.quantization import quantize_dynamic

from convatlas import UserError
from convatlas.files import write_json
from convatlas.models import class_names
from convatlas.models.build import (
    build_from_description,
    build_in_float32,
    build_network,
    choose_device,
    load_network,
)
from convatlas.models.factory import Factory
from convatlas.models.outputs import Output
from convatlas.models.preprocessing import Preprocessing

CLASSES = [str(digit) for digit in range(10)]
GREY = Preprocessing(28, (0.5,), (0.5,))


# The bundled networks.


@pytest.mark.parametrize(("name", "count", "side"), [("simple_cnn", 44_834, 50), ("lenet5", 61_706, 28)])
def test_parameters_and_shapes(name: str, count: int, side: int) -> None:
    network, preprocessing = build_network({"architecture": name}, CLASSES, seed=0)
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    assert preprocessing.shape == (1, side, side)
    assert network(torch.rand(3, *preprocessing.shape)).shape == (3, 10)
    assert not network.training


@pytest.mark.parametrize("name", ["simple_cnn", "lenet5"])
def test_there_is_one_output_per_class(name: str) -> None:
    network, preprocessing = build_network({"architecture": name}, ["cat", "dog", "emu"], seed=0)
    assert network(torch.rand(2, *preprocessing.shape)).shape == (2, 3)


def test_lenet5_gives_log_probabilities_and_simple_cnn_logits() -> None:
    lenet, _ = build_network({"architecture": "lenet5"}, CLASSES, seed=0)
    sums = lenet(torch.randn(4, 1, 28, 28)).exp().sum(1)
    torch.testing.assert_close(sums, torch.ones(4))
    simple, _ = build_network({"architecture": "simple_cnn"}, CLASSES, seed=0)
    assert isinstance(simple[-1], nn.Linear)


def weights(name: str, seed: int) -> dict[str, Tensor]:
    return build_network({"architecture": name}, CLASSES, seed)[0].state_dict()


@pytest.mark.parametrize("name", ["simple_cnn", "lenet5"])
def test_weights_are_drawn_from_the_seed(name: str) -> None:
    first, repeated, other = weights(name, 3), weights(name, 3), weights(name, 4)
    assert list(first) == list(repeated) == list(other)
    for parameter, tensor in first.items():
        assert torch.equal(tensor, repeated[parameter])
        assert not torch.equal(tensor, other[parameter])


def test_the_configs_input_overrides_the_architectures() -> None:
    settings = {"architecture": "lenet5", "input": {"mean": [0.25]}}
    _, preprocessing = build_network(settings, CLASSES, seed=0)
    assert preprocessing == Preprocessing(28, (0.25,), (0.3081,))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 32}, r"lenet5 does not take an input of shape \(1, 32, 32\)"),
        ({"mean": [0.5] * 3, "std": [0.5] * 3}, r"lenet5 does not take an input of shape \(3, 28, 28\)"),
        ({"mean": [0.5] * 3}, "one number per channel"),
        ({"mean": [0.5] * 2, "std": [0.5] * 2}, r"lenet5 does not take an input of shape \(2, 28, 28\)"),
        ({"mean": [], "std": []}, "one number per channel"),
    ],
)
def test_an_input_that_does_not_fit_is_reported(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_network({"architecture": "lenet5", "input": settings}, CLASSES, seed=0)


def describe_network(name: str, outputs: int, preprocessing: Preprocessing) -> dict[str, Any]:
    """The entries of network.json from which a bundled network is built."""
    return {
        "architecture": name,
        "arguments": {"classes": outputs},
        "weights": {"origin": "trained here", "name": None},
        "preprocessing": preprocessing.to_dict(),
    }


# Half precision


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_half_precision_is_converted_to_float32(
    tmp_path: Path, precision: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n\n\ndef build():\n"
        "    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())\n"
        "    network.register_buffer('exact', torch.tensor([0.1], dtype=torch.float64))\n"
        f"    for part in network:\n        part.to({precision})\n    return network\n"
    )
    settings = {"architecture": f"{tmp_path}/net.py:build", "input": {"size": 8}}
    network, _, converted_from = build_in_float32(settings, None, seed=3)
    name = str(precision).removeprefix("torch.")
    assert converted_from == name
    assert f"weights of {name} are converted to float32" in caplog.text
    assert network[0].weight.dtype == network[1].running_mean.dtype == torch.float32
    assert network.exact.dtype == torch.float64
    torch.manual_seed(3)
    assert torch.equal(network[0].weight, nn.Conv2d(3, 4, 3).weight.to(precision).float())


def test_networks_in_float32_are_not_converted() -> None:
    assert build_in_float32({"architecture": "lenet5"}, CLASSES, seed=0)[2] is None


def test_a_cast_in_a_half_precision_network_is_named(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.conv = nn.Conv2d(3, 4, 3)\n\n"
        "    def forward(self, x):\n        return self.conv(x.half())\n\n\n"
        "def build():\n    return Net().half()\n"
    )
    settings = {"architecture": f"{tmp_path}/net.py:build", "input": {"size": 8}}
    with pytest.raises(UserError, match=r"weights of float16 are converted to float32.*such as \.half\(\)"):
        build_network(settings, None, seed=0)


# Networks that choose a device


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Found no NVIDIA driver on your system."),
        AssertionError("Torch not compiled with CUDA enabled"),
        RuntimeError("Expected all tensors to be on the same device, but found cuda:0 and cpu!"),
        RuntimeError(
            "Input type (torch.cuda.FloatTensor) and weight type (torch.FloatTensor) should be the same"
        ),
    ],
)
@pytest.mark.parametrize("place", ["forward", "factory"])
def test_a_device_in_a_networks_code_is_named(tmp_path: Path, error: Exception, place: str) -> None:
    fail = f"raise {type(error).__name__}({str(error)!r})"  # as .cuda() fails, on machines of all kinds
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n"
        f"    def forward(self, x):\n        {fail if place == 'forward' else 'return x'}\n\n\n"
        f"def build():\n    {fail if place == 'factory' else 'return Net()'}\n"
    )
    settings = {"architecture": f"{tmp_path}/net.py:build", "input": {"size": 8}}
    with pytest.raises(UserError) as caught:
        build_network(settings, None, seed=0, key="networks.own")
    message = str(caught.value)
    assert message.startswith("networks.own.architecture: ")
    assert "moves tensors to a device of its own choice" in message
    assert re.search(r"net.py:\d+: .*remove .cuda\(\)", message)
    assert "input.size" not in message


# Wrapped networks


def build_classifier() -> nn.Sequential:
    torch.manual_seed(4)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2))
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.Sigmoid(), head)


def compile_in_place() -> nn.Module:
    network = build_classifier()
    network.compile(backend="eager")
    return network


def wrap_parts() -> nn.Module:
    network = build_classifier()
    network[0] = torch.compile(network[0], backend="eager")
    network[2] = nn.DataParallel(torch.compile(network[2], backend="eager"))
    return network


@pytest.mark.parametrize(
    "wrap",
    [
        lambda: torch.compile(build_classifier(), backend="eager"),
        compile_in_place,
        lambda: nn.DataParallel(build_classifier()),
        lambda: nn.DataParallel(torch.compile(build_classifier(), backend="eager")),
        wrap_parts,
    ],
    ids=["compile", "compile in place", "DataParallel", "both", "parts"],
)
def test_wrappers_around_a_network_and_its_parts_are_left_out(wrap: Callable[[], nn.Module]) -> None:
    network = Factory(wrap, "net.py:build")({}, "networks.own")
    expected = build_classifier()
    assert str(network) == str(expected)
    assert list(network.state_dict()) == list(expected.state_dict())
    assert all(module._compiled_call_impl is None for module in network.modules())
    images = torch.rand(2, 3, 9, 9)
    assert torch.equal(network(images), expected(images))


def test_distributed_data_parallel_is_left_out(tmp_path: Path) -> None:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        network = Factory(lambda: nn.parallel.DistributedDataParallel(build_classifier()), "net.py:build")(
            {}, "networks.own"
        )
    finally:
        torch.distributed.destroy_process_group()
    assert str(network) == str(build_classifier())


def export() -> torch.export.ExportedProgram:
    return torch.export.export(build_classifier().eval(), (torch.zeros(1, 3, 9, 9),))


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.ao
@pytest.mark.parametrize(
    ("build", "description"),
    [
        (lambda: torch.jit.trace(build_classifier(), torch.zeros(1, 3, 9, 9)), "a traced network"),
        (lambda: quantize_dynamic(build_classifier()), "a quantised network"),
        (lambda: torch.jit.script(build_classifier()), "a TorchScript program"),
        (
            lambda: nn.Sequential(torch.jit.script(build_classifier()), nn.ReLU()),
            "a TorchScript program (torch.jit) as its module '0'",
        ),
        (export, "an exported program"),
        (lambda: export().module(), "an exported program"),
        (lambda: torch.export.unflatten(export()), "an exported program"),
    ],
    ids=["traced", "quantised", "scripted", "scripted part", "exported", "exported module", "unflattened"],
)
def test_a_program_is_refused_in_one_line(build: Callable[[], Any], description: str) -> None:
    with pytest.raises(UserError) as error:
        Factory(build, "net.py:build")({}, "networks.own")
    message = str(error.value)
    assert message.startswith(f"networks.own.architecture: net.py:build returned {description}")
    assert "return the Python module" in message
    assert "\n" not in message


def test_a_network_is_built_from_its_description_with_weights_of_another_seed() -> None:
    network, preprocessing = build_network({"architecture": "lenet5"}, CLASSES, seed=5)
    description = describe_network("lenet5", 10, preprocessing)
    other, other_preprocessing = build_from_description(description, seed=6)
    assert other_preprocessing == preprocessing
    assert not torch.equal(other.conv1.weight, network.conv1.weight)
    assert torch.equal(build_from_description(description, seed=5)[0].conv1.weight, network.conv1.weight)


@pytest.mark.parametrize("name", ["simple_cnn", "lenet5"])
def test_a_saved_network_is_loaded_bit_for_bit(name: str, tmp_path: Path) -> None:
    settings = {"architecture": name, "input": {"mean": [0.3]}}
    network, preprocessing = build_network(settings, CLASSES[:7], seed=5)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    write_json(tmp_path / "network.json", describe_network(name, 7, preprocessing))
    loaded, loaded_preprocessing = load_network(tmp_path)
    x = torch.randn(2, *preprocessing.shape)
    assert torch.equal(loaded(x), network(x))
    assert loaded_preprocessing == preprocessing
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_missing_network_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"network\.json is missing"):
        load_network(tmp_path)


# Devices.


@pytest.fixture
def restored_debug_mode() -> Iterator[None]:
    """Restore torch's global state at the end, which choose_device sets."""
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("default")
    yield
    torch.set_deterministic_debug_mode(before)


@pytest.mark.parametrize(
    ("name", "is_available", "expected"),
    [("auto", False, "cpu"), ("cpu", False, "cpu"), ("cpu", True, "cpu"), ("auto", True, "cuda")],
)
@pytest.mark.usefixtures("restored_debug_mode")
def test_devices(monkeypatch: pytest.MonkeyPatch, name: str, is_available: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_available)
    assert choose_device(name).type == expected
    assert torch.are_deterministic_algorithms_enabled()


def test_missing_cuda_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"device: cuda.*use auto or cpu"):
        choose_device("cuda")


@pytest.mark.usefixtures("restored_debug_mode")
@pytest.mark.parametrize("variable", ["optional", None])
def test_without_cuda_the_cpu_is_used_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CONVATLAS_GPU", raising=False)
    if variable:
        monkeypatch.setenv("CONVATLAS_GPU", variable)
    assert choose_device("auto").type == "cpu"
    assert [record.message for record in caplog.records] == ["no CUDA here: computing on the CPU"]


@pytest.mark.usefixtures("restored_debug_mode")
def test_a_job_that_requested_a_gpu_needs_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setenv("CONVATLAS_GPU", "required")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(UserError) as error:
        choose_device("auto")
    host = socket.gethostname()
    assert (
        f"no CUDA device on {host} (CUDA_VISIBLE_DEVICES: '3'; torch is built for CUDA 13.2; driver: "
        in str(error.value)
    )
    assert choose_device("cpu").type == "cpu"  # the documented alternative


@pytest.mark.parametrize("content", [b"", b"no weights", bytes(8) + b"{}"])
def test_damaged_weights_are_reported(tmp_path: Path, content: bytes) -> None:
    _, preprocessing = build_network({"architecture": "lenet5"}, list("0123456789"), seed=0)
    write_json(tmp_path / "network.json", describe_network("lenet5", 10, preprocessing))
    (tmp_path / "weights.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"weights\.safetensors is damaged"):
        load_network(tmp_path)


# Class names.


def test_class_names_come_from_a_list_or_a_file_or_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\ufefftench\n great white shark \r\n\n")
    names = class_names.read_class_names(str(tmp_path / "names.txt"), "k")
    assert names == ["tench", "great white shark"]
    assert class_names.read_class_names(["a"], "k") == ["a"]
    for count in (2, 1):  # one score tells the second class from the first
        assert class_names.check_class_names(names, Output("softmax", "", (count,)), "k") == names
    assert class_names.check_class_names([], Output("softmax", "", (3,)), "k") == ["0", "1", "2"]
    assert class_names.check_class_names(names, Output("none"), "k") == []


def test_class_names_that_do_not_fit_are_reported(tmp_path: Path) -> None:
    message = r"networks\.n\.classes: got 2 class names, but the network's output has 3 scores; give 3 names"
    for kind in ("softmax", "none"):
        with pytest.raises(UserError, match=message):
            class_names.check_class_names(["a", "b"], Output(kind, "", (3,)), "networks.n.classes")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "odd.txt").write_bytes(b"\xff\xfe\x00")
    for name, words in (("empty", "names no class"), ("odd", "not text in UTF-8"), ("gone", "cannot read")):
        with pytest.raises(UserError, match=f"k: .*{name}.txt.*{words}|k: {words}.*{name}.txt"):
            class_names.read_class_names(str(tmp_path / f"{name}.txt"), "k")


@pytest.mark.parametrize("message", ["Torch not compiled with CUDA enabled", "Found no NVIDIA driver"])
def test_a_network_that_moves_its_input_to_a_gpu_is_told_to_use_its_device(
    tmp_path: Path, message: str
) -> None:
    """What torch raises depends on how it was built and on the machine."""
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Conv2d):\n"
        f"    def forward(self, x):\n        raise AssertionError({message!r})\n\n\n"
        "def build():\n    return Net(3, 2, 3)\n",
        encoding="utf-8",
    )
    settings = {"architecture": f"{tmp_path}/net.py:build"}
    with pytest.raises(UserError, match=r"net\.py:6.*or write \.to\(x\.device\)") as error:
        build_network(settings, None, 0, "networks.own")
    assert "input.size to" not in str(error.value)
