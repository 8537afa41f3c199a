"""Training and evaluation, against scikit-learn, numpy slices and scripted epochs."""

import copy
import math
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, recall_score
from torch import Tensor, nn

from convatlas.datasets import formats
from convatlas.models.build import build_network
from convatlas.models.preprocessing import Preprocessing
from convatlas.pipeline.config import resolve_config
from convatlas.training import trainer
from convatlas.training.augmentation import random_horizontal_flip, random_shift
from convatlas.training.metrics import classification_metrics
from convatlas.training.labelled_images import LabelledImages, hold_out
from convatlas.training.trainer import evaluate, fit, limit_epochs
from tests.support.workspace import ROOT

SETTINGS: dict[str, Any] = {
    "epochs": 2,
    "max_steps": None,
    "batch_size": 16,
    "lr": 0.01,
    "optimizer": "adamw",
    "schedule": "one_cycle",
    "weight_decay": 0.01,
    "shift": 1,
    "flip": False,
    "crop": 1.0,
    "scale": 1.0,
    "stretch": 0.0,
    "rotate": 0.0,
    "colour": 0.0,
    "ema_decay": 0.0,
    "progressive_resize": None,
    "precision": "float32",
}
Outputs = namedtuple("Outputs", ["auxiliary", "logits"])
PLAIN = Preprocessing(8, (0.0,), (1.0,))


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """One thread: of tensors so small several only wait for each other, long where cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def blobs(n: int, classes: int = 4, seed: int = 0) -> LabelledImages:
    """Noise of 8 x 8 pixels, one bright quarter for each class: soon learnt."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    images = rng.integers(0, 100, (n, 1, 8, 8))
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 120
    return LabelledImages(torch.from_numpy(images.astype(np.uint8)), torch.from_numpy(labels))


def small(*, dropout: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Dropout(0.5 if dropout else 0.0),
        nn.Flatten(),
        nn.Linear(96, 4),
    )


def fitted(seed: int = 0, **settings: Any) -> tuple[nn.Sequential, trainer.TrainingResult]:
    network = small()
    train, validation = hold_out(blobs(150), 0.2, seed)
    return network, fit(network, PLAIN, train, validation, SETTINGS | settings, seed)


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# Reproducibility.


@pytest.mark.parametrize("name", ["lenet5", "simple_cnn"])
def test_the_same_seed_gives_the_same_weights_bit_for_bit(name: str) -> None:
    torch.set_num_threads(2)  # as the scripts have it
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (60, 1, 28, 28), dtype=np.uint8))
    data = LabelledImages(images, torch.from_numpy(rng.integers(0, 10, 60)))
    runs = []
    for _ in range(2):
        network, preprocessing = build_network({"architecture": name}, [str(c) for c in range(10)], seed=1)
        settings = SETTINGS | {"precision": "auto"}
        found = fit(network, preprocessing, *hold_out(data, 0.2, 1), settings, seed=1)
        runs.append((network, found))
    assert same(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]


def test_another_seed_shows_the_images_in_another_order() -> None:
    networks = [small() for _ in range(3)]
    for network, seed in zip(networks, (0, 0, 1), strict=True):
        fit(network, PLAIN, blobs(40), blobs(40), SETTINGS | {"shift": 0}, seed)
    assert same(networks[0], networks[1])
    assert not same(networks[0], networks[2])


def test_the_same_seed_drops_the_same_values() -> None:
    """Wherever torch's own generator stands."""
    network, train = small(dropout=True), blobs(40)
    other = copy.deepcopy(network)
    fit(network, PLAIN, train, train, SETTINGS, seed=0)
    fit(other, PLAIN, train, train, SETTINGS, seed=0)
    assert same(network, other)


# What is trained on.


@pytest.mark.parametrize(("n", "share", "held"), [(100, 0.1, 10), (10, 0.5, 5), (7, 0.3, 2), (5, 0.01, 1)])
def test_the_parts_are_disjoint_and_cover_the_whole(n: int, share: float, held: int) -> None:
    whole = LabelledImages(torch.arange(n).reshape(n, 1, 1, 1), torch.arange(n) + 1000)
    train, validation = hold_out(whole, share, seed=0)
    assert len(validation) == held
    assert sorted([*train.labels.tolist(), *validation.labels.tolist()]) == whole.labels.tolist()
    for part in (train, validation):
        assert torch.equal(part.images.flatten() + 1000, part.labels)


def test_the_parts_are_drawn_from_the_seed() -> None:
    whole = blobs(100)
    drawn = [hold_out(whole, 0.1, seed)[1].images for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], whole.images[:10])


