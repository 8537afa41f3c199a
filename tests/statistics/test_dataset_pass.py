"""The top activations and statistics of a pass over a data set, against all values stored and sorted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convatlas import UserError
from convatlas.attribution.deconvnet import project
from convatlas.datasets import formats
from convatlas.files import Npz
from convatlas.models import build
from convatlas.pixels import RGB
from convatlas.statistics import shards
from convatlas.statistics.dataset_pass import DatasetPass, choose_batch_size, run_shard
from convatlas.statistics.histogram_bins import MAX_POSITIONS, list_bin_edges
from convatlas.statistics.shards import ShardDescription
from convatlas.statistics.summary import write_statistics
from convatlas.statistics.tracked_layers import find_tracked_layers
from convatlas.statistics.units import iter_unit_slices, unravel_positions
from convatlas.tracing.layers import list_layers
from convatlas.tracing.record import record
from tests.support.arrays import read_npz
from tests.support.dataset_pass import (
    CPU,
    SETTINGS,
    run_pass,
    write_digits,
    write_lenet5,
    write_photographs,
    write_resnet18,
)


class SmallNetwork(nn.Module):
    """Convolutions, pooling, a functional layer, a flat one and a linear one, and a layer called twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.relu = nn.Conv2d(1, channels, 3, padding=1), nn.ReLU()
        self.pool, self.conv2 = nn.MaxPool2d(2), nn.Conv2d(channels, 2 * channels, 3)
        self.fc = nn.Linear(2 * channels * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.conv1(x)))
        x = self.relu(self.conv2(x)) + 1
        return self.fc(x.flatten(1))


def with_integer_weights(network: nn.Module) -> nn.Module:
    """Give a network small integer weights: its outputs for integer inputs are exact, with many ties."""
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.data = torch.randint(-1, 2, parameter.shape, generator=generator).float()
    return network.eval().requires_grad_(False)


