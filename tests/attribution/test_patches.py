"""Patches, against the pixels on which the network depends, and against projections on the whole image."""

from typing import Any, cast

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from convatlas.attribution.deconvnet import project, project_positions
from convatlas.attribution.patches import PatchGeometry, extract_patch, is_croppable, project_patches
from convatlas.records import Layer
from convatlas.tracing.layers import list_layers
from convatlas.tracing.record import record


class Branched(nn.Module):
    """Strides, dilation, paddings, uneven windows and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 5, stride=2, padding=2), nn.BatchNorm2d(6), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)
        self.branch = nn.Sequential(
            nn.Conv2d(6, 6, (3, 5), padding=(1, 2)), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=2, dilation=2)
        )
        self.last = nn.Conv2d(6, 8, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        return torch.relu(self.last(self.branch(x) + x))


def build(name: str) -> tuple[nn.Module, int, list[str]]:
    """Return a network with random running statistics, the side of its input, and layers to project from."""
    torch.manual_seed(0)
    match name:
        case "branched":
            network, side, layers = Branched(), 61, ["stem.0", "pool", "branch.2", "add", "last", "relu"]
        case "resnet18":
            network, side = torchvision.models.resnet18(), 97
            layers = ["conv1", "maxpool", "layer1.0.conv2", "layer1.1", "layer2.0.downsample.0", "layer2.1"]
        case "sequential":
            network = nn.Sequential(
                nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 5, 3, padding="same")
            )
            side, layers = 23, ["0", "1", "2", "3"]
        case "even kernels":
            network = nn.Sequential(
                nn.Conv2d(1, 4, (4, 2), padding="same"),
                nn.ReLU(),
                nn.Conv2d(4, 5, 2, padding="same", dilation=3),
                nn.Conv2d(5, 3, 4, stride=2),
            )
            side, layers = 24, ["0", "2", "3"]
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    return network.eval().requires_grad_(False), side, layers


def count_channels(network: nn.Module) -> int:
    return next(module.in_channels for module in network.modules() if isinstance(module, nn.Conv2d))


CASES = [
    (name, layer)
    for name in ("branched", "resnet18", "sequential", "even kernels")
    for layer in build(name)[2]
]


@pytest.mark.parametrize(("name", "layer"), CASES)
def test_a_patch_is_what_the_network_gives_on_the_whole_image(name: str, layer: str) -> None:
    """In the corners, at the edges and inside: the activation and its projection, up to rounding."""
    network, side, _ = build(name)
    shape = (count_channels(network), side, side)
    layers = list_layers(network, shape, blocks=[layer] if layer in dict(network.named_modules()) else [])
    entry = next(entry for entry in layers if entry["name"] == layer)
    geometry = PatchGeometry.from_layer(entry, shape[1:])
    assert is_croppable(network, layers, layer)
    units, rows, columns = entry["output_shape"]
    positions = np.array(
        [
            (0, 0),
            (0, columns - 1),
            (rows - 1, 0),
            (rows - 1, columns - 1),
            (rows // 2, columns // 2),
            (1, rows // 3),
        ]
    )
    images = torch.randn(len(positions), *shape, generator=torch.Generator().manual_seed(1))
    unit_numbers = np.arange(len(positions)) % units
    inputs = list(images.numpy())
    patches, values = project_patches(network, layer, inputs, geometry, unit_numbers, positions)
    projections, expected = project_positions(
        network, images, layer, torch.from_numpy(unit_numbers), torch.from_numpy(positions)
    )
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
    assert patches.shape == (len(positions), shape[0], *geometry.patch_size)
    for n, position in enumerate(positions):
        patch = extract_patch(projections[n].numpy(), geometry, position)
        np.testing.assert_allclose(patches[n], patch, rtol=1e-3, atol=1e-6)
        total = float(projections[n].abs().sum())
        assert np.nansum(np.abs(patch)) == pytest.approx(total, rel=1e-5)  # the patch has every pixel
    uncropped, _ = project_patches(network, layer, inputs, geometry, unit_numbers, positions, crop=False)
    np.testing.assert_allclose(patches, uncropped, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("name", "layer"), [("branched", "branch.2"), ("sequential", "0")])
def test_projections_of_positions_are_those_of_peaks_and_zero_where_the_activation_is_negative(
    name: str, layer: str
) -> None:
    network, side, _ = build(name)
    image = torch.randn(count_channels(network), side, side, generator=torch.Generator().manual_seed(2))
    activations = record(network, image[None], [layer]).outputs[layer][0]
    assert all(feature_map.min() < 0 for feature_map in activations) and (activations > 0).any()
    for unit, feature_map in enumerate(activations):
        columns = feature_map.shape[1]
        positions = torch.tensor(
            [divmod(int(n), columns) for n in (feature_map.argmax(), feature_map.argmin())]
        )
        projections, values = project_positions(
            network, torch.stack([image, image]), layer, torch.tensor([unit, unit]), positions
        )
        torch.testing.assert_close(values, torch.stack([feature_map.max(), feature_map.min()]))
        torch.testing.assert_close(projections[0], project(network, image, layer, [unit], "peak")[0])
        assert not projections[1].any()


@pytest.mark.parametrize(
    ("name", "layer"), [("branched", "last"), ("branched", "branch.2"), ("sequential", "3")]
)
def test_pixels_outside_a_patch_change_nothing_and_those_inside_do(name: str, layer: str) -> None:
    network, side, _ = build(name)
    for module in network.modules():  # positive weights: no activation is zero, and nothing cancels
        if isinstance(module, nn.Conv2d):
            module.weight.abs_()
            module.bias.abs_()
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()
    shape = (count_channels(network), side, side)
    entry = next(entry for entry in list_layers(network, shape) if entry["name"] == layer)
    geometry = PatchGeometry.from_layer(entry, shape[1:])
    x = torch.rand(1, *shape)
    _, rows, columns = entry["output_shape"]

    def value(image: Tensor, position: tuple[int, int]) -> float:
        values = project_positions(network, image, layer, torch.tensor([2]), torch.tensor([position]))[1]
        return float(values[0])

    for position in [(0, 0), (rows - 1, columns - 1), (rows // 2, columns // 2), (rows // 2, 0)]:
        before = value(x, position)
        rows_seen, columns_seen = geometry.pixel_slices(np.array(position))
        outside, inside = x.clone(), x.clone()
        pixels = outside[..., rows_seen, columns_seen].clone()
        outside[:] = 50
        outside[..., rows_seen, columns_seen] = pixels
        assert value(outside, position) == pytest.approx(before, rel=1e-5)
        inside[..., rows_seen, columns_seen] += 50
        assert value(inside, position) > before + 1
        for edge in (
            (rows_seen.start, rows_seen.stop - 1)
            if name == "sequential" and 0 < position[0] < rows - 1
            else ()
        ):
            row = x.clone()
            row[..., edge, columns_seen] += 1000
            assert value(row, position) != before


def make_layer(start: list[int] | None, step: list[int], field: list[int], shape: list[int]) -> Layer:
    """Return the part of a layer's entry that a geometry is made from."""
    entry: dict[str, Any] = {"output_shape": shape, "receptive_start": start}
    return cast(Layer, entry | {"receptive_step": step, "receptive_field": field})


