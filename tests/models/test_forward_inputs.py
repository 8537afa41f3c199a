"""Networks whose forward takes another number of inputs than one."""

from pathlib import Path

import pytest
from torch import Tensor, nn

from convatlas import UserError
from convatlas.models.build import build_network
from convatlas.models.forward_inputs import check_single_input


class TwoInputs(nn.Module):
    def forward(self, image: Tensor, mask: Tensor, scale: float = 1.0) -> Tensor:
        return image * mask * scale


class KeywordInput(nn.Module):
    def forward(self, image: Tensor, *, mask: Tensor) -> Tensor:
        return image * mask


class NoInput(nn.Module):
    def forward(self) -> Tensor:
        raise NotImplementedError


class Optional(nn.Module):
    def forward(self, image: Tensor, mask: Tensor | None = None, *others: Tensor, scale: int = 1) -> Tensor:
        return image


class Variadic(nn.Module):
    def forward(self, *images: Tensor, **options: int) -> Tensor:
        return images[0]


@pytest.mark.parametrize(
    ("network", "inputs"),
    [
        (TwoInputs(), "2 inputs, image and mask"),
        (KeywordInput(), "2 inputs, image and mask"),
        (NoInput(), "no input"),
        (nn.Bilinear(2, 2, 2), "2 inputs, input1 and input2"),
    ],
)
def test_another_number_of_inputs_is_refused_with_its_cure(network: nn.Module, inputs: str) -> None:
    with pytest.raises(UserError) as error:
        check_single_input(network, "net.py:build", "networks.own")
    message = str(error.value)
    assert message.startswith("networks.own.architecture: forward of net.py:build")
    assert f"takes {inputs}," in message
    assert "whose forward(self, i" in message and "\n" not in message


@pytest.mark.parametrize("network", [Optional(), Variadic(), nn.Sequential(), nn.Identity(), nn.GRU(1, 1)])
def test_optional_inputs_are_left_out(network: nn.Module) -> None:
    check_single_input(network, "net.py:build", "networks.own")


def test_it_is_refused_when_it_is_built_and_the_wrapper_runs(tmp_path: Path) -> None:
    path = tmp_path / "two_inputs.py"
    path.write_text(
        "import torch\nfrom torch import nn\n\n"
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.conv = nn.Conv2d(4, 2, 3)\n\n"
        "    def forward(self, image, mask):\n"
        "        return self.conv(torch.cat([image, mask], 1)).mean((2, 3))\n\n"
        "class OneInput(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.network = Net()\n\n"
        "    def forward(self, image):\n        return self.network(image, torch.ones_like(image[:, :1]))\n"
    )
    settings = {"architecture": f"{path}:Net", "input": {"size": 8, "mean": [0.5] * 3, "std": [0.5] * 3}}
    with pytest.raises(UserError, match="takes 2 inputs, image and mask"):
        build_network(settings, None, seed=0)
    network, _ = build_network(settings | {"architecture": f"{path}:OneInput"}, None, seed=0)
    assert isinstance(network, nn.Module)
