"""Records of networks, against the same networks written with torch.nn.functional."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convatlas import UserError
from convatlas.models.architectures.lenet5 import lenet5
from convatlas.models.architectures.simple_cnn import simple_cnn
from convatlas.names import list_precisions
from convatlas.tracing.layers import list_layers
from convatlas.tracing.record import collect_filters, compute_switches, for_each_layer, record, record_to_file

LENET5 = [
    *["input", "conv1", "relu1", "pool1", "pool1@switches", "conv2", "relu2", "pool2", "pool2@switches"],
    *["flatten", "fc1", "relu3", "fc2", "relu4", "fc3", "log_softmax"],
]
SIMPLE_CNN = [
    *["input", "conv1", "relu1", "conv2", "relu2", "conv3", "relu3", "pool1", "pool1@switches"],
    *["flatten", "fc"],
]


def images(n: int, side: int, channels: int = 1) -> Tensor:
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def lenet() -> nn.Sequential:
    torch.manual_seed(0)
    return lenet5().eval()


@pytest.fixture
def simple() -> nn.Sequential:
    torch.manual_seed(0)
    return simple_cnn().eval()


def assert_recorded(network: nn.Module, x: Tensor, expected: dict[str, Tensor]) -> None:
    activations = record(network, x)
    assert torch.equal(activations.input, x)
    assert list(activations.outputs) == list(expected)
    for layer, output in expected.items():
        assert torch.equal(activations.outputs[layer], output), layer


def test_lenet5_layer_by_layer(lenet: nn.Sequential) -> None:
    x, w = images(3, 28), lenet.state_dict()
    at: dict[str, Tensor] = {}
    at["conv1"] = F.conv2d(x, w["conv1.weight"], w["conv1.bias"], padding=2)
    at["relu1"] = at["conv1"].clamp(min=0)
    at["pool1"] = F.max_pool2d(at["relu1"], 2)
    at["conv2"] = F.conv2d(at["pool1"], w["conv2.weight"], w["conv2.bias"])
    at["relu2"] = at["conv2"].clamp(min=0)
    at["pool2"] = F.max_pool2d(at["relu2"], 2)
    at["flatten"] = at["pool2"].reshape(3, 400)
    at["fc1"] = F.linear(at["flatten"], w["fc1.weight"], w["fc1.bias"])
    at["relu3"] = at["fc1"].clamp(min=0)
    at["fc2"] = F.linear(at["relu3"], w["fc2.weight"], w["fc2.bias"])
    at["relu4"] = at["fc2"].clamp(min=0)
    at["fc3"] = F.linear(at["relu4"], w["fc3.weight"], w["fc3.bias"])
    at["log_softmax"] = F.log_softmax(at["fc3"], 1)
    assert_recorded(lenet, x, at)


def test_simple_cnn_layer_by_layer(simple: nn.Sequential) -> None:
    x, w = images(2, 50), simple.state_dict()
    at: dict[str, Tensor] = {}
    below = x
    for n in "123":
        at[f"conv{n}"] = F.conv2d(below, w[f"conv{n}.weight"], w[f"conv{n}.bias"])
        below = at[f"relu{n}"] = at[f"conv{n}"].clamp(min=0)
    at["pool1"] = F.max_pool2d(below, 2)
    at["flatten"] = at["pool1"].reshape(2, 3872)
    at["fc"] = F.linear(at["flatten"], w["fc.weight"], w["fc.bias"])
    assert_recorded(simple, x, at)


def test_one_image_is_recorded_without_the_batch_axis(lenet: nn.Sequential) -> None:
    x = images(2, 28)
    batch, image = record(lenet, x), record(lenet, x[1])
    assert torch.equal(image.input, x[1])
    assert list(image.outputs) == list(batch.outputs)
    for layer, output in record(lenet, x[1:]).outputs.items():
        assert torch.equal(image.outputs[layer], output[0]), layer
    for layer, switches in batch.switches.items():
        assert torch.equal(image.switches[layer], switches[1]), layer


def test_only_the_layers_given_are_recorded(lenet: nn.Sequential) -> None:
    x = images(2, 28)
    activations, everything = record(lenet, x, ["pool2", "conv1"]), record(lenet, x)
    assert list(activations.outputs) == ["conv1", "pool2"]
    assert list(activations.switches) == ["pool2"]
    assert all(torch.equal(output, everything.outputs[name]) for name, output in activations.outputs.items())
    nested = nn.Sequential(nn.Sequential(nn.ReLU(), nn.ReLU()), nn.Flatten())
    assert list(record(nested, x, ["0"]).outputs) == ["0"]


def test_a_layer_that_is_not_called_is_an_error_that_names_the_nearest(lenet: nn.Sequential) -> None:
    with pytest.raises(UserError, match=r"calls no layer 'pool3'; did you mean 'pool[12]'\?"):
        record(lenet, images(1, 28), ["conv1", "pool3"])


def hooks(network: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in network.modules() for kind in kinds)


@pytest.mark.parametrize("training", [False, True])
def test_recording_leaves_the_network_as_it_was(lenet: nn.Sequential, training: bool) -> None:
    lenet.train(training)
    x = images(2, 28)
    before = {name: tensor.clone() for name, tensor in lenet.state_dict().items()}
    output, copy = lenet(x), x.clone()
    record(lenet, x)
    assert torch.equal(x, copy)
    assert torch.equal(lenet(x), output)
    assert hooks(lenet) == 0
    assert lenet.training is training
    for name, tensor in lenet.state_dict().items():
        assert torch.equal(tensor, before[name]), name
        assert name.startswith("relu") or lenet.get_parameter(name).requires_grad


def test_hooks_are_removed_when_the_forward_pass_fails(lenet: nn.Sequential) -> None:
    with pytest.raises(UserError, match=r"does not take an input of shape \(1, 1, 20, 20\)"):
        record(lenet, images(1, 20))  # too small for fc1
    assert hooks(lenet) == 0


def test_a_record_is_a_copy_without_gradients(lenet: nn.Sequential) -> None:
    x = images(1, 28)
    activations = record(lenet, x)
    copies = {name: tensor.clone() for name, tensor in activations.outputs.items()}
    x.zero_()
    with torch.no_grad():
        lenet(x)
    assert activations.input.any()
    for name, tensor in activations.outputs.items():
        assert torch.equal(tensor, copies[name])
        assert not tensor.requires_grad


@pytest.mark.parametrize("first", [False, True])
def test_an_in_place_relu_does_not_change_the_record_of_the_layer_before(first: bool) -> None:
    conv = nn.Conv2d(1, 3, 3)
    x = images(1, 8)
    network = nn.Sequential(*([nn.ReLU(inplace=True)] if first else []), conv, nn.ReLU(inplace=True))
    copy = x.clone()
    outputs = list(record(network, x).outputs.values())
    conv_input = copy.clamp(min=0) if first else copy
    expected = F.conv2d(conv_input, conv.weight, conv.bias)
    assert (expected < 0).any()
    assert torch.equal(outputs[-2], expected)
    assert torch.equal(outputs[-1], expected.clamp(min=0))
    assert torch.equal(x, copy)


def test_later_calls_of_one_module_are_recorded_separately() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu, self.pool = nn.ReLU(), nn.MaxPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            return self.pool(self.relu(self.pool(self.relu(x)) - 0.5))

    x = images(1, 8)
    activations = record(Twice(), x)
    assert list(activations.outputs) == ["relu", "pool", "sub", "relu:2", "pool:2"]
    assert list(activations.switches) == ["pool", "pool:2"]
    assert torch.equal(activations.outputs["pool"], F.max_pool2d(x.relu(), 2))
    assert torch.equal(activations.outputs["relu:2"], (activations.outputs["pool"] - 0.5).relu())
    assert activations.switches["pool:2"].max() < 16


# Switches.

POOLS = [
    nn.MaxPool2d(2),
    nn.MaxPool2d(3, 2),
    nn.MaxPool2d(3, 2, padding=1),
    nn.MaxPool2d(2, ceil_mode=True),
    nn.MaxPool2d(2, 1, dilation=2),
    nn.MaxPool2d((2, 3), (3, 1), padding=(1, 0)),
]


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["rows", "channels"])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("pool", POOLS, ids=repr)
def test_switches_point_at_the_first_maximum_of_each_window(
    pool: nn.MaxPool2d, ties: bool, layout: torch.memory_format
) -> None:
    x = images(2, 7, channels=9)[..., :6]
    x = x.round() if ties else x
    switches = compute_switches(pool, x.contiguous(memory_format=layout))
    assert switches.shape == pool(x).shape
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = map(
        pair, (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    )
    for n, c, row, column in np.ndindex(*switches.shape):
        window = [
            (y, z)
            for y in range(row * sh - ph, row * sh - ph + kh * dh, dh)
            for z in range(column * sw - pw, column * sw - pw + kw * dw, dw)
            if 0 <= y < 7 and 0 <= z < 6
        ]
        y, z = max(window, key=lambda place: float(x[n, c, place[0], place[1]]))  # the first of equals
        assert switches[n, c, row, column] == y * 6 + z


def test_unpooling_with_the_files_switches_puts_the_maxima_back(lenet: nn.Sequential, tmp_path: Path) -> None:
    record_to_file(lenet, images(1, 28), tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        for pool, below in (("pool1", "relu1"), ("pool2", "relu2")):
            places = file[f"{pool}@switches"]
            assert places.dtype == np.int32
            assert places.shape == file[pool].shape
            for unit, plane in enumerate(file[below]):
                unpooled = np.zeros_like(plane)
                unpooled.flat[places[unit].ravel()] = file[pool][unit].ravel()
                is_maximum = unpooled != 0
                assert np.array_equal(unpooled[is_maximum], plane[is_maximum])
                blocks = plane.reshape(plane.shape[0] // 2, 2, -1, 2)
                assert np.array_equal(unpooled.reshape(blocks.shape).sum((1, 3)), blocks.max((1, 3)))


# Files.


@pytest.mark.parametrize(("name", "keys"), [("lenet", LENET5), ("simple", SIMPLE_CNN)])
def test_a_file_holds_what_is_recorded_in_execution_order(
    name: str, keys: list[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    network = request.getfixturevalue(name)
    x = images(1, 28 if name == "lenet" else 50)
    activations = record(network, x)
    output = record_to_file(network, x, tmp_path / "a.npz")
    assert torch.equal(output, network(x))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert file.files == keys
        assert np.array_equal(file["input"], x[0].numpy())
        for layer, output in activations.outputs.items():
            assert file[layer].dtype == np.float32
            assert np.array_equal(file[layer], output[0].numpy()), layer
        for layer, places in activations.switches.items():
            assert file[layer + "@switches"].dtype == np.int32
            assert np.array_equal(file[layer + "@switches"], places[0].numpy()), layer


class Residual(nn.Module):
    """Everything in place, a functional pool, no batch axis where it ends."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(1, 1, 3, padding=1), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.conv(x))
        y += x
        return F.max_pool2d(F.relu_(y), 3, 2, 1).mT.flatten(1).sum(1).mul_(2)