@pytest.mark.parametrize(
    ("epochs", "max_steps", "steps", "expected"),
    [
        *[(30, None, 10, 30), (30, 1000, 10, 30), (30, 300, 10, 30), (30, 299, 10, 30), (30, 290, 10, 29)],
        *[(30, 1, 10, 1), (30, 11, 10, 2), (1, 2200, 469, 1), (30, 2200, 469, 5)],
    ],
)
def test_epochs_within(epochs: int, max_steps: int | None, steps: int, expected: int) -> None:
    assert limit_epochs({"epochs": epochs, "max_steps": max_steps}, steps) == expected


def test_max_steps_ends_training_after_whole_epochs() -> None:
    steps = math.ceil(120 / 16)
    _, found = fitted(epochs=9, max_steps=2 * steps + 1)
    assert [row["epoch"] for row in found.history] == [1, 2, 3]


def test_every_image_is_shown_once_an_epoch() -> None:
    seen: list[float] = []

    class Watched(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                seen.extend((255 * x.flatten()).round().tolist())
            return super().forward(x.flatten(1))

    train = LabelledImages(torch.arange(50, dtype=torch.uint8).reshape(50, 1, 1, 1), torch.arange(50) % 2)
    settings = SETTINGS | {"shift": 0}
    fit(Watched(1, 2), Preprocessing(1, (0.0,), (1.0,)), train, train, settings, seed=0)
    first, second = seen[:50], seen[50:]
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second


# Shifts.


def shifts(image: np.ndarray, most: int) -> dict[tuple[int, int], np.ndarray]:
    """Every shift of an image (C, H, W), each by slices, zeros coming in."""
    _, height, width = image.shape
    found = {}
    for down in range(-most, most + 1):
        for right in range(-most, most + 1):
            moved = np.zeros_like(image)
            source = image[:, max(0, -down) : height - down, max(0, -right) : width - right]
            rows, columns = max(0, down), max(0, right)
            moved[:, rows : rows + source.shape[1], columns : columns + source.shape[2]] = source
            found[down, right] = moved
    return found


@pytest.mark.parametrize("most", [1, 2])
def test_each_image_is_shifted_as_a_whole_by_its_own_random_step(most: int) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (300, 2, 5, 6), dtype=np.uint8)
    moved = random_shift(torch.from_numpy(images), most, torch.Generator().manual_seed(0))[0].numpy()
    assert moved.dtype == np.uint8
    steps = []
    for image, result in zip(images, moved, strict=True):
        steps += [step for step, expected in shifts(image, most).items() if np.array_equal(result, expected)]
    assert len(steps) == 300
    assert len(set(steps)) == (2 * most + 1) ** 2


def test_about_half_of_the_images_are_mirrored() -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, 2, 5, 6), dtype=np.uint8)
    found = random_horizontal_flip(torch.from_numpy(images), torch.Generator().manual_seed(0))[0].numpy()
    mirrored = [np.array_equal(image, given[..., ::-1]) for image, given in zip(found, images, strict=True)]
    same = [np.array_equal(image, given) for image, given in zip(found, images, strict=True)]
    assert sum(same) + sum(mirrored) == 300
    assert 120 < sum(mirrored) < 180


class Heads(nn.Module):
    """Gives more than its logits while it is trained, as googlenet and inception_v3 do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small()

    def forward(self, x: Tensor) -> Any:
        return Outputs(torch.zeros(1), self.inner(x)) if self.training else self.inner(x)


def test_what_more_a_network_gives_is_left_out_of_training() -> None:
    train, validation = hold_out(blobs(200), 0.2, 0)
    heads, plain = Heads(), small()
    fit(heads, PLAIN, train, validation, SETTINGS | {"flip": True}, seed=0)
    fit(plain, PLAIN, train, validation, SETTINGS | {"flip": True}, seed=0)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(heads.inner.state_dict()[name], tensor)


def test_no_shift_leaves_the_images_alone() -> None:
    images = blobs(3).images
    assert torch.equal(random_shift(images, 0, torch.Generator())[0], images)


# The epoch that is kept.


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list]]:
    """Validation that goes as a list of (hits of 10, loss) says, and keeps each epoch's weights."""
    script: dict[str, list] = {"rows": [], "weights": []}

    def validate(network: nn.Module, *_: Any) -> tuple[float, Tensor]:
        hits, loss = script["rows"][len(script["weights"])]
        script["weights"].append(copy.deepcopy(network.state_dict()))
        return loss, torch.tensor([[hits, 10 - hits], [0, 0]])

    monkeypatch.setattr(trainer, "evaluate", validate)
    yield script


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        ([(2, 1.0), (8, 0.5), (5, 0.1)], 2),  # accuracy before loss
        ([(8, 0.5), (8, 0.4), (8, 0.6)], 2),  # of equal accuracy the lower loss
        ([(8, 0.5), (9, 0.4), (9, 0.4), (1, 3.0)], 3),  # of equal rows the later
        ([(9, 0.1), (8, 0.1)], 1),
        ([(0, 5.0)], 1),
        ([(0, math.nan), (0, math.nan)], 1),
    ],
)
def test_the_weights_of_the_best_epoch_are_kept(scripted: dict[str, list], rows: list, best: int) -> None:
    scripted["rows"] = rows
    network, found = fitted(epochs=len(rows))
    assert found.best_epoch == best
    assert [row["validation_accuracy"] for row in found.history] == [hits / 10 for hits, _ in rows]
    ends_of_epochs = scripted["weights"]
    for epoch, weights in enumerate(ends_of_epochs, 1):
        equal = [torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items()]
        assert all(equal) if epoch == best else not any(equal)


