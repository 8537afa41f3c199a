"""The images on which units are most relevant to a class, against LRP-0 layer by layer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convatlas import UserError
from convatlas.attribution.patches import PatchGeometry, extract_patch
from convatlas.attribution.relevance import find_relevant_images
from convatlas.attribution.top_activations import project_top_activations
from convatlas.datasets import formats
from convatlas.datasets.loader import BatchLoader
from convatlas.models import build
from convatlas.models.outputs import LOGITS
from convatlas.results import Results
from tests.support.dataset_pass import SETTINGS, run_pass, write_digits, write_lenet5


def propagate_relevance(network: nn.Sequential, x: Tensor, label: int, layer: int) -> Tensor:
    """Return the relevance of outputs by LRP-0: R_j = a_j sum_k w_jk R_k / z_k, with biases in z."""
    activations = [x]
    for module in network:
        activations.append(module(activations[-1]))
    relevance = torch.zeros_like(activations[-1])
    relevance[:, label] = activations[-1][:, label]
    for n in range(len(network) - 1, layer, -1):
        module, below = network[n], activations[n].detach().requires_grad_()
        if isinstance(module, nn.ReLU):
            continue
        outputs = module(below)
        ratio = torch.where(outputs == 0, 0, relevance / outputs).detach()
        relevance = (below * torch.autograd.grad((outputs * ratio).sum(), below)[0]).detach()
    return relevance


def test_relevance_is_that_of_lrp_0(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        *[nn.Conv2d(1, 4, 5), nn.ReLU(inplace=True), nn.MaxPool2d(2)],
        *[nn.Conv2d(4, 5, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(500, 3)],
    ).eval()
    data = write_digits(tmp_path, 21)
    _, preprocessing = build.build_network({"architecture": "lenet5"}, [str(n) for n in range(10)], seed=3)
    loader = BatchLoader(data, "test", preprocessing, batch_size=8)
    units = {"2": np.array([3, 0]), "4": np.arange(5)}
    top = find_relevant_images(network, LOGITS, loader, units, [2, 0], k=4)
    x = preprocessing(
        torch.from_numpy(formats.load(data, "test").read_images(preprocessing.pixel_format, 28, 28))
    )
    plain = nn.Sequential(*(nn.ReLU() if isinstance(m, nn.ReLU) else m for m in network))
    for layer, numbers in units.items():
        for row, label in enumerate([2, 0]):
            maps = propagate_relevance(plain, x, label, int(layer))[:, numbers]
            relevance = maps.sum((2, 3)).numpy().T
            for unit in range(len(numbers)):
                order = np.argsort(-relevance[unit], kind="stable")[:4]
                order = order[relevance[unit][order] > 0]
                count = len(order)
                images = top[layer].images[row, unit]
                np.testing.assert_allclose(
                    top[layer].values[row, unit, :count], relevance[unit][order], rtol=1e-3, atol=1e-6
                )
                assert (images[count:] == -1).all()
                np.testing.assert_allclose(relevance[unit][images[:count]], relevance[unit][order], rtol=1e-3)
                for image, position in zip(images[:count], top[layer].positions[row, unit], strict=False):
                    largest = maps[image, unit].max()
                    torch.testing.assert_close(maps[(image, unit, *position)], largest, rtol=1e-3, atol=1e-6)


class Aside(nn.Module):
    """Computes something that the scores do not depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.aside, self.head = nn.Conv2d(1, 2, 3), nn.Linear(784, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.aside(x.detach())
        output: Tensor = self.head(x.flatten(1))
        return output


def test_batch_norms_have_relevance_and_layers_aside_are_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    norm.running_mean, norm.running_var = torch.randn(4), torch.rand(4) + 0.5
    network = nn.Sequential(nn.Conv2d(1, 4, 5), norm, nn.Tanh(), nn.Flatten(), nn.Linear(2304, 3)).eval()
    data = write_digits(tmp_path, 21)
    _, preprocessing = build.build_network({"architecture": "lenet5"}, [str(n) for n in range(10)], seed=3)
    loader = BatchLoader(data, "test", preprocessing, batch_size=8)
    top = find_relevant_images(network, LOGITS, loader, {"1": np.arange(4)}, [1], k=1)["1"]
    pixels = formats.load(data, "test").read_images(preprocessing.pixel_format, 28, 28)
    maps = network[:2](preprocessing(torch.from_numpy(pixels))).detach().requires_grad_()
    gradients = torch.autograd.grad(network[2:](maps)[:, 1].sum(), maps)[0]
    relevance = (maps * gradients).sum((2, 3)).detach().numpy()
    np.testing.assert_allclose(top.values[0, :, 0], relevance.max(0).clip(0), rtol=1e-3, atol=1e-6)
    with pytest.raises(UserError, match="the class scores do not depend on 'aside'; leave it out"):
        find_relevant_images(Aside(), LOGITS, loader, {"aside": np.arange(2)}, [1], k=1)


class NaNForDark(nn.Module):
    """Returns NaN for images whose mean is below that of a limit."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit, self.conv, self.head = limit, nn.Conv2d(1, 4, 5), nn.Linear(2304, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.conv(x).relu().flatten(1))
        return scores.where(x.mean((1, 2, 3))[:, None] >= self.limit, torch.nan)


def test_images_without_finite_scores_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = write_digits(tmp_path, 21)
    _, preprocessing = build.build_network({"architecture": "lenet5"}, [str(n) for n in range(10)], seed=3)
    loader = BatchLoader(data, "test", preprocessing, batch_size=8)
    images = preprocessing(
        torch.from_numpy(formats.load(data, "test").read_images(preprocessing.pixel_format, 28, 28))
    )
    means = images.mean((1, 2, 3))
    torch.manual_seed(0)
    network = NaNForDark(float(means.median())).eval()
    top = find_relevant_images(network, LOGITS, loader, {"conv": np.arange(4)}, [1, 2], k=21)["conv"]
    network.limit = -torch.inf
    everything = find_relevant_images(network, LOGITS, loader, {"conv": np.arange(4)}, [1, 2], k=21)["conv"]
    dark = (means < means.median()).nonzero()[:, 0].tolist()
    assert f"{len(dark)} of 21 images are left out, the first {dark[0]}" in caplog.text
    for index in np.ndindex(2, 4):
        expected = [number for number in everything.images[index] if number not in dark and number >= 0]
        assert top.images[index].tolist() == expected + [-1] * (21 - len(expected))


def run_stage(folder: Path, data: Path, relevance: Any) -> Results:
    settings: Any = {"project": ["pool1", "conv2"], "units": 3, "relevance": relevance, "rectify": False}
    key = "networks.lenet5.views.strongest.project"
    project_top_activations(folder, data, settings, torch.device("cpu"), 2, key)
    return Results(folder)


def test_patches_are_cut_at_the_largest_contribution(tmp_path: Path) -> None:
    folder, data = write_lenet5(tmp_path / "results/lenet5"), write_digits(tmp_path, 21)
    run_pass(folder, data, settings=SETTINGS | {"k": 3})
    results = run_stage(folder, data, ["7", 1])
    arrays = results.top_activations
    _, preprocessing = build.load_network(folder)
    dataset = formats.load(data, "test")
    x = preprocessing(torch.from_numpy(dataset.read_images(preprocessing.pixel_format, 32, 32))).numpy()
    assert arrays["conv2@relevance_classes"].tolist() == [7, 1]
    for layer in ("pool1", "conv2"):
        images, patches = arrays[f"{layer}@relevance_images"], arrays[f"{layer}@relevance_patches"]
        assert images.shape == arrays[f"{layer}@relevance"].shape == (2, 3, 3)
        geometry = PatchGeometry.from_layer(results.layer(layer), preprocessing.shape[1:])
        for index in np.ndindex(images.shape):
            if images[index] < 0:
                assert np.isnan(patches[index]).all()
                continue
            position = arrays[f"{layer}@relevance_positions"][index]
            expected = extract_patch(x[images[index]], geometry, position)
            np.testing.assert_array_equal(patches[index], expected)
    assert (arrays["conv2@relevance"] > 0).any()
    with pytest.raises(UserError, match=r"networks\.lenet5\.views\.strongest\.relevance: no class 'seven'"):
        run_stage(folder, data, ["seven"])