def test_what_changes_in_place_is_written_as_it_was(tmp_path: Path) -> None:
    network, x = nn.Sequential(Residual(), nn.Flatten(0)), images(1, 9)
    activations = record(network, x)
    names = ["0.conv", "0.relu", "0/add", "0/relu", "0/max_pool2d", "0/flatten", "0/mul", "1"]
    assert list(activations.outputs) == names
    expected = F.conv2d(x, network[0].conv.weight, network[0].conv.bias, padding=1)
    for layer, step in zip(names, (lambda y: y, F.relu, lambda y: y + x, F.relu), strict=False):
        expected = step(expected)
        assert torch.equal(activations.outputs[layer], expected), layer
    record_to_file(network, x, tmp_path / "a.npz", blocks=["0"])
    with np.load(tmp_path / "a.npz") as file:
        assert [name for name in file.files if name != "0/max_pool2d@switches"] == [
            "input",
            *names[:-1],
            "0",
            "1",
        ]
        for layer in names:
            assert np.array_equal(
                file[layer], activations.outputs[layer].numpy().reshape(file[layer].shape)
            ), layer


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_files_are_the_same_bytes_twice(
    lenet: nn.Sequential, tmp_path: Path, dtype: str, compress: bool
) -> None:
    x = images(1, 28)
    for name in "ab":
        record_to_file(lenet, x, tmp_path / name, dtype=dtype, compress=compress)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with zipfile.ZipFile(tmp_path / "a") as archive:
        assert {member.compress_type == zipfile.ZIP_DEFLATED for member in archive.infolist()} == {compress}


