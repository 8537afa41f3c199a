"""The strongest activations of a pass, against those of the images one by one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from convatlas.attribution.evolution.strongest import find_strongest
from convatlas.datasets.loader import BatchLoader
from convatlas.models.preprocessing import Preprocessing
from tests.support.dataset_pass import write_digits

PREPROCESSING = Preprocessing(28, (0.5,), (0.5,))
LAYERS = ["0", "1", "3", "4"]


def make_network() -> nn.Module:
    """Return a network of which unit 2 of the first convolution is dead after its ReLU."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 5), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(125, 3)
    )
    with torch.no_grad():
        network[0].weight[2], network[0].bias[2] = 0, -1
    return network.eval()


@pytest.mark.parametrize("indices", [None, [0, 2]])
def test_a_pass_finds_the_maximum_of_each_unit(tmp_path: Path, indices: list[int] | None) -> None:
    network = make_network()
    loader = BatchLoader(write_digits(tmp_path, 21), "train", PREPROCESSING, batch_size=8)
    numbers = [n for n in range(21) if indices is None or n // 8 in indices]
    x = PREPROCESSING(torch.from_numpy(loader.dataset.read_images(PREPROCESSING.pixel_format, (28, 28), 28)))
    activations = find_strongest(network, LAYERS, loader, indices)
    assert list(activations) == LAYERS
    for n, layer in enumerate(LAYERS):
        stop = int(layer) + 1
        with torch.no_grad():
            output = torch.cat([network[:stop](image[None]) for image in x]).numpy()
        for unit in range(output.shape[1]):
            maps = output[numbers, unit].reshape(len(numbers), -1)
            image = numbers[int(maps.max(1).argmax())]
            value = maps.max()
            assert activations[layer].values[unit] == pytest.approx(value, rel=1e-5)
            if value <= 0:
                assert (layer, unit) in {("0", 2), ("1", 2)}
                assert activations[layer].images[unit] == -1
                continue
            assert activations[layer].images[unit] == image  # the first of equal ones
            row, column = activations[layer].positions[unit]
            place = output[image, unit] if n == 3 else output[image, unit, row, column]
            assert place == pytest.approx(value, rel=1e-5)


def test_values_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    class Diverging(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x.where(x < 0.9, torch.inf), x * torch.nan], 1)

    loader = BatchLoader(write_digits(tmp_path, 9), "train", PREPROCESSING, batch_size=4)
    activations = find_strongest(nn.Sequential(Diverging()), ["0"], loader)["0"]
    assert 0 < activations.values[0] < 0.9 and activations.images[0] >= 0
    assert (activations.values[1], activations.images[1]) == (-np.inf, -1)


def test_a_layer_without_units_is_left_out(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (-1, 784)), nn.Linear(784, 2))
    loader = BatchLoader(write_digits(tmp_path, 6), "train", PREPROCESSING, batch_size=4)
    assert list(find_strongest(network, ["0", "2", "missing"], loader)) == ["2"]
