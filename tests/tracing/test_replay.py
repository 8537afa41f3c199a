"""Verified records: calls that are applied again, of modules whose outputs are known to repeat or not."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import mobilenet_v3_small, resnet18, swin_t

from convatlas import UserError
from convatlas.tracing.record import compare_with_record, record, record_to_file
from convatlas.tracing.replay import is_bit_equal


class Layer(nn.Module):
    """A module whose forward is a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.function(x)


class Counting(Layer):
    """A module that remembers how often it was called."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.calls


class Composite(nn.Module):
    """A convolution, and a function that a composite module calls."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 4, 3), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x))


class Appending(nn.Module):
    """A leaf that appends to its input list, as torchvision's feature pyramids do."""

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps.append(maps[-1] + 1)
        return maps


def write_in_place(x: Tensor) -> Tensor:
    F.relu(x, True)  # as a positional argument
    x += 1
    x[:, :2] *= 3
    return torch.cat([x, x], 1).add_(1).clamp_(0)


def image() -> Tensor:
    return torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0))


def convolve_with_hooks() -> nn.Module:
    conv = nn.Conv2d(3, 4, 3)
    conv.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    conv.register_forward_hook(lambda module, args, output: output * 2)
    return nn.Sequential(conv, nn.ReLU(inplace=True))


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Conv2d(3, 4, 3), Layer(lambda x: x.mul_(2))),
        nn.Sequential(nn.Conv2d(3, 4, 3), Layer(torch.log)),  # NaN
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(), nn.BatchNorm2d(4), nn.Flatten(1)),
        Composite(write_in_place),
        Composite(lambda x: Appending()([x])[-1]),
        convolve_with_hooks(),
    ],
)
def test_a_verified_record_is_the_same(network: nn.Module) -> None:
    random_state = torch.get_rng_state()
    verified, activations = record(network, image(), verify=True), record(network, image())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert list(verified.outputs) == list(activations.outputs)
    assert all(is_bit_equal(output, activations.outputs[name]) for name, output in verified.outputs.items())


@pytest.mark.parametrize("builder", [resnet18, mobilenet_v3_small, swin_t])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_networks_in_both_memory_formats_pass(
    builder: Callable[[], nn.Module], memory_format: torch.memory_format
) -> None:
    torch.manual_seed(0)
    network = builder().to(memory_format=memory_format)
    x = torch.randn(2, 3, 64, 64).to(memory_format=memory_format)
    assert record(network, x, verify=True).outputs


@pytest.mark.parametrize(
    ("network", "place"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), Layer(lambda x: x + torch.randn_like(x))), "layer '1'"),
        (Composite(lambda x: F.dropout(x, 0.5)), "dropout, called by the network"),
        (nn.Sequential(Composite(lambda x: x + torch.rand(1))), "rand, called by module '0'"),
    ],
)
def test_random_draws_in_evaluation_mode_are_named(network: nn.Module, place: str) -> None:
    with pytest.raises(UserError, match=f"{place}.* draws random numbers .*self.training"):
        record(network, image(), verify=True)
    assert record(network, image()).outputs


def test_a_layer_with_state_is_named_with_the_difference() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), Counting(torch.ones_like))
    with pytest.raises(
        UserError, match=r"layer '1' .* differ by up to 1, the largest being 2.*verify: false"
    ):
        record(network, image(), verify=True)


def test_state_from_image_to_image_is_found_by_recording_the_first_again(tmp_path: Path) -> None:
    calls: list[int] = []
    network = Composite(lambda x: x * len(calls))
    x = image()[None]
    record_to_file(network, x, tmp_path / "a.npz", verify=True)
    compare_with_record(network, x, tmp_path / "a.npz", (), "float32")
    calls.append(1)
    with pytest.raises(UserError, match="layer 'mul' gives another output when a is recorded again"):
        compare_with_record(network, x, tmp_path / "a.npz", (), "float32")


def test_bits_are_compared_not_values() -> None:
    zeros = torch.zeros(2)
    assert not is_bit_equal(zeros, -zeros)
    assert is_bit_equal(zeros / 0, zeros / 0)
    assert not is_bit_equal(zeros, zeros.double())
    assert is_bit_equal(torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16))
    assert is_bit_equal(torch.tensor([1 - 2j]).conj(), torch.tensor([1 + 2j]))


class PaddedPool(nn.MaxPool2d):
    """A pool that pads in its forward, whose windows are followed while it is recorded."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


def test_switches_of_a_pool_with_its_own_forward_are_recorded_when_verified() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), PaddedPool(3, 2))
    verified, activations = record(network, image(), verify=True), record(network, image())
    assert torch.equal(verified.switches["2"], activations.switches["2"])