def test_half_precision_rounds_activations_alone(lenet: nn.Sequential, tmp_path: Path) -> None:
    x = images(1, 28)
    activations = record(lenet, x)
    record_to_file(lenet, x, tmp_path / "a.npz", dtype="float16")
    with np.load(tmp_path / "a.npz") as file:
        assert file["input"].dtype == np.float32
        assert np.array_equal(file["input"], x[0].numpy())
        assert file["pool1@switches"].dtype == np.int32
        for layer, output in activations.outputs.items():
            assert file[layer].dtype == np.float16
            assert np.array_equal(file[layer], output[0].numpy().astype(np.float16)), layer


class Autocast(nn.Module):
    """Computes in bfloat16, as networks do that turn autocast on in their forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool, self.fc = nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.Linear(36, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.fc(self.pool(self.conv(x)).flatten(1))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_bfloat16_is_written_as_the_precision_of_the_record(tmp_path: Path, dtype: str) -> None:
    network, x = Autocast(), images(1, 8)
    activations = record(network, x)
    assert {output.dtype for output in activations.outputs.values()} == {torch.bfloat16}
    result = record_to_file(network, x, tmp_path / "a.npz", dtype=dtype)
    assert result.dtype == torch.bfloat16
    with np.load(tmp_path / "a.npz") as file:
        assert np.array_equal(file["pool@switches"], activations.switches["pool"][0].numpy())
        for layer, output in activations.outputs.items():
            assert file[layer].dtype == dtype
            assert np.array_equal(file[layer], output[0].float().numpy().astype(dtype)), layer


def test_layers_state_in_which_precision_they_compute() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1), Autocast())
    layers = list_layers(network, (1, 8, 8))
    assert [layer.get("computed_in") for layer in layers] == [None, *["bfloat16"] * 4]
    assert list_precisions(layers) == [
        "4 of 5 layers compute in bfloat16; figures show their outputs in float32"
    ]
    assert list_precisions(list_layers(network[:1], (1, 8, 8))) == []


def test_for_each_layer_passes_bfloat16_on_as_float32() -> None:
    network, x = Autocast(), images(1, 8)
    outputs: dict[str, Tensor] = {}
    for_each_layer(network, x, ["conv", "fc"], outputs.__setitem__)
    for layer, expected in record(network, x, ["conv", "fc"]).outputs.items():
        assert outputs[layer].dtype == torch.float32
        assert torch.equal(outputs[layer], expected.float())


def test_what_half_precision_cannot_hold_is_an_error_that_names_the_layer(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1))
    nn.init.constant_(network[1].weight, 1e6)
    with pytest.raises(UserError, match=r"record\.dtype: 1 reaches .*float16 ends at 65,504; take float32"):
        record_to_file(network, images(1, 4), tmp_path / "a.npz", dtype="float16")
    assert list(tmp_path.iterdir()) == []
    record_to_file(network, images(1, 4), tmp_path / "a.npz")


def test_an_infinite_activation_is_no_fault_of_half_precision(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1))
    nn.init.constant_(network[0].weight, torch.inf)
    record_to_file(network, images(1, 4), tmp_path / "a.npz", dtype="float16")
    with np.load(tmp_path / "a.npz") as file:
        assert np.isinf(file["0"]).all()


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_recording_leaves_no_file(
    lenet: nn.Sequential, tmp_path: Path, fault: type[BaseException]
) -> None:
    def fails(*_: object) -> None:
        assert list(tmp_path.rglob("a.npz"))  # it was being written
        raise fault

    lenet.fc1.register_forward_hook(fails)
    with pytest.raises(fault):
        record_to_file(lenet, images(1, 28), tmp_path / "a.npz")
    assert list(tmp_path.iterdir()) == []


def test_for_each_layer_passes_on_the_outputs_that_are_recorded(lenet: nn.Sequential) -> None:
    x, outputs = images(2, 28), {}

    def copy(layer: str, output: Tensor) -> None:
        outputs[layer] = output.clone()

    result = for_each_layer(lenet, x, ["relu2", "conv1"], copy)
    expected = record(lenet, x).outputs
    assert list(outputs) == ["conv1", "relu2"]
    assert all(torch.equal(output, expected[layer]) for layer, output in outputs.items())
    assert torch.equal(result, expected["log_softmax"])


def test_for_each_layer_passes_on_composite_modules_too() -> None:
    network, layers = nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), nn.Flatten()), []
    for_each_layer(network, images(1, 8), ["0", "1"], lambda layer, output: layers.append(layer))
    assert layers == ["0", "1"]


# Filters.


@pytest.mark.parametrize("name", ["lenet", "simple"])
def test_filters_are_copies_of_the_state_dict(name: str, request: pytest.FixtureRequest) -> None:
    network = request.getfixturevalue(name)
    state = network.state_dict()
    filters = collect_filters(network)
    assert list(filters) == [parameter.removesuffix(".weight") for parameter in state]
    for layer, array in filters.items():
        parameter = layer if layer.endswith(".bias") else f"{layer}.weight"
        assert torch.equal(array, state[parameter])
        array.fill_(7)
        assert not (state[parameter] == 7).any()


def test_filters_are_those_of_convolutions_and_linear_layers_only() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3, bias=False),
        nn.BatchNorm2d(2),
        nn.Sequential(nn.PReLU(), nn.ConvTranspose2d(2, 2, 3)),
        nn.Flatten(),
        nn.Linear(8, 2),
    )
    assert list(collect_filters(network)) == ["0", "2.1", "2.1.bias", "4", "4.bias"]


def test_a_network_in_training_mode_is_recorded_in_evaluation_and_left_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5)).train()
    network[2].eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    activations = record(network, images(1, 8))
    assert torch.equal(activations.outputs["2"], activations.outputs["1"])
    assert [module.training for module in network.modules()] == [True, True, True, False]
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


# NaN, infinity and complex numbers.


class Special(nn.Module):
    """A layer with NaN, one with infinity, and a spectrum, which is complex."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.spectrum, self.fc = nn.Conv2d(1, 2, 1), Spectrum(), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        spectrum = self.spectrum(x)
        inverse = torch.fft.ifft2(spectrum).real
        return self.fc(torch.div(x, x).mean((2, 3)) + torch.div(inverse, 0).mean((2, 3)))


