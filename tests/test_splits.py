"""The split that each stage uses: each image carries a mark, and the network notes the marks it is given."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convatlas.analysis.concepts.report import write_concepts
from convatlas.analysis.segmentation_report import write_segmentation_analysis
from convatlas.attribution.top_activations import project_top_activations
from convatlas.datasets import formats
from convatlas.datasets.idx import write_idx
from convatlas.datasets.synthetic_pets.generate import draw_pets
from convatlas.files import Npz
from convatlas.statistics.dataset_pass import run_shard
from convatlas.statistics.summary import write_statistics
from convatlas.tracing.record_results import record_results
from convatlas.training.run import train_network

CPU = torch.device("cpu")
STEP = 6  # between the brightness of two images, so that a mark survives JPEG and resizing
NETWORK = '''
from pathlib import Path

from torch import nn

INPUT = {{"size": {size}, "mean": {mean}, "std": {std}}}
LOG = Path("{log}")


class MarkedNetwork(nn.Module):
    """A classifier that writes the mean brightness, 0 to 255, of every image that it is given to a file."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d({channels}, 4, 3)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4, {classes})

    def forward(self, x):
        with LOG.open("a") as log:
            for value in x.detach().numpy().mean((1, 2, 3)):
                print("train" if self.training else "eval", 255 * value, file=log)
        return self.fc(self.pool(self.conv(x)).flatten(1))


def build():
    return MarkedNetwork()