def test_the_first_epochs_show_smaller_images() -> None:
    shown = []

    class Watching(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                shown.append(x.shape[-1])
            return super().forward(x)

    network = Watching(nn.Conv2d(1, 4, 3, padding=1), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 4))
    settings = SETTINGS | {"epochs": 5, "progressive_resize": {"size": 5, "share": 0.6}}
    fit(network, PLAIN, *hold_out(blobs(150), 0.2, 0), settings, 0)
    assert shown == [5] * 24 + [8] * 16  # three of the five epochs, eight steps each


def test_what_is_kept_of_an_average_is_the_formulas() -> None:
    """Each step's weights and running statistics, gathered one by one, then averaged by the recurrence."""
    share, steps = 0.8, []

    def made() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 4)
        )

    plain, averaged = made(), made()
    train, validation = hold_out(blobs(150), 0.2, 0)
    settings = SETTINGS | {"epochs": 1}
    step = torch.optim.AdamW.step

    def watched(optimizer: torch.optim.Optimizer, *arguments: Any) -> Any:
        result = step(optimizer, *arguments)
        steps.append(copy.deepcopy(plain.state_dict()))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", watched)
        fit(plain, PLAIN, train, validation, settings, 0)
    fit(averaged, PLAIN, train, validation, settings | {"ema_decay": share}, 0)
    assert len(steps) == 8
    for name, found in averaged.state_dict().items():
        expected = steps[0][name].double()
        for later in steps[1:]:
            expected = share * expected + (1 - share) * later[name].double()
        if found.is_floating_point():
            assert torch.allclose(found.double(), expected, atol=1e-6), name
            assert not torch.equal(found, plain.state_dict()[name])


def test_a_trained_network_is_ready_to_be_used_and_saved() -> None:
    network, found = fitted()
    _, validation = hold_out(blobs(150), 0.2, 0)
    assert not network.training
    assert all(parameter.is_contiguous() for parameter in network.parameters())
    loss, confusion = evaluate(network, PLAIN, validation)
    row = found.history[found.best_epoch - 1]
    assert loss == pytest.approx(row["validation_loss"], rel=1e-5)
    assert trainer.accuracy(confusion) == row["validation_accuracy"]


# Evaluation.


