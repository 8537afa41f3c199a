"""Effective receptive fields, against kernels, their convolutions, and finite differences."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from torch import Tensor, nn

from convatlas.analysis.effective_receptive_field import report
from convatlas.analysis.effective_receptive_field.fields import LayerField, measure_fields, measure_size
from convatlas.files import read_json, write_json
from convatlas.tracing.layers import list_layers
from tests.support.arrays import read_npz
from tests.support.dataset_pass import write_digits, write_lenet5


def measure(network: nn.Module, x: Tensor, layer: str) -> LayerField:
    """Return the field of one layer, which has one."""
    field = measure_fields(network.eval().requires_grad_(False), x, [layer])[layer]
    assert isinstance(field, LayerField), field
    return field


def make_conv(kernel: np.ndarray, **settings: int) -> nn.Conv2d:
    """Return a convolution of one channel with a kernel."""
    conv = nn.Conv2d(1, 1, kernel.shape, bias=False, **settings)  # type: ignore[arg-type]
    conv.weight.data[0, 0] = torch.from_numpy(kernel)
    return conv


def test_a_convolution_has_the_field_of_its_kernel() -> None:
    kernel = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    result = measure(nn.Sequential(make_conv(kernel)), torch.rand(3, 1, 20, 18), "0")
    assert result.position == (8, 8)
    expected = np.zeros((20, 18))
    expected[8:13, 8:11] = abs(kernel)
    assert result.field == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("depth", [2, 5])
def test_a_stack_of_convolutions_has_the_field_of_their_kernels_convolved(depth: int) -> None:
    network = nn.Sequential(*[make_conv(np.ones((3, 3), np.float32), padding=1) for _ in range(depth)])
    result = measure(network, torch.rand(3, 1, 21, 21), str(depth - 1))
    expected = np.ones((1, 1))
    for _ in range(depth):
        expected = convolve2d(expected, np.ones((3, 3)))
    start = 10 - depth
    field = result.field[start : start + 2 * depth + 1, start : start + 2 * depth + 1]
    assert field == pytest.approx(expected, rel=1e-6)
    assert result.field.sum() == pytest.approx(expected.sum(), rel=1e-6)
    size = measure_size(result)
    assert size is not None
    assert size.side == pytest.approx(np.sqrt((expected > 0.0455 * expected.max()).sum()))
    assert size.spread == pytest.approx([np.sqrt(depth * 2 / 3)] * 2, rel=1e-6)  # variances add up
    assert size.side_error == 0


def test_channels_do_not_cancel_out() -> None:
    conv = nn.Conv2d(1, 2, 3, bias=False)
    conv.weight.data[0], conv.weight.data[1] = 1.0, -1.0  # their sum is zero
    field = measure(nn.Sequential(conv), torch.rand(64, 1, 8, 8), "0").field
    assert 0.6 < field.max() < 1.4  # |±1 ± 1| is 0 or 2, one on average
    assert np.count_nonzero(field) == 9


class Twisted(nn.Module):
    """A network with an in-place activation, a pool and a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 1, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.pool = nn.AvgPool2d(2)
        self.second = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.pool(self.act(self.first(x)))
        output: Tensor = self.second(h) + h
        return output


@pytest.mark.parametrize("layer", ["first", "act", "pool", "second", "add"])
def test_the_field_is_that_of_perturbed_pixels(layer: str) -> None:
    torch.manual_seed(3)
    network = Twisted().double().eval().requires_grad_(False)
    layers = {entry["name"]: entry for entry in list_layers(network, (2, 12, 12))}
    x = torch.rand(4, 2, 12, 12, dtype=torch.float64)
    outputs: dict[str, Tensor] = {}

    def run(x: Tensor) -> Tensor:
        outputs["first"] = network.first(x)
        outputs["act"] = outputs["first"].relu()
        outputs["pool"] = network.pool(outputs["act"])
        outputs["second"] = network.second(outputs["pool"])
        outputs["add"] = outputs["second"] + outputs["pool"]
        row, column = (side // 2 for side in outputs[layer].shape[2:])
        return outputs[layer][:, 0, row, column]

    steps = 1e-7 * torch.eye(288, dtype=torch.float64).reshape(288, 2, 12, 12)
    ends = [run((x[:, None] + sign * steps).flatten(0, 1)) for sign in (1, -1)]
    expected = ((ends[0] - ends[1]) / 2e-7).abs().reshape(4, 2, 12, 12).mean(1).numpy()
    result = measure(network, x, layer)
    assert result.field == pytest.approx(expected.mean(0), abs=1e-6)
    window = report.find_window(layers[layer], result.position, (12, 12))
    assert window is not None
    assert not report.exceeds(result.field, window)
    assert report.exceeds(result.field, [window[0] + 1, *window[1:]]) or not result.field[window[0]].any()


def test_layers_without_a_field_say_why() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)
            self.blind = nn.Conv2d(2, 2, 1)
            self.flatten = nn.Flatten()

        def forward(self, x: Tensor) -> Tensor:
            maps = self.conv(x)
            self.blind(maps.detach())
            output: Tensor = self.flatten(maps.relu())
            return output

    fields = measure_fields(Network(), torch.rand(2, 1, 6, 6), ["conv", "blind", "flatten", "never"])
    assert isinstance(fields["conv"], LayerField)
    assert fields["blind"] == "its output has no gradient at the input"
    assert fields["flatten"] == "its output has no maps of each image: its shape is (2, 32)"
    assert fields["never"] == "the network does not call it for all images"
    for value in (0, np.nan):
        assert measure_size(LayerField((0, 0), np.full((2, 4, 4), value), np.ones(2))) is None