'''
TRAINING: dict[str, Any] = {
    "epochs": 2, "max_steps": None, "batch_size": 8, "lr": 0.01, "optimizer": "sgd", "schedule": "constant",
    "weight_decay": 0.0, "progressive_resize": None, "ema_decay": 0.0, "validation": 0.25, "shift": 0,
    "flip": True, "crop": 1.0, "scale": 1.0, "stretch": 0.0, "rotate": 0.0, "colour": 0.0,
    "precision": "float32",
}  # fmt: skip


class MarkedImages:
    """A network, a data set of marked images, and the marks that the network was given.

    The mark of an image is its brightness, STEP times its number: training images are numbered from 1, and
    test images go on from there. The brightness 0 is that of images made up to pad a batch or try a shape;
    brightness between the steps is that of noise, on which it is decided what the output means.
    """

    def __init__(self, folder: Path, channels: int, size: int, train: int, test: int) -> None:
        self.train = set(range(1, train + 1))
        self.test = set(range(train + 1, train + test + 1))
        self.log = folder / "marks.txt"
        self.output = folder / "results/marked"
        self.data = folder / "data"
        mean, std = [0.0] * channels, [1.0] * channels
        source = NETWORK.format(size=size, mean=mean, std=std, log=self.log, channels=channels, classes=2)
        (folder / "net.py").write_text(source)
        self.architecture = f"{folder}/net.py:build"

    def fit(self) -> None:
        """Train the network on the data set and evaluate it."""
        settings: Any = {
            "architecture": self.architecture, "arguments": {}, "input": {}, "training": TRAINING,
            "dataset": "data", "mirrors": [], "downsample_name": "downsample",
        }  # fmt: skip
        train_network("marked", settings, self.output, self.data, device="cpu", threads=1)

    def take_marks(self, mode: str = "eval") -> list[int]:
        """Return the numbers of the images that the network was given in a mode so far, in order."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        marks = [float(value) / STEP for line_mode, value in lines if line_mode == mode]
        return [round(mark) for mark in marks if abs(mark - round(mark)) < 0.05 and round(mark)]

    def forget(self) -> None:
        """Forget the marks so far."""
        self.log.write_text("")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> MarkedImages:
    """A trained network and its data set in MNIST's format: 24 training and 8 test images, of two classes."""
    folder = tmp_path_factory.mktemp("digits")
    marked = MarkedImages(folder, 1, 28, train=24, test=8)
    for split, numbers in (("train", marked.train), ("t10k", marked.test)):
        marks = np.array(sorted(numbers))
        images = np.broadcast_to(STEP * marks[:, None, None], (len(marks), 28, 28))
        write_idx(folder / f"source/MNIST/raw/{split}-images-idx3-ubyte", images)
        write_idx(folder / f"source/MNIST/raw/{split}-labels-idx1-ubyte", marks % 2)
    settings: Any = {"format": "mnist", "mirrors": [], "source": str(folder / "source")}
    formats.prepare(marked.data, settings, "datasets.data")
    marked.fit()
    return marked


@pytest.fixture(scope="module")
def fit_marks(digits: MarkedImages) -> dict[str, list[int]]:
    """The images that the network was given during training, in training and in evaluation mode."""
    return {mode: digits.take_marks(mode) for mode in ("train", "eval")}


def test_a_network_is_trained_on_training_images_only(
    digits: MarkedImages, fit_marks: dict[str, list[int]]
) -> None:
    """A quarter of them is held out, and each other one is used once per epoch."""
    trained = set(fit_marks["train"])
    assert trained < digits.train
    assert len(trained) == 18
    assert sorted(fit_marks["train"]) == sorted([*trained, *trained])


def test_the_best_epoch_is_chosen_on_held_out_training_images(
    digits: MarkedImages, fit_marks: dict[str, list[int]]
) -> None:
    held_out = digits.train - set(fit_marks["train"])
    assert len(held_out) == 6
    validation, tested = fit_marks["eval"][:12], fit_marks["eval"][12:]
    assert sorted(validation) == sorted([*held_out, *held_out])  # once per epoch
    assert not set(tested) & digits.train


def test_a_network_is_evaluated_once_on_the_test_images(
    digits: MarkedImages, fit_marks: dict[str, list[int]]
) -> None:
    assert sorted(fit_marks["eval"][12:]) == sorted(digits.test)
    metrics = json.loads((digits.output / "metrics.json").read_text())
    assert metrics["images"] == len(digits.test)
    assert np.sum(metrics["confusion"]) == len(digits.test)


def test_sample_images_are_test_images(digits: MarkedImages, fit_marks: dict[str, list[int]]) -> None:
    digits.forget()
    settings: Any = {
        "images": {"first": 2, "indices": [7]},
        "record": {"dtype": "float32", "compress": False, "verify": False},
        "downsample_name": "downsample", "layers": [], "explored_layers": "all",
    }  # fmt: skip
    record_results(digits.output, settings, CPU, digits.data)
    first, second, *_, last = sorted(digits.test)
    assert digits.take_marks() == [first, second, last]
    images = json.loads((digits.output / "images.json").read_text())
    assert [(image["split"], image["index"]) for image in images] == [("test", 0), ("test", 1), ("test", 7)]
    for image, number in zip(images, (first, second, last), strict=True):
        recorded = Npz(digits.output / f"activations/{image['name']}.npz")["input"]
        np.testing.assert_allclose(255 * recorded, STEP * number, atol=0.01)


@pytest.mark.parametrize("split", ["test", "train"])
def test_statistics_are_those_of_the_split_in_the_settings(
    digits: MarkedImages, fit_marks: dict[str, list[int]], split: str
) -> None:
    settings: Any = {"layers": ["conv"], "k": 3, "split": split, "batch": 5, "on_bad_image": "error"}
    write_layers(digits)
    digits.forget()
    for shard in range(2):
        run_shard(digits.output, digits.data, settings, shard, 2, CPU)
    write_statistics(digits.output, digits.data, settings, 2)
    assert digits.take_marks() == sorted(digits.test if split == "test" else digits.train)
    statistics = json.loads((digits.output / "statistics.json").read_text())
    assert statistics["split"] == split
    assert statistics["images"] == len(digits.test if split == "test" else digits.train)


def write_layers(marked: MarkedImages) -> None:
    """Write layers.json by recording one image."""
    settings: Any = {
        "images": {"first": 1}, "record": {"dtype": "float32", "compress": False, "verify": False},
        "downsample_name": "downsample", "layers": [], "explored_layers": "all",
    }  # fmt: skip
    record_results(marked.output, settings, CPU, marked.data)


def test_projected_top_activations_are_those_of_the_split_in_the_statistics(
    digits: MarkedImages, fit_marks: dict[str, list[int]]
) -> None:
    settings: Any = {"layers": ["conv"], "k": 2, "split": "train", "batch": None, "on_bad_image": "error"}
    write_layers(digits)
    run_shard(digits.output, digits.data, settings, 0, 1, CPU)
    write_statistics(digits.output, digits.data, settings)
    projection: Any = {"project": ["conv"], "units": "all", "relevance": None, "rectify": False}
    project_top_activations(digits.output, digits.data, projection, CPU)
    arrays = Npz(digits.output / "strongest.npz")
    marks = np.nanmean(255 * arrays["conv@patches"], axis=(2, 3, 4)) / STEP
    np.testing.assert_allclose(marks, arrays["conv@images"] + 1, atol=0.01)
    assert set(marks.round().astype(int).flatten()) <= digits.train


def test_kinds_of_image_are_chosen_on_training_images_and_tested_on_test_images(
    digits: MarkedImages, fit_marks: dict[str, list[int]]
) -> None:
    settings: Any = {"layers": None, "train": 12, "test": 7, "image_value": "mean"}
    write_layers(digits)
    digits.forget()
    write_concepts(digits.output, digits.data, settings, CPU)
    marks = digits.take_marks()
    n_train = 1 + 12 + 12  # one image alone and all in a batch, which are compared, and all again
    assert set(marks[:n_train]) < digits.train
    assert set(marks[n_train:]) < digits.test
    analysis = json.loads((digits.output / "concepts/concepts.json").read_text())
    assert analysis["images"] == {"train": 12, "test": 7}
    assert [concept["name"] for concept in analysis["concepts"]] == ["0", "1"]
    for concept in analysis["concepts"]:
        shown = [mark for mark in marks[n_train : n_train + 7] if mark % 2 == int(concept["name"])]
        assert concept["test"] == len(shown)


def test_thresholds_are_chosen_on_training_images_and_measured_on_test_images(tmp_path: Path) -> None:
    """Two passes over a sample of the training split, then one over a sample of the test split."""
    marked = MarkedImages(tmp_path, 3, 32, train=24, test=12)
    source = tmp_path / "source"
    source.mkdir()
    draw_pets(source, count=36)
    lists = [source / "annotations/trainval.txt", source / "annotations/test.txt"]
    names = [line.split()[0] for path in lists for line in path.read_text().splitlines()]
    for number, name in enumerate(names, 1):
        path = source / f"images/{name}.jpg"
        size = Image.open(path).size
        Image.new("RGB", size, (STEP * number,) * 3).save(path, quality=95)
    settings: Any = {
        "format": "oxford-iiit-pet", "source": str(source), "mirrors": [], "target": "species",
        "on_bad_image": "error",
    }  # fmt: skip
    formats.prepare(marked.data, settings, "datasets.data")
    marked.fit()
    trained, tested = set(marked.take_marks("train")), set(marked.take_marks()[-12:])
    assert trained < marked.train
    assert tested == marked.test
    write_layers(marked)

    marked.forget()
    write_segmentation_analysis(marked.output, marked.data, {"train": 6, "test": 5}, CPU)
    marks = marked.take_marks()
    assert len(marks) == 6 + 6 + 5
    assert marks[:6] == marks[6:12]
    assert set(marks[:12]) < marked.train
    assert set(marks[12:]) < marked.test

    marked.forget()
    concepts: Any = {"layers": ["conv"], "train": 7, "test": 6, "image_value": "max"}
    write_concepts(marked.output, marked.data, concepts, CPU)
    marks = marked.take_marks()
    values, test_values, counts, rest = marks[8:15], marks[15:21], marks[21:28], marks[28:]
    assert values == counts == marks[1:8]
    assert set(values) < marked.train
    assert set(test_values) == set(rest) < marked.test
    analysis = json.loads((marked.output / "concepts/concepts.json").read_text())
    regions = [concept for concept in analysis["concepts"] if concept["type"] == "region"]
    assert [region["name"] for region in regions] == ["pet", "background", "border", "head"]
    assert all((region["train"], region["test"]) == (7, 6) for region in regions)