class Spectrum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(x)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_layers_with_nan_or_infinity_are_listed_in_execution_order(dtype: Any, tmp_path: Path) -> None:
    network, x = Special(), images(1, 6)
    x[0, 0, 0, 0] = torch.nan
    entries: list[Any] = []
    record_to_file(network, x, tmp_path / "a.npz", dtype=dtype, non_finite=entries)
    with np.load(tmp_path / "a.npz") as arrays:
        names = [name for name in arrays if "@" not in name and not np.isfinite(arrays[name]).all()]
        assert [entry["layer"] for entry in entries] == names
        assert names[0] == "input" and "fc" in names
        for entry in entries:
            values = arrays[entry["layer"]]
            assert entry["nan"] == np.isnan(values).sum() and entry["values"] == values.size
            assert entry["infinite"] == np.isinf(values).sum()


def test_a_finite_record_lists_no_layers(tmp_path: Path, lenet: nn.Sequential) -> None:
    entries: list[Any] = []
    record_to_file(lenet, images(1, 28), tmp_path / "a.npz", non_finite=entries)
    assert entries == []


def test_a_complex_output_is_recorded_as_magnitude_and_phase(tmp_path: Path) -> None:
    network, x = Special(), images(1, 6)
    output = record(network, x[0]).outputs["spectrum"].numpy()
    record_to_file(network, x, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as arrays:
        np.testing.assert_allclose(arrays["spectrum"], np.abs(output), rtol=1e-6)
        np.testing.assert_allclose(arrays["spectrum@phase"], np.angle(output), rtol=1e-5, atol=1e-6)
        assert {arrays[name].dtype for name in arrays} == {np.dtype(np.float32)}
    (layer,) = [layer for layer in list_layers(network, (1, 6, 6)) if layer["name"] == "spectrum"]
    assert layer["notes"] == ["its output is complex: figures and statistics show the magnitude"]


def test_an_overflow_beside_an_infinite_value_is_not_silent(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Identity())
    x = torch.tensor([1e6, torch.inf, 0, 1]).reshape(1, 1, 2, 2)
    with pytest.raises(UserError, match=r"reaches 1e\+06, and float16 ends at 65,504"):
        record_to_file(network, x, tmp_path / "a.npz", dtype="float16")