def test_each_image_has_the_same_weight() -> None:
    groups = np.zeros((3, 4, 6))
    groups[0, 1, 2], groups[1:, 1, 3] = 1.0, 2.0
    measured = LayerField((2, 3), groups, np.array([2, 1, 1]))
    assert measured.field[1].tolist() == [0, 0, 0.5, 1, 0, 0]  # not 1/3 and 4/3, the means of the groups
    size = measure_size(measured)
    assert size is not None
    assert size.spread == pytest.approx((0, np.sqrt(2) / 3))


def test_the_field_is_the_mean_over_all_images() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh()).double()
    x = torch.rand(11, 1, 8, 8, dtype=torch.float64) * 3  # 8 groups, of one or two images
    pixels = x.clone().requires_grad_()
    output: Tensor = network(pixels)[:, :, 3, 3]
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, output.shape, generator=generator).double() * 2 - 1
    (output * signs).sum().backward()  # type: ignore[no-untyped-call]
    assert pixels.grad is not None
    assert measure(network, x, "1").field == pytest.approx(pixels.grad.abs().mean((0, 1)).numpy())


def test_a_field_beyond_the_theoretical_one_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 5, padding=2))
    layer = list_layers(network, (1, 9, 9))[0]
    field = measure(network, torch.rand(2, 1, 9, 9), "0")
    arrays: dict[str, np.ndarray] = {}
    entry = report.describe_layer(layer, {"trained": field}, arrays)
    assert (entry["undefined"], entry["window"], entry["clipped"]) == (None, [2, 2, 7, 7], False)
    wrong = report.describe_layer({**layer, "receptive_field": [3, 3]}, {"trained": field}, {})
    assert "outside its receptive field" in str(wrong["undefined"])
    large = nn.Sequential(nn.Conv2d(1, 1, 13, padding=6))
    clipped = measure(large, torch.rand(2, 1, 9, 9), "0")
    entry = report.describe_layer(list_layers(large, (1, 9, 9))[0], {"trained": clipped}, arrays)
    assert (entry["window"], entry["clipped"]) == ([-2, -2, 11, 11], True)


def test_report(tmp_path: Path) -> None:
    folder = write_lenet5(tmp_path / "results/lenet5")
    write_json(folder / "network.json", read_json(folder / "network.json") | {"seed": 4})
    data = write_digits(tmp_path)
    settings = {"images": 6, "layers": None, "seed": 0}
    name = "effective_receptive_field"
    report.write_effective_receptive_fields(folder, data, settings, torch.device("cpu"))  # type: ignore[arg-type]
    analysis, arrays = read_json(folder / name / f"{name}.json"), read_npz(folder / name / f"{name}.npz")
    assert [layer["name"] for layer in analysis["layers"]] == ["conv1", "pool1", "conv2", "pool2"]
    assert all(layer["undefined"] is None for layer in analysis["layers"])
    conv1, *_, pool2 = analysis["layers"]
    assert (conv1["position"], conv1["window"]) == ([14, 14], [12, 12, 17, 17])
    assert 3 < conv1["trained"]["side"] <= 5
    assert conv1["trained"]["side"] < pool2["trained"]["side"] <= 16
    assert arrays["pool2@untrained"].shape == (28, 28)
    before = (folder / name / f"{name}.npz").read_bytes()
    report.write_effective_receptive_fields(folder, data, settings, torch.device("cpu"))  # type: ignore[arg-type]
    assert (folder / name / f"{name}.npz").read_bytes() == before
    assert analysis["images"] == 6
    complete = {**settings, "images": "all"}
    report.write_effective_receptive_fields(folder, data, complete, torch.device("cpu"))  # type: ignore[arg-type]
    assert read_json(folder / name / f"{name}.json")["images"] > 6