def test_a_patch_beyond_the_border_is_nan_there() -> None:
    layer = make_layer([-2, -1], [2, 1], [5, 3], [1, 5, 5])
    geometry = PatchGeometry.from_layer(layer, (9, 6))
    image = np.arange(54, dtype=np.float32).reshape(1, 9, 6)
    patch = extract_patch(image, geometry, np.array([0, 4]))
    assert geometry.corner(np.array([0, 4])) == (-2, 3)
    assert np.isnan(patch[0, :2]).all()
    np.testing.assert_array_equal(patch[0, 2:], image[0, :3, 3:6])
    patch = extract_patch(image, geometry, np.array([4, 0]))
    assert geometry.corner(np.array([4, 0])) == (6, -1)
    np.testing.assert_array_equal(patch[0, :3, 1:], image[0, 6:, :2])
    assert np.isnan(patch[0, 3:]).all()
    assert np.isnan(patch[0, :, 0]).all()


def test_a_receptive_field_larger_than_the_input_shows_all_of_it() -> None:
    layer = make_layer([-7, 0], [2, 1], [11, 2], [1, 5, 5])
    geometry = PatchGeometry.from_layer(layer, (9, 6))
    assert geometry.patch_size == (9, 2)
    patch = extract_patch(np.ones((3, 9, 6), np.float32), geometry, np.array([0, 3]))
    assert geometry.corner(np.array([0, 3])) == (0, 3)
    assert np.isnan(patch).sum() == 3 * 2 * 5  # rows 4 to 8, on which it does not depend
    assert PatchGeometry.from_layer(make_layer(None, [2, 1], [11, 2], [1, 5, 5]), (9, 6)).patch_size == (9, 6)
    assert PatchGeometry.from_layer(make_layer([-7, 0], [2, 1], [11, 2], [45]), (9, 6)).is_global