@pytest.mark.parametrize("n", [1, 500, 1203])
def test_evaluation_is_scikit_learns(n: int) -> None:
    """Of one image, of a whole batch and of several with a rest; class 3 of 5 never occurs."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 1, 8, 8), dtype=np.uint8)
    labels = rng.choice([0, 1, 2, 4], n)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    loss, confusion = evaluate(
        network.train(), PLAIN, LabelledImages(torch.from_numpy(images), torch.from_numpy(labels))
    )
    logits = (
        images.reshape(n, 64) / 255 @ network[1].weight.detach().numpy().T + network[1].bias.detach().numpy()
    )
    predicted, classes = logits.argmax(1), list(range(5))
    assert np.array_equal(confusion, confusion_matrix(labels, predicted, labels=classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert loss == pytest.approx(log_loss(labels, probabilities, labels=classes), rel=1e-5)
    found = classification_metrics(confusion, list("abcde"))
    assert found["images"] == n
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    recall = recall_score(labels, predicted, labels=classes, average=None, zero_division=np.nan)
    expected = dict(zip("abcde", [None if math.isnan(r) else r for r in recall], strict=True))
    assert found["class_accuracy"] == pytest.approx(expected)
    assert found["class_accuracy"]["d"] is None
    assert found["confusion"] == confusion.tolist()


# Each way to train.


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_each_optimizer_and_schedule_learns(optimizer: str, schedule: str) -> None:
    network, found = fitted(optimizer=optimizer, schedule=schedule, epochs=14, lr=0.02)
    first, last = found.history[0], found.history[-1]
    assert last["train_loss"] < first["train_loss"] / 2
    assert last["validation_accuracy"] > 0.9
    _, confusion = evaluate(network, PLAIN, blobs(200, seed=1))
    assert trainer.accuracy(confusion) > 0.9


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_a_single_step_is_enough(optimizer: str, schedule: str) -> None:
    network, found = fitted(optimizer=optimizer, schedule=schedule, epochs=1, batch_size=1000)
    assert len(found.history) == 1
    assert not same(network, small())
    assert all(parameter.isfinite().all() for parameter in network.parameters())


def rates(schedule: str, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The learning rate of every step that was really taken, ten epochs of eight."""
    taken: list[float] = []

    class Watched(torch.optim.SGD):
        def step(self, *arguments: Any) -> None:
            taken.append(self.param_groups[0]["lr"])
            super().step(*arguments)

    monkeypatch.setattr(torch.optim, "SGD", Watched)
    fitted(optimizer="sgd", schedule=schedule, epochs=10, lr=0.02)
    assert len(taken) == 80
    return taken


def test_schedules(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rates("constant", monkeypatch) == [0.02] * 80
    cosine = [0.01 * (1 + math.cos(math.pi * step / 80)) for step in range(80)]
    assert rates("cosine", monkeypatch) == pytest.approx(cosine)
    one_cycle = rates("one_cycle", monkeypatch)
    peak = int(np.argmax(one_cycle))
    assert one_cycle[peak] == pytest.approx(0.02)
    assert peak == pytest.approx(0.3 * 80, abs=1)
    assert all(np.diff(one_cycle[: peak + 1]) > 0)
    assert all(np.diff(one_cycle[peak:]) < 0)
    assert one_cycle[-1] < 1e-5


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "auto"])
def test_each_precision_learns_float32_weights(precision: str) -> None:
    network, found = fitted(precision=precision, epochs=6)
    assert found.precision in {"float32", "bfloat16"}
    assert precision in (found.precision, "auto")
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())
    assert found.history[-1]["validation_accuracy"] > 0.9


def mnist_split(mnist: Path, folder: Path, name: str) -> LabelledImages:
    if not (folder / "dataset.json").exists():
        formats.prepare(folder, {"format": "mnist", "source": str(mnist), "mirrors": []}, "datasets.digits")
    examples = formats.load(folder, name)
    return LabelledImages(torch.tensor(examples.read_images("L", 28, 28)), torch.tensor(examples.labels))


def test_lenet5_reaches_99_percent_on_mnist(mnist: Path, tmp_path: Path) -> None:
    """As shipped; half a minute on two cores."""
    train, test = (mnist_split(mnist, tmp_path, name) for name in ("train", "test"))
    shipped = resolve_config(yaml.safe_load((ROOT / "config.yaml").read_text()))["networks"]["lenet5"]
    network, preprocessing = build_network(shipped, [str(digit) for digit in range(10)], seed=0)
    torch.set_num_threads(2)
    fit(network, preprocessing, *hold_out(train, 0.1, 0), shipped["training"], seed=0)
    assert trainer.accuracy(evaluate(network, preprocessing, test)[1]) >= 0.99


def test_lenet5_learns_mnist(mnist: Path, tmp_path: Path) -> None:
    """One epoch of a thirtieth of the real data, for a few seconds."""
    train = mnist_split(mnist, tmp_path, "train")[:2000]
    test = mnist_split(mnist, tmp_path, "test")[:1000]
    assert sum(formats.describe(tmp_path)["counts"]["train"]) == 60_000
    network, preprocessing = build_network({"architecture": "lenet5"}, [str(c) for c in range(10)], seed=0)
    _, before = evaluate(network, preprocessing, test)
    settings = SETTINGS | {"epochs": 1, "batch_size": 32, "lr": 0.003}
    fit(network, preprocessing, *hold_out(train, 0.1, 0), settings, seed=0)
    _, after = evaluate(network, preprocessing, test)
    assert trainer.accuracy(before) < 0.3
    assert trainer.accuracy(after) > 0.75
