"""The strongest activations and the statistics of a pass, against all values stored and sorted."""

import json
import resource
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from convatlas import UserError
from convatlas.datasets import cache, formats, sample_images
from convatlas.datasets.loader import BatchLoader
from convatlas.datasets.mnist import write_idx
from convatlas.files import Npz, read_npz, write_json
from convatlas.models import build
from convatlas.models.preprocessing import Preprocessing
from convatlas.statistics import reduction, shards
from convatlas.statistics.dataset_pass import DatasetPass, choose_batch_size, find_tracked_layers
from convatlas.statistics.reduction import MapReduction
from convatlas.statistics.units import iter_unit_slices, unravel_positions
from convatlas.tracing.layers import list_layers
from convatlas.tracing.record import record
from tests.support.workspace import ROOT

SCRIPTS = ROOT / "scripts"
SETTINGS = {"layers": "all", "k": 9, "split": "test", "batch": 8, "on_bad_image": "error"}
MNIST = {"format": "mnist", "mirrors": []}
FOLDER = {"format": "images", "test_share": 0.5, "on_bad_image": "error"}


# What a batch's maps come to


SHAPES = [(3, 5, 7, 9), (2, 40, 12, 12), (40, 64, 30, 31), (2, 3, 50, 50), (5, 1, 4, 4), (20, 7, 127), (9, 6)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("gpu", [False, True])
def test_maps_are_measured_whatever_their_layout(
    shape: tuple[int, ...],
    layout: torch.memory_format,
    threads: int,
    gpu: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By numba on a CPU, and by the operations that are used on a GPU, which run here on a CPU."""
    maps = torch.randn(*shape, generator=torch.Generator().manual_seed(0)).relu().mul(4).round()  # ties
    maps[0, 0] = 2.5
    flat = maps.reshape(*shape[:2], -1)
    if gpu:
        monkeypatch.setattr(reduction, "_reduce_with_numba", by_torch)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = MapReduction(50, shape[1] + 3, torch.device("cpu"))
    finally:
        torch.set_num_threads(before)
    found.update(torch.full_like(maps, 7), slice(1, 1 + shape[1]))  # must leave nothing behind
    laid = maps.to(memory_format=layout) if maps.ndim == 4 else maps
    found.update(laid, slice(1, 1 + shape[1]))
    n, units = shape[0], slice(1, 1 + shape[1])
    assert torch.equal(found.max[:n, units], flat.amax(2))
    assert torch.equal(found.argmax[:n, units].long(), flat.argmax(2))
    torch.testing.assert_close(found.mean[:n, units], flat.double().mean(2), rtol=1e-6, atol=1e-6)
    about = (flat.double() - flat.double().mean(2, keepdim=True)).square().sum((0, 2))
    torch.testing.assert_close(found.sum_squared_deviation[:, units].sum(0), about, rtol=1e-5, atol=1e-9)
    assert torch.equal(found.zero_count[:, units].sum(0), (flat == 0).sum((0, 2)))
    for each in (found.max, found.sum_squared_deviation, found.zero_count):
        assert not each[:, 0].any() and not each[:, units.stop :].any()


def by_torch(images: np.ndarray, beside: int, *into: np.ndarray) -> None:
    """What a GPU does, given as a CPU is."""
    n, units = len(images), into[0].shape[1]
    maps = torch.from_numpy(images).reshape(n, units // beside, -1, beside).transpose(2, 3)
    reduction._reduce_with_torch(maps.reshape(n, units, -1), *(torch.from_numpy(each) for each in into))


@pytest.mark.parametrize("shape", [(30, 30), ()])
@pytest.mark.parametrize("gpu", [False, True])
def test_a_map_that_holds_nan_has_no_maximum(
    shape: tuple[int, ...], gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Infinities are values."""
    if gpu:
        monkeypatch.setattr(reduction, "_reduce_with_numba", by_torch)
    maps = torch.ones(1, 3, *shape)
    maps[0, 1].view(-1)[-1] = torch.nan
    maps[0, 2].view(-1)[0] = -torch.inf
    maps[0, 2].view(-1)[-1] = torch.inf
    found = MapReduction(1, 3, torch.device("cpu"))
    found.update(maps, slice(0, 3))
    assert found.max.tolist() == [[1, -torch.inf, torch.inf]]
    assert found.mean[0, 0] == 1
    assert found.mean[0, 1].isnan()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_maps_of_other_precision_or_strides_are_measured(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    for maps in (
        torch.randn(3, 4, 20, 20, generator=generator)[:, :, ::2, ::3],
        torch.randn(3, 1, 9, 9, generator=generator).expand(3, 4, 9, 9),
    ):
        given = maps.to(dtype)
        found = MapReduction(3, 4, torch.device("cpu"))
        found.update(given, slice(0, 4))
        flat = given.flatten(2).float()
        assert torch.equal(found.max, flat.amax(2))
        assert torch.equal(found.argmax.long(), flat.argmax(2))
        torch.testing.assert_close(found.mean, flat.double().mean(2), rtol=1e-5, atol=1e-6)


# A pass, against all values stored and sorted


class Plain(nn.Module):
    """Convolutions, pooling, a functional layer, a flat one and a linear one, a layer called twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.relu = nn.Conv2d(1, channels, 3, padding=1), nn.ReLU()
        self.pool, self.conv2 = nn.MaxPool2d(2), nn.Conv2d(channels, 2 * channels, 3)
        self.fc = nn.Linear(2 * channels * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.conv1(x)))
        x = self.relu(self.conv2(x)) + 1
        return self.fc(x.flatten(1))


def whole(network: nn.Module) -> nn.Module:
    """The network with small whole numbers for weights: what it computes of such is exact, with many ties."""
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.data = torch.randint(-1, 2, parameter.shape, generator=generator).float()
    return network.eval().requires_grad_(False)


def brute(outputs: Tensor, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k strongest of each unit, of outputs (N, units, ...): values, images and flat places."""
    flat = outputs.flatten(2).numpy() if outputs.ndim > 2 else outputs.numpy()[..., None]
    values, images, places = [], [], []
    for unit in range(flat.shape[1]):
        best = [(-maps[unit].max(), n, int(np.argmax(maps[unit]))) for n, maps in enumerate(flat)]
        value, image, place = zip(*sorted(best)[:k], strict=True)
        values.append([-v for v in value])
        images.append(image)
        places.append(place)
    return np.array(values), np.array(images), np.array(places)


@pytest.mark.parametrize("channels", [3, 40])
@pytest.mark.parametrize("parts", [1, 3, 7])
def test_the_strongest_are_those_of_all_values_sorted(channels: int, parts: int, tmp_path: Path) -> None:
    network = whole(Plain(channels))
    x = torch.randint(0, 2, (61, 1, 12, 12), generator=torch.Generator().manual_seed(2)).float()
    x[50:] = x[:11]  # the same images again: ties between images
    labels = np.arange(61) % 3
    names = [layer["name"] for layer in list_layers(network, (1, 12, 12)) if layer["called"]]
    layers, layout = find_tracked_layers(network, (1, 12, 12), names)
    assert (
        [layer.name for layer in layers]
        == names
        == ["conv1", "relu", "pool", "conv2", "relu:2", "add", "flatten", "fc"]
    )

    paths = []
    for shard in range(parts):
        survey = DatasetPass(network, layers, layout, 9, 8, 3)
        with survey:
            for at in (own := shards.shard_batches(shard, parts, 8)):
                numbers = np.arange(8 * at, min(8 * at + 8, 61))
                survey.update(at, x[numbers], numbers, labels)
        described = {"images": 61, "batch": 8, "batches": [own.start, own.stop], "skipped": []}
        described |= {"layers": [{"name": one.name, "shape": list(one.shape)} for one in layers]}
        described |= {"class_source": "label", "classes": list("abc"), "device": "cpu"}
        paths.append(tmp_path / f"{shard}.npz")
        shards.write_shard(paths[-1], described | dict.fromkeys(shards.MISMATCH_REASONS), survey.result())
    described, found = shards.merge_shards(paths, dict.fromkeys(shards.MISMATCH_REASONS))

    outputs = record(network, x).outputs
    for layer, units in iter_unit_slices(described["layers"]):
        out = outputs[layer["name"]]
        values, images, places = brute(out, 9)
        np.testing.assert_array_equal(found.top.values[units], values)
        np.testing.assert_array_equal(found.top.images[units], images)
        np.testing.assert_array_equal(found.top.flat_positions[units], places)
        flat = out.flatten(2) if out.ndim > 2 else out[..., None]
        np.testing.assert_array_equal(found.counts.zero_count[units], (flat == 0).sum((0, 2)))
        np.testing.assert_array_equal(found.counts.max[units], flat.amax((0, 2)))
        of_image = flat.double().mean(2)
        sums = found.sums.total()
        np.testing.assert_allclose(sums.mean_sum[units], of_image.sum(0), rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(
            sums.square_sum[units], flat.double().square().mean(2).sum(0), rtol=1e-6, atol=1e-5
        )
        for label in range(3):
            of_class = of_image[labels == label].sum(0)
            np.testing.assert_allclose(sums.class_sums[label][units], of_class, rtol=1e-6, atol=1e-5)
    assert found.counts.class_counts.tolist() == [21, 20, 20]


def test_a_constant_unit_does_not_deviate() -> None:
    network = whole(nn.Sequential(nn.Conv2d(1, 33, 1)))
    network[0].weight.zero_()
    network[0].bias[:] = torch.linspace(0.1, 3e4, 33)
    survey = DatasetPass(network, *find_tracked_layers(network, (1, 30, 30), ["0"]), 2, 4, 0)
    with survey:
        for at in range(5):
            survey.update(at, torch.randn(4, 1, 30, 30), np.arange(4 * at, 4 * at + 4), None)
    sums = survey.result().sums.total()
    mean, square = sums.mean_sum / 20, sums.square_sum / 20
    assert (np.abs(square - mean**2) <= 1e-12 * square).all()  # the ulps of its mean


def test_nan_is_no_strongest_and_shows_in_the_mean() -> None:
    network = whole(nn.Sequential(nn.Identity(), nn.Flatten()))
    x = torch.ones(3, 2, 2, 2)
    x[1, 0, 1, 1] = torch.nan
    x[2, 1] = 5
    survey = DatasetPass(network, *find_tracked_layers(network, (2, 2, 2), ["0", "1"]), 3, 3, 0)
    with survey:
        survey.update(0, x, np.arange(3), None)
    found = survey.result()
    assert found.top.values[:2].tolist() == [[1, 1, -np.inf], [5, 1, 1]]
    assert found.top.images[:2].tolist() == [[0, 2, -1], [2, 0, 1]]
    assert (
        np.isnan(found.sums.total().mean_sum).tolist()
        == [True, False, False, False, False, True] + [False] * 4
    )
    assert found.counts.max[:2].tolist() == [1, 5]


def test_what_has_no_units_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.mean(x, (0, 2, 3)) + torch.flatten(x).sum()

    assert find_tracked_layers(Odd(), (1, 4, 4), ["mean", "flatten", "add"])[0] == []


def test_a_network_that_wants_its_maps_one_behind_the_other_runs_so() -> None:
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).view(len(x), -1)

    network = Viewing().eval()
    layers, layout = find_tracked_layers(network, (3, 8, 8), ["conv", "view"])
    assert ([layer.name for layer in layers], layout) == (["conv", "view"], torch.contiguous_format)
    survey = DatasetPass(network, *find_tracked_layers(network, (3, 8, 8), ["conv"]), 1, 2, 0)
    with survey:
        survey.update(0, torch.randn(2, 3, 8, 8), np.arange(2), None)
    assert survey.image_count == 2


def test_batches_are_smaller_for_larger_images() -> None:
    sizes = [choose_batch_size((3, side, side), torch.device("cpu")) for side in (28, 64, 224, 2000)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1


# The scripts, end to end


def made(folder: Path, network: nn.Module, description: dict[str, Any], shape: tuple[int, ...]) -> Path:
    """The folder of a network, as far as a pass needs it."""
    folder.mkdir(parents=True)
    save_file(network.state_dict(), folder / "weights.safetensors")
    write_json(folder / "network.json", description)
    write_json(folder / "layers.json", list_layers(network, shape))
    return folder


def lenet5(folder: Path) -> Path:
    settings = {"architecture": "lenet5", "arguments": {"classes": 10}}
    network, preprocessing = build.build_network(
        {"architecture": "lenet5"}, [str(n) for n in range(10)], seed=3
    )
    described = settings | {
        "arguments": {},
        "weights": {"name": None},
        "classes": [str(n) for n in range(10)],
    }
    return made(folder, network, described | {"preprocessing": preprocessing.to_dict()}, preprocessing.shape)


def resnet18(folder: Path) -> Path:
    settings = {
        "architecture": "torchvision/resnet18",
        "input": {"size": 40},
        "arguments": {"num_classes": 4},
    }
    network, preprocessing = build.build_network(settings, None, seed=3)
    described = {key: settings[key] for key in ("architecture", "arguments")} | {"weights": {"name": None}}
    described |= {"classes": ["a", "b", "c", "d"], "preprocessing": preprocessing.to_dict()}
    return made(folder, network, described, preprocessing.shape)


def digits(folder: Path, count: int = 45) -> Path:
    """An MNIST of noise, the last third of it the first again."""
    random = np.random.default_rng(0)
    raw = folder / "source/MNIST/raw"
    for split in ("train", "t10k"):
        images = random.integers(0, 256, (count, 28, 28))
        images[2 * count // 3 :] = images[: count - 2 * count // 3]
        write_idx(raw / f"{split}-images-idx3-ubyte", images)
        write_idx(raw / f"{split}-labels-idx1-ubyte", np.arange(count) % 10)
    formats.prepare(folder / "digits", MNIST | {"source": str(folder / "source")}, "datasets.digits")
    return folder / "digits"


def photographs(folder: Path, classes: tuple[str, ...] = ("ant", "bee"), on_bad_image: str = "error") -> Path:
    """Folders of small image files, 12 a class, in root/class/*, or right in the folder for no classes."""
    random = np.random.default_rng(1)
    for name in classes or ("",):
        (folder / "source" / name).mkdir(parents=True, exist_ok=True)
        for n in range(12):
            pixels = random.integers(0, 256, (50, 44, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"source/{name}/{n:02d}.png")
    prepared(folder, on_bad_image)
    return folder / "pictures"


def prepared(folder: Path, on_bad_image: str = "error") -> None:
    settings = FOLDER | {"source": str(folder / "source"), "on_bad_image": on_bad_image}
    formats.prepare(folder / "pictures", settings, "datasets.pictures")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a script in this process; gives its last words, "" where it ends well."""

    def script(name: str, folder: Path, data: Path, settings: dict[str, Any], *more: object) -> str:
        monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
        monkeypatch.setattr(torch, "set_deterministic_debug_mode", lambda mode: None)
        arguments = ["--name", folder.name, "--settings", json.dumps(settings), "--output", folder]
        argv = [f"{name}.py", *arguments, "--data", data, *more]
        monkeypatch.setattr(sys, "argv", [str(word) for word in argv])
        try:
            runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
        except SystemExit as end:
            return str(end.code)
        return ""

    return script


def passed(
    script: Callable[..., str], folder: Path, data: Path, parts: int = 1, settings: dict[str, Any] = SETTINGS
) -> dict[str, bytes]:
    """Run all shards and merge them; gives the merged files' bytes."""
    for shard in range(parts):
        assert not script("dataset_pass", folder, data, settings, "--shard", shard, "--shards", parts)
    assert not script("merge_shards", folder, data, settings, "--shards", parts)
    return {name: (folder / name).read_bytes() for name in ("statistics.npz", "statistics.json")}


@pytest.fixture
def on_digits(tmp_path: Path) -> tuple[Path, Path]:
    return lenet5(tmp_path / "results/lenet5"), digits(tmp_path)


@pytest.mark.parametrize("kind", ["lenet5", "resnet18"])
def test_merged_files_are_the_same_however_many_shards_and_true(
    kind: str, tmp_path: Path, script: Callable[..., str]
) -> None:
    if kind == "lenet5":
        folder, data = lenet5(tmp_path / "results/lenet5"), digits(tmp_path)
    else:
        folder, data = resnet18(tmp_path / "results/resnet18"), photographs(tmp_path)
    found = [passed(script, folder, data, parts, SETTINGS | {"batch": 4}) for parts in (1, 3, 7)]
    assert found[0] == found[1] == found[2]

    network, preprocessing = build.load_network(folder)
    examples = formats.load(data, "test")
    pixels = examples.read_images(preprocessing.mode, preprocessing.size, preprocessing.resize)
    outputs = record(network, preprocessing(torch.from_numpy(pixels))).outputs
    statistics, about = read_npz(folder / "statistics.npz"), json.loads(found[0]["statistics.json"])
    assert about["images"] == sum(about["class_images"]) == len(examples)
    assert about["class_source"] == "label"
    assert [layer["name"] for layer in about["layers"]] == list(outputs)
    for name, output in outputs.items():
        values, images, places = brute(output, min(9, len(examples)))
        np.testing.assert_allclose(statistics[f"{name}@values"], values, rtol=1e-4, atol=1e-5)
        shape = list(output.shape[1:])
        distinct = np.diff(values, prepend=np.inf, append=-np.inf).__abs__() > 1e-4
        sure = distinct[:, :-1] & distinct[:, 1:]  # but for rounding in batches of another size
        same = statistics[f"{name}@images"] == images
        same &= (statistics[f"{name}@positions"] == unravel_positions(places, shape)).all(2)
        assert same[sure].all()
        flat = (output.flatten(2) if output.ndim > 2 else output[..., None]).double()
        np.testing.assert_allclose(statistics[f"{name}@mean"], flat.mean((0, 2)), rtol=1e-3, atol=1e-5)
        deviation = flat.std((0, 2), correction=0)
        np.testing.assert_allclose(statistics[f"{name}@std"], deviation, rtol=1e-3, atol=1e-5)
        dead = np.zeros(len(values), bool) if "softmax" in name else values[:, 0] <= 0
        np.testing.assert_array_equal(statistics[f"{name}@dead"], dead)
        by_class = [flat[examples.labels == label].mean((0, 2)) for label in range(len(about["classes"]))]
        np.testing.assert_allclose(statistics[f"{name}@classes"].T, np.stack(by_class), rtol=1e-3, atol=1e-5)


def test_the_same_image_again_comes_later(on_digits: tuple[Path, Path], script: Callable[..., str]) -> None:
    passed(script, *on_digits)
    statistics = Npz(on_digits[0] / "statistics.npz")
    images, values = statistics["conv1@images"], statistics["conv1@values"]
    again = [(row == n).nonzero()[0] for row in images for n in row if n < 15 and n + 30 in row]
    assert again
    for row, value in zip(images.tolist(), values.tolist(), strict=True):
        for place, n in enumerate(row):
            if n + 30 in row:
                assert row.index(n + 30) == place + 1
                assert value[place] == value[place + 1]


def test_k_larger_than_the_set(
    on_digits: tuple[Path, Path], script: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    passed(script, *on_digits, settings=SETTINGS | {"k": 100})
    assert "views.strongest.k is 100, and there are 45 images" in caplog.text
    statistics = Npz(on_digits[0] / "statistics.npz")
    assert statistics["conv1@values"].shape == (6, 45)
    assert (np.sort(statistics["conv1@images"], 1) == np.arange(45)).all()


def test_images_without_labels_are_told_apart_by_prediction(
    tmp_path: Path, script: Callable[..., str]
) -> None:
    folder, data = resnet18(tmp_path / "results/resnet18"), photographs(tmp_path, classes=())
    passed(script, folder, data)
    about = json.loads((folder / "statistics.json").read_text())
    assert (about["class_source"], about["images"]) == ("predicted class", 12)
    assert about["classes"] == ["a", "b", "c", "d"]
    network, preprocessing = build.load_network(folder)
    pixels = formats.load(data, "test").read_images("RGB", 40, 40)
    predicted = network(preprocessing(torch.from_numpy(pixels))).argmax(1)
    assert about["class_images"] == predicted.bincount(minlength=4).tolist()


def test_an_empty_class_is_passed_over(tmp_path: Path, script: Callable[..., str]) -> None:
    (tmp_path / "source/cow").mkdir(parents=True)
    folder, data = resnet18(tmp_path / "results/resnet18"), photographs(tmp_path)
    passed(script, folder, data)
    assert json.loads((folder / "statistics.json").read_text())["classes"] == ["ant", "bee"]


# Images that cannot be read


@pytest.fixture
def damaged(tmp_path: Path) -> tuple[Path, Path, str]:
    """A network, its data set, and the name of one test image that was damaged since."""
    folder, data = resnet18(tmp_path / "results/resnet18"), photographs(tmp_path)
    examples = formats.load(data, "test")
    Path(str(examples.paths[5])).resolve().write_bytes(b"no image")
    return folder, data, examples.names[5]


def test_an_unreadable_image_stops_the_pass(
    damaged: tuple[Path, Path, str], script: Callable[..., str]
) -> None:
    folder, data, name = damaged
    ended = script("dataset_pass", folder, data, SETTINGS)
    assert ended.startswith("error: ")
    assert name in ended
    assert "datasets.pictures.on_bad_image: skip" in ended
    assert not list(folder.glob("shards/*"))


@pytest.mark.parametrize("parts", [1, 3])
def test_an_unreadable_image_is_skipped_and_listed(
    damaged: tuple[Path, Path, str], script: Callable[..., str], parts: int, caplog: pytest.LogCaptureFixture
) -> None:
    folder, data, name = damaged
    settings = SETTINGS | {"on_bad_image": "skip", "batch": 2, "k": 20}
    passed(script, folder, data, parts, settings)
    about = json.loads((folder / "statistics.json").read_text())
    assert about["images"] == sum(about["class_images"]) == 11
    assert [(one["image"], one["name"]) for one in about["skipped"]] == [(5, name)]
    assert f"left out: image 5, {name}" in caplog.text
    images = Npz(folder / "statistics.npz")["conv1@images"]
    assert (np.sort(images, 1) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]).all()


class Million:
    """A data set of a million image files, of which one more, the last, cannot be read."""

    paths, names = [Path("somewhere")], {1_000_000: "ant/1000000.png"}
    read_images = formats.ImageDataset.read_images

    def __len__(self) -> int:
        return 1_000_001

    def read_image(self, n: int, mode: str) -> Image.Image:
        if n == 1_000_000:
            raise UserError("ant/1000000.png: not an image")
        return Image.new(mode, (40, 40))


@pytest.mark.parametrize("on_bad_image", ["error", "skip"])
def test_an_unreadable_image_in_the_millionth_place(
    on_bad_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "load", lambda folder, split: Million())
    monkeypatch.setattr(cache, "find_cached_images", lambda *asked: None)
    _, preprocessing = build.build_network(
        {"architecture": "torchvision/resnet18", "input": {"size": 40}}, None, 0
    )
    batches = BatchLoader(tmp_path / "ants", "test", preprocessing, 8, on_bad_image)
    (own,) = shards.shard_batches(len(batches) - 1, len(batches), len(batches))
    if on_bad_image == "error":
        with pytest.raises(UserError, match=r"1000000\.png: not an image; mend it, or set datasets\.ants\."):
            list(batches.read_batches([own]))
        return
    before, last = batches.read_batches([own - 1, own])
    assert before.indices.tolist() == list(range(999_992, 1_000_000))
    assert (len(last.indices), len(last.pixels), last.index) == (0, 0, 125_000)
    assert batches.skipped == [
        {"image": 1_000_000, "name": "ant/1000000.png", "reason": "ant/1000000.png: not an image"}
    ]


def test_nothing_is_left_where_no_image_can_be_read(tmp_path: Path, script: Callable[..., str]) -> None:
    folder, data = resnet18(tmp_path / "results/resnet18"), photographs(tmp_path)
    for path in (tmp_path / "source").rglob("*.png"):
        path.write_bytes(b"")
    settings = SETTINGS | {"on_bad_image": "skip"}
    assert not script("dataset_pass", folder, data, settings)
    assert "none of the 12 images" in script("merge_shards", folder, data, settings)


# Shards that do not belong


def test_a_shard_of_another_run_is_refused(
    on_digits: tuple[Path, Path], script: Callable[..., str], tmp_path: Path
) -> None:
    folder, data = on_digits
    passed(script, folder, data, 3)
    merge = lambda settings=SETTINGS, parts=3: script("merge_shards", folder, data, settings, "--shards", parts)  # noqa: E731
    first = folder / "shards/0.npz"
    assert not merge()

    ended = merge(SETTINGS | {"k": 5})
    assert f"error: {first} was made of other settings (settings: k 9, not 5); delete it" in ended
    assert "another split" in merge(SETTINGS | {"split": "train"})
    assert "holds the batches [0, 2] of the set, not those of shard 0 of 2" in merge(parts=2)
    assert "not those of shard 0 of 4" in merge(parts=4)

    with (folder / "weights.safetensors").open("r+b") as weights:
        weights.seek(-1, 2)
        weights.write(b"\x07")
    assert "was made of another network's weights (weights: " in merge()
    other = lenet5(tmp_path / "results/other")
    (folder / "weights.safetensors").write_bytes((other / "weights.safetensors").read_bytes())
    assert not merge()
    description = json.loads((folder / "network.json").read_text())
    changed = description | {"preprocessing": description["preprocessing"] | {"size": 30}}
    write_json(folder / "network.json", changed)
    assert "was made of another network (" in merge()
    write_json(folder / "network.json", description)
    about = json.loads((data / "dataset.json").read_text())
    write_json(data / "dataset.json", about | {"sha256": "0" * 64})
    assert "was made of another data set (dataset: " in merge()
    write_json(data / "dataset.json", about)
    assert not merge()


def test_shards_of_different_batches_do_not_merge(
    on_digits: tuple[Path, Path], script: Callable[..., str]
) -> None:
    folder, data = on_digits
    passed(script, folder, data, 2)
    described, found = shards.read_shard(folder / "shards/1.npz")
    shards.write_shard(folder / "shards/1.npz", described | {"device": "cuda"}, found)
    ended = script("merge_shards", folder, data, SETTINGS, "--shards", 2)
    assert "1.npz does not go with the shards before it (device: cuda, not cpu)" in ended


def test_a_shard_that_there_is_no_space_for_is_told_and_not_made(
    on_digits: tuple[Path, Path], script: Callable[..., str]
) -> None:
    folder, data = on_digits
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        ended = script("dataset_pass", folder, data, SETTINGS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ended == f"error: cannot write {folder / 'shards/0.npz'}: File too large"
    assert not list(folder.glob("shards/*"))


def test_a_shard_holds_no_more_classes_than_its_images_have() -> None:
    network = whole(Plain(3))
    survey = DatasetPass(network, *find_tracked_layers(network, (1, 12, 12), ["conv1"]), 2, 4, 1000)
    with survey:
        for at in range(3):
            numbers = np.arange(4 * at, 4 * at + 4)
            survey.update(at, torch.randn(4, 1, 12, 12), numbers, np.arange(12) // 3 + 990)
    found = survey.result()
    assert [sorted(sums.class_sums) for _, _, sums in found.sums.nodes] == [[990, 991, 992], [992, 993]]
    assert sorted(found.sums.total().class_sums) == [990, 991, 992, 993]


@pytest.mark.parametrize("left", [0, 100, -1, -20_000])
def test_a_truncated_shard_is_named(
    on_digits: tuple[Path, Path], script: Callable[..., str], left: int
) -> None:
    folder, data = on_digits
    passed(script, folder, data, 3)
    before = (folder / "statistics.npz").read_bytes()
    path = folder / "shards/1.npz"
    path.write_bytes(path.read_bytes()[:left])
    ended = script("merge_shards", folder, data, SETTINGS, "--shards", 3)
    assert ended.startswith(f"error: {path} is damaged")
    assert ended.endswith("delete it and run again")
    assert (folder / "statistics.npz").read_bytes() == before


def test_a_file_that_is_no_shard_is_named(on_digits: tuple[Path, Path], script: Callable[..., str]) -> None:
    folder, data = on_digits
    passed(script, folder, data)
    path = folder / "shards/0.npz"
    path.write_bytes((folder / "statistics.npz").read_bytes())
    assert f"{path} is no shard of a pass" in script("merge_shards", folder, data, SETTINGS)


@pytest.mark.parametrize(
    ("settings", "more", "words"),
    [
        ({"layers": ["conv9"]}, (), ["networks.lenet5.views.strongest.layers: no layer 'conv9'", "conv1"]),
        ({}, ("--shard", 3, "--shards", 3), ["--shard 3: there are 3 shards, counted from 0"]),
    ],
)
def test_mistakes_are_told(
    on_digits: tuple[Path, Path],
    script: Callable[..., str],
    settings: dict[str, Any],
    more: tuple[object, ...],
    words: list[str],
) -> None:
    ended = script("dataset_pass", *on_digits, SETTINGS | settings, *more)
    assert all(word in ended for word in ["error: ", *words])


# Reading ahead


def test_batches_come_in_order_and_are_what_the_files_hold(tmp_path: Path) -> None:
    data = photographs(tmp_path)
    _, preprocessing = build.build_network(
        {"architecture": "torchvision/resnet18", "input": {"size": 40}}, None, 0
    )
    batches = BatchLoader(data, "test", preprocessing, 5)
    assert len(batches) == 3
    found = list(batches.read_batches([0, 1, 2]))
    assert [batch.index for batch in found] == [0, 1, 2]
    np.testing.assert_array_equal(np.concatenate([batch.indices for batch in found]), np.arange(12))
    expected = formats.load(data, "test").read_images("RGB", 40, 40)
    np.testing.assert_array_equal(np.concatenate([batch.pixels for batch in found]), expected)
    cache.load_images(data, "test", "RGB", 40, 40)
    for path in (tmp_path / "source").rglob("*.png"):
        path.unlink()
    again = list(
        BatchLoader(data, "test", preprocessing, 5).read_batches([2])
    )  # from what was decoded and kept
    np.testing.assert_array_equal(again[0].pixels, expected[10:])


def test_images_are_read_as_they_are_for_records(tmp_path: Path) -> None:
    """By the network's own interpolation, which is bicubic for some of torchvision's weights."""
    data = photographs(tmp_path)
    how = Preprocessing(32, (0.5,) * 3, (0.5,) * 3, 40, "bicubic")
    test = formats.load(data, "test")
    expected = np.concatenate([how.read_pixels(path).numpy() for path in test.paths])
    for kept in (False, True):
        (batch,) = BatchLoader(data, "test", how, len(test)).read_batches([0])
        np.testing.assert_array_equal(batch.pixels, expected)
        if not kept:
            cache.load_images(data, "test", "RGB", 32, 40)  # another's
            np.testing.assert_array_equal(
                cache.load_images(data, "test", "RGB", 32, 40, "bicubic"), expected
            )
    cpu, reader = torch.device("cpu"), nn.Identity()
    (image,) = sample_images.choose_images({"indices": [3]}, reader, how, test, cpu, "networks.own.images")
    assert torch.equal(image.x, how(torch.from_numpy(expected[3:4])))


def test_what_is_not_asked_for_is_not_read(tmp_path: Path) -> None:
    data = photographs(tmp_path)
    _, preprocessing = build.build_network(
        {"architecture": "torchvision/resnet18", "input": {"size": 40}}, None, 0
    )
    paths = formats.load(data, "test").paths
    for path in paths[4:]:
        Path(str(path)).resolve().unlink()
    batches = BatchLoader(data, "test", preprocessing, 4)
    assert len(list(batches.read_batches(range(1)))) == 1
    with pytest.raises(UserError, match="on_bad_image"):
        list(batches.read_batches(range(2)))


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Leave the number of threads as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