def test_a_receptive_field_as_large_as_the_input_shows_all_of_it_too() -> None:
    geometry = PatchGeometry.from_layer(make_layer([-7, 0], [2, 1], [9, 2], [1, 5, 5]), (9, 6))
    assert geometry.patch_size == (9, 2)
    assert geometry.corner(np.array([0, 3])) == (0, 3)
    patch = extract_patch(np.ones((1, 9, 6), np.float32), geometry, np.array([0, 3]))
    assert not np.isnan(patch[0, :2]).any()
    assert np.isnan(patch[0, 2:]).all()


def test_no_crop_behind_adaptive_pooling_or_borders_that_are_not_zero() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveMaxPool2d(4), nn.ReLU())
    layers = list_layers(network, (1, 10, 10))
    assert [is_croppable(network, layers, layer["name"]) for layer in layers] == [True, False, False]
    network = nn.Sequential(nn.ReLU(), nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"))
    layers = list_layers(network, (1, 10, 10))
    assert [is_croppable(network, layers, layer["name"]) for layer in layers] == [True, False]


class PaddedPool(nn.MaxPool2d):
    """Pads in forward, at the far side alone."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), self.kernel_size, self.stride)


class PaddedConv(nn.Conv2d):
    """Pads in forward, on both sides."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (2, 2, 2, 2)), self.weight, self.bias, self.stride)


OWN_FORWARD = {
    "padding on both sides": ([PaddedConv(1, 2, 5, stride=2), nn.ReLU(), PaddedConv(2, 2, 5)], True),
    "padding at the far side": ([PaddedConv(1, 2, 5), PaddedPool(3, 2), nn.Conv2d(2, 2, 3)], False),
    "upsampling": ([nn.Conv2d(1, 2, 3, stride=4), nn.Upsample(scale_factor=2), nn.Conv2d(2, 2, 3)], False),
    "pixels in channels": ([nn.PixelUnshuffle(2), nn.Conv2d(4, 2, 3, padding=1)], True),
}


@pytest.mark.parametrize("name", OWN_FORWARD)
def test_a_patch_has_every_pixel_behind_layers_with_code_of_their_own(name: str) -> None:
    modules, croppable = OWN_FORWARD[name]
    network, shape = nn.Sequential(*modules).eval().requires_grad_(False), (1, 26, 26)
    layers = list_layers(network, shape)
    layer, geometry = layers[-1]["name"], PatchGeometry.from_layer(layers[-1], shape[1:])
    assert geometry.patch_size < shape[1:]
    assert is_croppable(network, layers, layer) == croppable
    units, rows, columns = layers[-1]["output_shape"]
    positions = np.array([(0, 0), (0, columns - 1), (rows - 1, 0), (rows // 2, columns // 2), (3, 4)])
    images = torch.randn(len(positions), *shape, generator=torch.Generator().manual_seed(1))
    unit_numbers = np.arange(len(positions)) % units
    arguments = network, layer, list(images.numpy()), geometry, unit_numbers, positions
    patches, values = project_patches(*arguments, crop=croppable)
    projections, expected = project_positions(
        network, images, layer, torch.from_numpy(unit_numbers), torch.from_numpy(positions)
    )
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
    totals = np.nansum(np.abs(patches), axis=(1, 2, 3))
    np.testing.assert_allclose(totals, projections.abs().sum((1, 2, 3)), rtol=1e-4)