def sort_all(outputs: Tensor, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return values, images and flat positions of the k strongest of outputs (N, units, ...) by sorting."""
    flat = outputs.flatten(2).numpy() if outputs.ndim > 2 else outputs.numpy()[..., None]
    values, images, positions = [], [], []
    for unit in range(flat.shape[1]):
        ranked = sorted((-maps[unit].max(), n, int(np.argmax(maps[unit]))) for n, maps in enumerate(flat))
        value, image, position = zip(*ranked[:k], strict=True)
        values.append([-v for v in value])
        images.append(image)
        positions.append(position)
    return np.array(values), np.array(images), np.array(positions)


def count_bins(values: np.ndarray) -> np.ndarray:
    """Count the sampled values of outputs (N, units, area) in the bins of histograms, by NumPy."""
    step = -(-values.shape[2] // MAX_POSITIONS)
    sampled = [image[:, n % step :: step] for n, image in enumerate(values)]
    magnitudes = list_bin_edges()[1:]
    edges = [0, np.nextafter(0, 1), *magnitudes]  # zero is apart

    def count(unit_values: np.ndarray) -> np.ndarray:
        positive, zero = np.histogram(unit_values[unit_values >= 0], edges)[0], (unit_values == 0).sum()
        negative = np.histogram(-unit_values[unit_values < 0], edges)[0]
        return np.array([*negative[:0:-1], zero, *positive[1:]])

    return np.stack([count(unit) for unit in np.concatenate(sampled, 1)])


def pass_images(
    network: nn.Module, x: Tensor, names: list[str], k: int, batch_size: int, classes: int = 0
) -> DatasetPass:
    """Pass images (N, C, H, W) through a network in batches; with `classes` it predicts them."""
    dataset_pass = DatasetPass(
        network, *find_tracked_layers(network, tuple(x.shape[1:]), names), k, batch_size, classes
    )
    with dataset_pass:
        for index, start in enumerate(range(0, len(x), batch_size)):
            numbers = np.arange(start, min(start + batch_size, len(x)))
            dataset_pass.update(index, x[numbers], numbers, None)
    return dataset_pass


@pytest.mark.parametrize("channels", [3, 40])
@pytest.mark.parametrize("batch_size", [8, 40])  # smaller and larger than k
@pytest.mark.parametrize("shard_count", [1, 3, 7])
def test_top_activations_are_those_of_all_values_sorted(
    channels: int, batch_size: int, shard_count: int, tmp_path: Path
) -> None:
    network = with_integer_weights(SmallNetwork(channels))
    x = torch.randint(0, 2, (61, 1, 12, 12), generator=torch.Generator().manual_seed(2)).float()
    x[50:] = x[:11]  # repeated images: ties between images
    labels = np.arange(61) % 3
    names = [layer["name"] for layer in list_layers(network, (1, 12, 12)) if layer["called"]]
    layers, memory_format = find_tracked_layers(network, (1, 12, 12), names)
    assert names == ["conv1", "relu", "pool", "conv2", "relu:2", "add", "flatten", "fc"]
    assert [layer.name for layer in layers] == names

    paths = []
    for shard in range(shard_count):
        dataset_pass = DatasetPass(network, layers, memory_format, 9, batch_size, 3)
        batches = shards.shard_batches(shard, shard_count, -(-61 // batch_size))
        with dataset_pass:
            for index in batches:
                numbers = np.arange(batch_size * index, min(batch_size * (index + 1), 61))
                dataset_pass.update(index, x[numbers], numbers, labels)
        description: Any = dict.fromkeys(shards.MISMATCH_REASONS) | {
            "images": 61,
            "batch": batch_size,
            "batches": [batches.start, batches.stop],
            "layers": [{"name": layer.name, "shape": list(layer.shape)} for layer in layers],
            "class_source": "label",
            "classes": list("abc"),
            "device": "cpu",
            "skipped": [],
        }
        paths.append(tmp_path / f"{shard}.npz")
        shards.write_shard(paths[-1], description, dataset_pass.result())
    fingerprint: Any = dict.fromkeys(shards.MISMATCH_REASONS)
    merged: tuple[ShardDescription, shards.PassResult] = shards.merge_shards(paths, fingerprint)
    description, result = merged

    outputs = record(network, x).outputs
    sums = result.sums.total()
    for layer, units in iter_unit_slices(description["layers"]):
        output = outputs[layer["name"]]
        values, images, positions = sort_all(output, 9)
        np.testing.assert_array_equal(result.top.values[units], values)
        np.testing.assert_array_equal(result.top.images[units], images)
        np.testing.assert_array_equal(result.top.flat_positions[units], positions)
        flat = output.flatten(2) if output.ndim > 2 else output[..., None]
        np.testing.assert_array_equal(result.counts.zero_count[units], (flat == 0).sum((0, 2)))
        np.testing.assert_array_equal(result.counts.max[units], flat.amax((0, 2)))
        means = flat.double().mean(2)
        np.testing.assert_allclose(sums.mean_sum[units], means.sum(0), rtol=1e-6, atol=1e-5)
        squares = flat.double().square().mean(2).sum(0)
        np.testing.assert_allclose(sums.square_sum[units], squares, rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(sums.squared_mean_sum[units], means.square().sum(0), rtol=1e-6, atol=1e-5)
        np.testing.assert_array_equal(result.counts.histogram[units], count_bins(flat.numpy()))
        for label in range(3):
            class_sum = means[labels == label].sum(0)
            np.testing.assert_allclose(sums.class_sums[label][units], class_sum, rtol=1e-6, atol=1e-5)
    assert result.counts.class_counts.tolist() == [21, 20, 20]


def test_a_first_batch_larger_than_k_keeps_the_strongest_in_order() -> None:
    """Of equal values the earlier image comes first, as in a sort of all values."""
    x = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 9, 9]).float()[:, None, None, None]
    top = pass_images(nn.Sequential(nn.Identity()), x, ["0"], 4, 13).result().top
    assert top.values.tolist() == [[9, 9, 9, 6]]
    assert top.images.tolist() == [[5, 11, 12, 7]]
    again = pass_images(nn.Sequential(nn.Identity()), x.repeat(3, 1, 1, 1), ["0"], 4, 13).result().top
    assert again.images.tolist() == [[5, 11, 12, 18]]


def test_a_constant_unit_has_no_deviation() -> None:
    network = with_integer_weights(nn.Sequential(nn.Conv2d(1, 33, 1)))
    network[0].weight.zero_()
    network[0].bias[:] = torch.linspace(0.1, 3e4, 33)
    sums = pass_images(network, torch.randn(20, 1, 30, 30), ["0"], 2, 4).result().sums.total()
    mean, square = sums.mean_sum / 20, sums.square_sum / 20
    assert (np.abs(square - mean**2) <= 1e-12 * square).all()  # the rounding of its mean


def test_nan_is_no_top_activation_and_shows_in_the_mean() -> None:
    network = nn.Sequential(nn.Identity(), nn.Flatten())
    x = torch.ones(3, 2, 2, 2)
    x[1, 0, 1, 1] = torch.nan
    x[2, 1] = 5
    result = pass_images(network, x, ["0", "1"], 3, 3).result()
    assert result.top.values[:2].tolist() == [[1, 1, 1], [5, 1, 1]]
    assert result.top.images[:2].tolist() == [[0, 1, 2], [2, 0, 1]]
    flat_units = [sorted(images) for images in result.top.images[2:].tolist()]
    assert flat_units == [[0, 1, 2]] * 3 + [[-1, 0, 2]] + [[0, 1, 2]] * 4
    is_nan = np.isnan(result.sums.total().mean_sum).tolist()
    assert is_nan == [True, False, False, False, False, True] + [False] * 4
    assert result.counts.max[:2].tolist() == [1, 5]


def test_images_with_nan_scores_have_no_predicted_class() -> None:
    network = nn.Sequential(nn.Flatten())
    x = torch.randn(6, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    x[1, 2], x[4, 0] = torch.nan, torch.inf
    result = pass_images(network, x, ["0"], 3, 4, classes=3).result()
    assert result.counts.image_count == 6
    expected = np.bincount(x[[0, 2, 3, 5], :, 0, 0].argmax(1), minlength=3)
    assert result.counts.class_counts.tolist() == expected.tolist()
    assert -1 not in result.sums.total().class_sums


def test_layers_without_units_are_skipped() -> None:
    class WithoutUnits(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.mean(x, (0, 2, 3)) + torch.flatten(x).sum()

    assert find_tracked_layers(WithoutUnits(), (1, 4, 4), ["mean", "flatten", "add"])[0] == []


def test_a_network_that_needs_contiguous_maps_runs_with_them() -> None:
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).view(len(x), -1)

    network = Viewing().eval()
    layers, memory_format = find_tracked_layers(network, (3, 8, 8), ["conv", "view"])
    assert [layer.name for layer in layers] == ["conv", "view"]
    assert memory_format == torch.contiguous_format
    assert pass_images(network, torch.randn(2, 3, 8, 8), ["conv"], 1, 2).image_count == 2


@pytest.mark.parametrize(("outputs", "batch_size"), [(1, 4), (3, 4), (3, 1)])
def test_predicted_classes_are_counted_where_the_output_is_squeezed(outputs: int, batch_size: int) -> None:
    class Squeezed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, outputs, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).squeeze()

    torch.manual_seed(0)
    network, x = Squeezed().eval(), torch.randn(6, 1, 4, 4)
    dataset_pass = DatasetPass(
        network, *find_tracked_layers(network, (1, 4, 4), ["conv"]), 2, batch_size, outputs
    )
    with dataset_pass:
        for index, start in enumerate(range(0, 6, batch_size)):
            numbers = np.arange(start, min(start + batch_size, 6))
            dataset_pass.update(index, x[numbers], numbers, None)
    expected = network.conv(x).flatten(1).argmax(1).bincount(minlength=outputs)
    assert torch.equal(dataset_pass.class_counts, expected)


def test_batches_are_smaller_for_larger_images() -> None:
    sizes = [choose_batch_size((3, side, side), CPU) for side in (28, 64, 224, 2000)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1


def test_a_shard_holds_only_the_classes_of_its_images() -> None:
    network = with_integer_weights(SmallNetwork(3))
    layers, memory_format = find_tracked_layers(network, (1, 12, 12), ["conv1"])
    dataset_pass = DatasetPass(network, layers, memory_format, 2, 4, 1000)
    with dataset_pass:
        for index in range(3):
            numbers = np.arange(4 * index, 4 * index + 4)
            dataset_pass.update(index, torch.randn(4, 1, 12, 12), numbers, np.arange(12) // 3 + 990)
    sums = dataset_pass.result().sums
    assert [sorted(node.class_sums) for _, _, node in sums.nodes] == [[990, 991, 992], [992, 993]]
    assert sorted(sums.total().class_sums) == [990, 991, 992, 993]


# A pass over files


@pytest.mark.parametrize("kind", ["lenet5", "resnet18"])
def test_merged_files_are_the_same_for_any_number_of_shards_and_true(kind: str, tmp_path: Path) -> None:
    if kind == "lenet5":
        folder, data = write_lenet5(tmp_path / "results/lenet5"), write_digits(tmp_path)
    else:
        folder, data = write_resnet18(tmp_path / "results/resnet18"), write_photographs(tmp_path)
    files = [run_pass(folder, data, count, SETTINGS | {"batch": 4}) for count in (1, 3, 7)]
    assert files[0] == files[1] == files[2]

    network, preprocessing = build.load_network(folder)
    examples = formats.load(data, "test")
    pixels = examples.read_images(preprocessing.pixel_format, preprocessing.size, preprocessing.resize)
    outputs = record(network, preprocessing(torch.from_numpy(pixels))).outputs
    statistics, summary = read_npz(folder / "statistics.npz"), json.loads(files[0]["statistics.json"])
    assert summary["images"] == sum(summary["class_images"]) == len(examples)
    assert summary["class_source"] == "label"
    assert [layer["name"] for layer in summary["layers"]] == list(outputs)
    for name, output in outputs.items():
        values, images, positions = sort_all(output, min(9, len(examples)))
        np.testing.assert_allclose(statistics[f"{name}@values"], values, rtol=1e-4, atol=1e-5)
        # Where values differ by more than the rounding in batches of another size, the order is certain.
        distinct = np.abs(np.diff(values, prepend=np.inf, append=-np.inf)) > 1e-4
        certain = distinct[:, :-1] & distinct[:, 1:]
        same = statistics[f"{name}@images"] == images
        expected_positions = unravel_positions(positions, list(output.shape[1:]))
        same &= (statistics[f"{name}@positions"] == expected_positions).all(2)
        assert same[certain].all()
        flat = (output.flatten(2) if output.ndim > 2 else output[..., None]).double()
        np.testing.assert_allclose(statistics[f"{name}@mean"], flat.mean((0, 2)), rtol=1e-3, atol=1e-5)
        std = flat.std((0, 2), correction=0)
        np.testing.assert_allclose(statistics[f"{name}@std"], std, rtol=1e-3, atol=1e-5)
        dead = np.zeros(len(values), bool) if "softmax" in name else values[:, 0] <= 0
        np.testing.assert_array_equal(statistics[f"{name}@dead"], dead)
        means = [flat[examples.labels == label].mean((0, 2)) for label in range(len(summary["classes"]))]
        np.testing.assert_allclose(statistics[f"{name}@classes"].T, np.stack(means), rtol=1e-3, atol=1e-5)


def test_a_repeated_image_comes_later(lenet5_on_digits: tuple[Path, Path]) -> None:
    run_pass(*lenet5_on_digits)
    statistics = Npz(lenet5_on_digits[0] / "statistics.npz")
    images, values = statistics["conv1@images"].tolist(), statistics["conv1@values"].tolist()
    repeated = 0
    for row, value in zip(images, values, strict=True):
        for rank, n in enumerate(row):
            if n + 30 in row:
                repeated += 1
                assert row.index(n + 30) == rank + 1
                assert value[rank] == value[rank + 1]
    assert repeated


def test_k_is_limited_by_the_number_of_images(
    lenet5_on_digits: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    run_pass(*lenet5_on_digits, settings=SETTINGS | {"k": 100})
    assert "views.strongest.k is 100, and there are 45 images" in caplog.text
    statistics = Npz(lenet5_on_digits[0] / "statistics.npz")
    assert statistics["conv1@values"].shape == (6, 45)
    assert (np.sort(statistics["conv1@images"], 1) == np.arange(45)).all()


def test_images_without_labels_are_classed_by_prediction(tmp_path: Path) -> None:
    folder, data = write_resnet18(tmp_path / "results/resnet18"), write_photographs(tmp_path, classes=())
    run_pass(folder, data)
    summary = json.loads((folder / "statistics.json").read_text())
    assert (summary["class_source"], summary["images"]) == ("predicted class", 12)
    assert summary["classes"] == ["a", "b", "c", "d"]
    network, preprocessing = build.load_network(folder)
    pixels = formats.load(data, "test").read_images(RGB, (40, 40), 40)
    predicted = network(preprocessing(torch.from_numpy(pixels))).argmax(1)
    assert summary["class_images"] == predicted.bincount(minlength=4).tolist()


def test_an_empty_class_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "source/cow").mkdir(parents=True)
    folder, data = write_resnet18(tmp_path / "results/resnet18"), write_photographs(tmp_path)
    run_pass(folder, data)
    assert json.loads((folder / "statistics.json").read_text())["classes"] == ["ant", "bee"]


@pytest.mark.parametrize(
    ("settings", "shard", "words"),
    [
        (
            {"layers": ["conv9"]},
            (0, 1),
            ["networks.lenet5.views.strongest.layers: no layer 'conv9'", "conv1"],
        ),
        ({}, (3, 3), ["--shard 3: there are 3 shards, counted from 0"]),
    ],
)
def test_wrong_settings_are_reported(
    lenet5_on_digits: tuple[Path, Path], settings: dict[str, Any], shard: tuple[int, int], words: list[str]
) -> None:
    folder, data = lenet5_on_digits
    with pytest.raises(UserError) as error:
        run_shard(folder, data, SETTINGS | settings, *shard, CPU)
    assert all(word in str(error.value) for word in words)


# Images that cannot be read


@pytest.fixture
def damaged(tmp_path: Path) -> tuple[Path, Path, str]:
    """A network, its data set, and the name of a test image that was damaged after preparation."""
    folder, data = write_resnet18(tmp_path / "results/resnet18"), write_photographs(tmp_path)
    examples = formats.load(data, "test")
    Path(str(examples.paths[5])).resolve().write_bytes(b"no image")
    return folder, data, examples.names[5]


def test_an_unreadable_image_stops_the_pass(damaged: tuple[Path, Path, str]) -> None:
    folder, data, name = damaged
    with pytest.raises(UserError) as error:
        run_shard(folder, data, SETTINGS, 0, 1, CPU)
    assert name in str(error.value)
    assert "datasets.pictures.on_bad_image: skip" in str(error.value)
    assert not list(folder.glob("shards/*"))


@pytest.mark.parametrize("shard_count", [1, 3])
def test_an_unreadable_image_is_skipped_and_listed(
    damaged: tuple[Path, Path, str], shard_count: int, caplog: pytest.LogCaptureFixture
) -> None:
    folder, data, name = damaged
    settings = SETTINGS | {"on_bad_image": "skip", "batch": 2, "k": 20}
    run_pass(folder, data, shard_count, settings)
    summary = json.loads((folder / "statistics.json").read_text())
    assert summary["images"] == sum(summary["class_images"]) == 11
    assert [(image["image"], image["name"]) for image in summary["skipped"]] == [(5, name)]
    assert f"skipped image 5, {name}" in caplog.text
    images = Npz(folder / "statistics.npz")["conv1@images"]
    assert (np.sort(images, 1) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]).all()


def test_a_pass_without_any_readable_image_is_an_error(tmp_path: Path) -> None:
    folder, data = write_resnet18(tmp_path / "results/resnet18"), write_photographs(tmp_path)
    for path in (tmp_path / "source").rglob("*.png"):
        path.write_bytes(b"")
    settings: Any = SETTINGS | {"on_bad_image": "skip"}
    run_shard(folder, data, settings, 0, 1, CPU)
    with pytest.raises(UserError, match="none of the 12 images"):
        write_statistics(folder, data, settings)


def test_complex_outputs_are_measured_by_their_magnitude() -> None:
    class Spectrum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.fft2(x)

    x = torch.randn(5, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    result = pass_images(nn.Sequential(Spectrum()), x, ["0"], 2, 3).result()
    magnitude = np.abs(np.fft.fft2(x.numpy()))
    np.testing.assert_allclose(result.counts.max, magnitude.max((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(result.sums.total().mean_sum, magnitude.mean((2, 3)).sum(0), rtol=1e-5)
    with pytest.raises(UserError, match="0: its output is complex, and the deconvnet is defined for real"):
        project(nn.Sequential(Spectrum()), x[0], "0")
