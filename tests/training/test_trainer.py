"""Training and evaluation, against scikit-learn, numpy slices and scripted epochs."""

import copy
import math
import re
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, recall_score
from torch import Tensor, nn

from convatlas import UserError
from convatlas.datasets import formats
from convatlas.models.build import build_network
from convatlas.models.outputs import Output
from convatlas.models.preprocessing import Preprocessing
from convatlas.pipeline.config import resolve_config
from convatlas.pixels import GREY
from convatlas.training import trainer
from convatlas.training.augmentation import random_horizontal_flip, random_shift
from convatlas.training.checkpoint import Checkpoint
from convatlas.training.evaluation import NonFiniteScoresError, evaluate
from convatlas.training.labelled_images import LabelledImages, hold_out, load_training_splits
from convatlas.training.metrics import classification_metrics
from convatlas.training.trainer import DivergedError, fit, limit_epochs
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
def one_thread() -> Iterator[None]:
    """Compute with one thread: for tensors as small as these, several mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_blobs(n: int, classes: int = 4, seed: int = 0) -> LabelledImages:
    """Return noise of 8 × 8 pixels with a bright quarter, which is the class: easy to learn."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    images = rng.integers(0, 100, (n, 1, 8, 8))
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 120
    return LabelledImages(torch.from_numpy(images.astype(np.uint8)), torch.from_numpy(labels))


def build_small(*, dropout: bool = False) -> nn.Sequential:
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


def train_small(seed: int = 0, **settings: Any) -> tuple[nn.Sequential, trainer.TrainingResult]:
    """Train the small network on blobs with some other settings."""
    network = build_small()
    train, validation = hold_out(make_blobs(150), 0.2, seed)
    return network, fit(network, PLAIN, train, validation, SETTINGS | settings, seed)


def have_equal_weights(one: nn.Module, other: nn.Module) -> bool:
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
        result = fit(network, preprocessing, *hold_out(data, 0.2, 1), settings, seed=1)
        runs.append((network, result))
    assert have_equal_weights(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]


def test_the_seed_determines_the_order_of_the_images() -> None:
    networks = [build_small() for _ in range(3)]
    for network, seed in zip(networks, (0, 0, 1), strict=True):
        fit(network, PLAIN, make_blobs(40), make_blobs(40), SETTINGS | {"shift": 0}, seed)
    assert have_equal_weights(networks[0], networks[1])
    assert not have_equal_weights(networks[0], networks[2])


def test_the_same_seed_drops_the_same_values() -> None:
    """Whatever the state of torch's global generator."""
    network, train = build_small(dropout=True), make_blobs(40)
    other = copy.deepcopy(network)
    fit(network, PLAIN, train, train, SETTINGS, seed=0)
    fit(other, PLAIN, train, train, SETTINGS, seed=0)
    assert have_equal_weights(network, other)


# The training and validation images.


@pytest.mark.parametrize(
    ("n", "fraction", "count"), [(100, 0.1, 10), (10, 0.5, 5), (7, 0.3, 2), (5, 0.01, 1)]
)
def test_training_and_validation_images_do_not_overlap(n: int, fraction: float, count: int) -> None:
    split = LabelledImages(torch.arange(n).reshape(n, 1, 1, 1), torch.arange(n) + 1000)
    train, validation = hold_out(split, fraction, seed=0)
    assert len(validation) == count
    assert sorted([*train.labels.tolist(), *validation.labels.tolist()]) == split.labels.tolist()
    for part in (train, validation):
        assert torch.equal(part.images.flatten() + 1000, part.labels)


def test_the_validation_images_are_drawn_from_the_seed() -> None:
    split = make_blobs(100)
    drawn = [hold_out(split, 0.1, seed)[1].images for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], split.images[:10])


def test_loaded_training_and_validation_images_do_not_overlap(tmp_path: Path) -> None:
    """Of image files of one grey value each; those to be cropped are loaded twice as large."""
    values = range(5, 250, 5)
    for value in values:
        (tmp_path / f"files/{value % 2}").mkdir(parents=True, exist_ok=True)
        Image.new("L", (20, 20), value).save(tmp_path / f"files/{value % 2}/{value}.png")
    settings = {"source": str(tmp_path / "files"), "test_share": 0.2, "on_bad_image": "error", "mirrors": []}
    formats.prepare(tmp_path / "data", {"format": "images"} | settings, "datasets.grey")
    train, validation = load_training_splits(
        tmp_path / "data", PLAIN, False, validation=0.3, crop=0.5, seed=0, device=torch.device("cpu")
    )
    assert train.images.shape[1:] == (1, 16, 16)
    assert validation.images.shape[1:] == (1, 8, 8)
    shown = [set(split.images[:, 0, 0, 0].tolist()) for split in (train, validation)]
    files = {Path(path or "").stem for path in formats.load(tmp_path / "data", "train").paths}
    assert not shown[0] & shown[1]
    assert shown[0] | shown[1] == {int(name) for name in files}
    assert len(validation) == round(0.3 * len(files))
    for split in (train, validation):
        assert torch.equal(split.images[:, 0, 0, 0] % 2, split.labels)


@pytest.mark.parametrize(
    ("epochs", "max_steps", "steps", "expected"),
    [
        *[(30, None, 10, 30), (30, 1000, 10, 30), (30, 300, 10, 30), (30, 299, 10, 30), (30, 290, 10, 29)],
        *[(30, 1, 10, 1), (30, 11, 10, 2), (1, 2200, 469, 1), (30, 2200, 469, 5)],
    ],
)
def test_max_steps_limits_the_epochs(epochs: int, max_steps: int | None, steps: int, expected: int) -> None:
    assert limit_epochs({"epochs": epochs, "max_steps": max_steps}, steps) == expected


def test_max_steps_ends_training_after_whole_epochs() -> None:
    steps = math.ceil(120 / 16)
    _, result = train_small(epochs=9, max_steps=2 * steps + 1)
    assert [row["epoch"] for row in result.history] == [1, 2, 3]


def test_every_image_is_shown_once_per_epoch() -> None:
    shown: list[float] = []

    class RecordingLinear(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                shown.extend((255 * x.flatten()).round().tolist())
            return super().forward(x.flatten(1))

    train = LabelledImages(torch.arange(50, dtype=torch.uint8).reshape(50, 1, 1, 1), torch.arange(50) % 2)
    settings = SETTINGS | {"shift": 0}
    fit(RecordingLinear(1, 2), Preprocessing(1, (0.0,), (1.0,)), train, train, settings, seed=0)
    first, second = shown[:50], shown[50:]
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second


def test_a_network_that_needs_contiguous_maps_is_trained_and_evaluated() -> None:
    """Like an equal network with `flatten()` instead of `view()`."""

    class ViewNetwork(nn.Module):
        def __init__(self, use_view: bool) -> None:
            super().__init__()
            self.use_view = use_view
            self.conv1, self.pool = nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2)
            self.conv2, self.fc = nn.Conv2d(4, 6, 3, padding=1), nn.Linear(96, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv2(self.pool(self.conv1(x)).relu())
            return self.fc(x.view(-1, 96) if self.use_view else x.flatten(1))

    networks, images = [ViewNetwork(True), ViewNetwork(False)], make_blobs(40)
    networks[1].load_state_dict(networks[0].state_dict())
    with_view, with_flatten = (fit(net, PLAIN, images, images, SETTINGS, seed=0) for net in networks)
    for row, expected in zip(with_view.history, with_flatten.history, strict=True):
        assert row == pytest.approx(expected, rel=1e-4)
    loss, confusion = evaluate(networks[0], PLAIN, images)
    logits = networks[0](PLAIN(images.images)).detach()
    assert loss == pytest.approx(float(nn.functional.cross_entropy(logits, images.labels)), rel=1e-5)
    assert float(confusion.trace()) == int((logits.argmax(1) == images.labels).sum())


def test_a_network_that_squeezes_its_output_is_trained_on_a_last_batch_of_one() -> None:
    class Squeezed(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).squeeze()

    network, plain = Squeezed(nn.Conv2d(1, 4, 8)), nn.Sequential(nn.Conv2d(1, 4, 8), nn.Flatten())
    images = make_blobs(17)
    plain.load_state_dict(network.state_dict())
    settings = SETTINGS | {"shift": 0}  # batches of 16 and of one image
    history = [fit(net, PLAIN, images, make_blobs(1), settings, seed=0).history for net in (network, plain)]
    assert history[0] == history[1]


@pytest.mark.parametrize("n", [1, 16, 50])
def test_the_training_loss_and_accuracy_are_means_over_all_images(n: int) -> None:
    """Of a network that does not change: as in its evaluation, in batches of 16 and a smaller last one."""
    network, images = build_small(), make_blobs(n)
    settings = SETTINGS | {"lr": 1e-30, "optimizer": "sgd", "schedule": "constant", "shift": 0, "epochs": 1}
    row = fit(network, PLAIN, images, images, settings, seed=0).history[0]
    loss, confusion = evaluate(network, PLAIN, images)
    assert row["train_loss"] == pytest.approx(loss, rel=1e-5)
    assert row["validation_loss"] == pytest.approx(loss, rel=1e-5)
    assert row["train_accuracy"] == trainer.accuracy(confusion)
    logits = network(PLAIN(images.images)).detach().numpy()
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert loss == pytest.approx(log_loss(images.labels, probabilities, labels=range(4)), rel=1e-5)


# Shifts.


def list_shifts(image: np.ndarray, max_shift: int) -> dict[tuple[int, int], np.ndarray]:
    """Return every shift of an image (C, H, W), by slices, with zeros from outside."""
    _, height, width = image.shape
    shifts = {}
    for down in range(-max_shift, max_shift + 1):
        for right in range(-max_shift, max_shift + 1):
            shifted = np.zeros_like(image)
            source = image[:, max(0, -down) : height - down, max(0, -right) : width - right]
            rows, columns = max(0, down), max(0, right)
            shifted[:, rows : rows + source.shape[1], columns : columns + source.shape[2]] = source
            shifts[down, right] = shifted
    return shifts


@pytest.mark.parametrize("max_shift", [1, 2])
def test_each_image_is_shifted_by_a_random_step_of_its_own(max_shift: int) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (300, 2, 5, 6), dtype=np.uint8)
    shifted = random_shift(torch.from_numpy(images), max_shift, torch.Generator().manual_seed(0))[0].numpy()
    assert shifted.dtype == np.uint8
    steps = []
    for image, result in zip(images, shifted, strict=True):
        shifts = list_shifts(image, max_shift)
        steps += [step for step, expected in shifts.items() if np.array_equal(result, expected)]
    assert len(steps) == 300
    assert len(set(steps)) == (2 * max_shift + 1) ** 2


def test_about_half_of_the_images_are_flipped() -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, 2, 5, 6), dtype=np.uint8)
    results = random_horizontal_flip(torch.from_numpy(images), torch.Generator().manual_seed(0))[0].numpy()
    is_flipped = [np.array_equal(a, image[..., ::-1]) for a, image in zip(results, images, strict=True)]
    is_equal = [np.array_equal(a, image) for a, image in zip(results, images, strict=True)]
    assert sum(is_equal) + sum(is_flipped) == 300
    assert 120 < sum(is_flipped) < 180


class AuxiliaryOutput(nn.Module):
    """Returns more than its logits in training, as googlenet and inception_v3 do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = build_small()

    def forward(self, x: Tensor) -> Any:
        return Outputs(torch.zeros(1), self.inner(x)) if self.training else self.inner(x)


def test_auxiliary_outputs_are_not_trained() -> None:
    train, validation = hold_out(make_blobs(200), 0.2, 0)
    network, plain = AuxiliaryOutput(), build_small()
    fit(network, PLAIN, train, validation, SETTINGS | {"flip": True}, seed=0)
    fit(plain, PLAIN, train, validation, SETTINGS | {"flip": True}, seed=0)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(network.inner.state_dict()[name], tensor)


def test_a_shift_of_zero_changes_nothing() -> None:
    images = make_blobs(3).images
    assert torch.equal(random_shift(images, 0, torch.Generator())[0], images)


# The best epoch.


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list]]:
    """Validation with scripted results, rows of (correct of 10, loss), which records each epoch's weights."""
    script: dict[str, list] = {"rows": [], "weights": []}

    def validate(network: nn.Module, *_: Any) -> tuple[float, Tensor]:
        correct, loss = script["rows"][len(script["weights"])]
        script["weights"].append(copy.deepcopy(network.state_dict()))
        return loss, torch.tensor([[correct, 10 - correct], [0, 0]])

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
    network, result = train_small(epochs=len(rows))
    assert result.best_epoch == best
    assert [row["validation_accuracy"] for row in result.history] == [correct / 10 for correct, _ in rows]
    for epoch, weights in enumerate(scripted["weights"], 1):
        equal = [torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items()]
        assert all(equal) if epoch == best else not any(equal)


def test_the_first_epochs_show_smaller_images() -> None:
    sizes = []

    class RecordingSequential(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                sizes.append(x.shape[-1])
            return super().forward(x)

    network = RecordingSequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 4)
    )
    settings = SETTINGS | {"epochs": 5, "progressive_resize": {"size": 5, "share": 0.6}}
    fit(network, PLAIN, *hold_out(make_blobs(150), 0.2, 0), settings, 0)
    assert sizes == [5] * 24 + [8] * 16  # three of the five epochs, eight steps each


def test_oblong_images_and_masks_are_trained_at_their_aspect_ratio() -> None:
    """Its first epoch at half the size; masks are resized as the images are."""
    shapes = []

    class RecordingConv(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            shapes.append(tuple(x.shape[2:]))
            return super().forward(x)

    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(2, (24, 6, 16), generator=generator, dtype=torch.uint8)
    split = LabelledImages(255 * masks[:, None], masks)
    settings = SETTINGS | {"epochs": 2, "progressive_resize": {"size": 3, "share": 0.5}, "rotate": 5.0}
    preprocessing = Preprocessing((6, 16), (0.0,), (1.0,))
    result = fit(RecordingConv(1, 2, 1), preprocessing, split, split, settings, 0)
    assert {*shapes} == {(3, 8), (6, 16)} and shapes[-1] == (6, 16)
    assert len(result.history) == 2


def test_the_moving_average_is_that_of_its_formula() -> None:
    """Of the weights and running statistics of each step, averaged by the recurrence."""
    decay, steps = 0.8, []

    def build() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 4)
        )

    plain, averaged = build(), build()
    train, validation = hold_out(make_blobs(150), 0.2, 0)
    settings = SETTINGS | {"epochs": 1}
    step = torch.optim.AdamW.step

    def recorded_step(optimizer: torch.optim.Optimizer, *arguments: Any) -> Any:
        result = step(optimizer, *arguments)
        steps.append(copy.deepcopy(plain.state_dict()))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", recorded_step)
        fit(plain, PLAIN, train, validation, settings, 0)
    fit(averaged, PLAIN, train, validation, settings | {"ema_decay": decay}, 0)
    assert len(steps) == 8
    for name, average in averaged.state_dict().items():
        expected = steps[0][name].double()
        for later in steps[1:]:
            expected = decay * expected + (1 - decay) * later[name].double()
        if average.is_floating_point():
            assert torch.allclose(average.double(), expected, atol=1e-6), name
            assert not torch.equal(average, plain.state_dict()[name])


class Annotated(nn.ReLU):
    """Holds extra state that is no tensor."""

    def get_extra_state(self) -> dict[str, str]:
        return {"note": "a rectifier"}

    def set_extra_state(self, state: dict[str, str]) -> None:
        assert state == {"note": "a rectifier"}


def test_extra_state_changes_no_training_and_its_checkpoints(tmp_path: Path) -> None:
    train, validation = hold_out(make_blobs(150), 0.2, 0)
    networks = []
    for activation in (nn.ReLU(), Annotated()):
        network = build_small()
        network[1] = activation
        checkpoint = Checkpoint(tmp_path / type(activation).__name__, {})
        settings = SETTINGS | {"ema_decay": 0.9, "epochs": 2}
        fit(network, PLAIN, train, validation, settings, 0, checkpoint)
        resumed = build_small()
        resumed[1] = activation
        fit(resumed, PLAIN, train, validation, settings, 0, checkpoint)
        networks += [network, resumed]
    for network in networks[1:]:
        assert torch.equal(network[6].weight, networks[0][6].weight)


def test_a_trained_network_is_in_evaluation_mode_and_contiguous() -> None:
    network, result = train_small()
    _, validation = hold_out(make_blobs(150), 0.2, 0)
    assert not network.training
    assert all(parameter.is_contiguous() for parameter in network.parameters())
    loss, confusion = evaluate(network, PLAIN, validation)
    row = result.history[result.best_epoch - 1]
    assert loss == pytest.approx(row["validation_loss"], rel=1e-5)
    assert trainer.accuracy(confusion) == row["validation_accuracy"]


# Outputs of other kinds than logits of as many classes.


def test_one_logit_is_trained_to_tell_two_classes_apart() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 8), nn.ReLU(), nn.Flatten(), nn.Linear(4, 1))
    images, output = make_blobs(60, classes=2), Output("sigmoid", "", (1,), 2)
    history = fit(network, PLAIN, images, images, SETTINGS, seed=0, output=output).history
    logits, labels = network(PLAIN(images.images)).detach()[:, 0], images.labels
    loss, confusion = evaluate(network, PLAIN, images, output=output)
    expected = nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
    assert loss == pytest.approx(float(expected), rel=1e-5)
    assert loss < history[0]["train_loss"]
    assert np.array_equal(confusion, confusion_matrix(labels, logits > 0))


def test_scores_of_pixels_at_a_quarter_of_the_resolution_are_enlarged() -> None:
    torch.manual_seed(0)
    network, images = nn.Conv2d(1, 3, 4, stride=4), make_blobs(20)
    masks = torch.randint(0, 3, (20, 8, 8), dtype=torch.uint8)
    output = Output("softmax", "", (3, 2, 2), 3)
    loss, confusion = evaluate(network, PLAIN, LabelledImages(images.images, masks), output=output)
    scores = network(PLAIN(images.images)).detach()
    scores = nn.functional.interpolate(scores, size=(8, 8), mode="bilinear")
    assert loss == pytest.approx(float(nn.functional.cross_entropy(scores, masks.long())), rel=1e-5)
    assert np.array_equal(confusion, confusion_matrix(masks.flatten(), scores.argmax(1).flatten()))
    fit(
        network,
        PLAIN,
        LabelledImages(images.images, masks),
        LabelledImages(images.images, masks),
        SETTINGS,
        seed=0,
        output=output,
    )
    assert evaluate(network, PLAIN, LabelledImages(images.images, masks), output=output)[0] < loss


def test_an_output_without_scores_of_each_image_is_an_error() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Flatten(0))
    with pytest.raises(UserError, match=r"batch of 1 images has no class scores .* \(4,\)"):
        evaluate(network, PLAIN, make_blobs(1), output=Output("softmax", "", (5,), 5))


# Evaluation.


@pytest.mark.parametrize("n", [1, 500, 1203])
def test_evaluation_is_scikit_learns(n: int) -> None:
    """Of one image, one batch, and several batches with a smaller last one; class 3 of 5 never occurs."""
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
    metrics = classification_metrics(confusion, list("abcde"))
    assert metrics["images"] == n
    assert metrics["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    recall = recall_score(labels, predicted, labels=classes, average=None, zero_division=np.nan)
    expected = dict(zip("abcde", [None if math.isnan(r) else r for r in recall], strict=True))
    assert metrics["class_accuracy"] == pytest.approx(expected)
    assert metrics["class_accuracy"]["d"] is None
    assert metrics["confusion"] == confusion.tolist()


# Optimisers, schedules and precisions.


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_each_optimizer_and_schedule_learns(optimizer: str, schedule: str) -> None:
    network, result = train_small(optimizer=optimizer, schedule=schedule, epochs=14, lr=0.02)
    first, last = result.history[0], result.history[-1]
    assert last["train_loss"] < first["train_loss"] / 2
    assert last["validation_accuracy"] > 0.9
    _, confusion = evaluate(network, PLAIN, make_blobs(200, seed=1))
    assert trainer.accuracy(confusion) > 0.9


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_a_single_step_is_enough(optimizer: str, schedule: str) -> None:
    network, result = train_small(optimizer=optimizer, schedule=schedule, epochs=1, batch_size=1000)
    assert len(result.history) == 1
    assert not have_equal_weights(network, build_small())
    assert all(parameter.isfinite().all() for parameter in network.parameters())


def list_learning_rates(schedule: str, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Train, and return the learning rates of the optimiser's steps: ten epochs of eight."""
    rates: list[float] = []

    class RecordingSGD(torch.optim.SGD):
        def step(self, *arguments: Any) -> None:
            rates.append(self.param_groups[0]["lr"])
            super().step(*arguments)

    monkeypatch.setattr(torch.optim, "SGD", RecordingSGD)
    train_small(optimizer="sgd", schedule=schedule, epochs=10, lr=0.02)
    assert len(rates) == 80
    return rates


def test_schedules(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list_learning_rates("constant", monkeypatch) == [0.02] * 80
    cosine = [0.01 * (1 + math.cos(math.pi * step / 80)) for step in range(80)]
    assert list_learning_rates("cosine", monkeypatch) == pytest.approx(cosine)
    one_cycle = list_learning_rates("one_cycle", monkeypatch)
    peak = int(np.argmax(one_cycle))
    assert one_cycle[peak] == pytest.approx(0.02)
    assert peak == pytest.approx(0.3 * 80, abs=1)
    assert all(np.diff(one_cycle[: peak + 1]) > 0)
    assert all(np.diff(one_cycle[peak:]) < 0)
    assert one_cycle[-1] < 1e-5


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "auto"])
def test_each_precision_learns_float32_weights(precision: str) -> None:
    network, result = train_small(precision=precision, epochs=6)
    assert result.precision in {"float32", "bfloat16"}
    assert precision in (result.precision, "auto")
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())
    assert result.history[-1]["validation_accuracy"] > 0.9


def load_mnist(mnist: Path, folder: Path, name: str) -> LabelledImages:
    """Return a split of the real MNIST."""
    if not (folder / "dataset.json").exists():
        formats.prepare(folder, {"format": "mnist", "source": str(mnist), "mirrors": []}, "datasets.digits")
    split = formats.load(folder, name)
    return LabelledImages(torch.tensor(split.read_images(GREY, (28, 28), 28)), torch.tensor(split.labels))


def test_lenet5_reaches_99_percent_on_mnist(mnist: Path, tmp_path: Path) -> None:
    """As shipped; half a minute on one core."""
    train, test = (load_mnist(mnist, tmp_path, name) for name in ("train", "test"))
    shipped = resolve_config(yaml.safe_load((ROOT / "config.yaml").read_text()))["networks"]["lenet5"]
    network, preprocessing = build_network(shipped, [str(digit) for digit in range(10)], seed=0)
    fit(network, preprocessing, *hold_out(train, 0.1, 0), shipped["training"], seed=0)
    assert trainer.accuracy(evaluate(network, preprocessing, test)[1]) >= 0.99


def test_lenet5_learns_mnist(mnist: Path, tmp_path: Path) -> None:
    """In one epoch of a thirtieth of the real data."""
    train = load_mnist(mnist, tmp_path, "train")[:2000]
    test = load_mnist(mnist, tmp_path, "test")[:1000]
    assert sum(formats.describe(tmp_path)["counts"]["train"]) == 60_000
    network, preprocessing = build_network({"architecture": "lenet5"}, [str(c) for c in range(10)], seed=0)
    _, before = evaluate(network, preprocessing, test)
    settings = SETTINGS | {"epochs": 1, "batch_size": 32, "lr": 0.003}
    fit(network, preprocessing, *hold_out(train, 0.1, 0), settings, seed=0)
    _, after = evaluate(network, preprocessing, test)
    assert trainer.accuracy(before) < 0.3
    assert trainer.accuracy(after) > 0.75


# Divergence.


def diverge(network: nn.Module | None = None, checkpoint: Checkpoint | None = None, **settings: Any) -> str:
    """Train with a learning rate at which training diverges, and return the message."""
    images = make_blobs(64)
    values = {**SETTINGS, "optimizer": "sgd", "schedule": "constant", "lr": 1e6, "epochs": 3, **settings}
    with pytest.raises(DivergedError) as caught:
        fit(network or build_small(), PLAIN, images, images, values, 0, checkpoint)
    return str(caught.value)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_training_that_diverges_stops_with_the_step_and_the_cure(optimizer: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint", {})
    message = diverge(checkpoint=checkpoint, optimizer=optimizer, lr=1e30)
    assert re.match(
        r"training diverged in epoch 1, step [2-4] of 4: the loss is (NaN|infinite); lower lr", message
    )
    assert "now 1e+30, or set schedule: one_cycle" in message
    assert checkpoint.load() is None


def test_a_network_whose_first_loss_is_nan_is_no_case_for_the_learning_rate() -> None:
    network = build_small()
    network[0].weight.data[0] = math.nan
    message = diverge(network)
    assert message.startswith("in epoch 1, step 1 of 4: the loss is NaN before any weight has changed; check")


def test_weights_that_become_nan_without_a_loss_stop_the_training() -> None:
    class Hidden(nn.Module):
        """A buffer that overflows, which the loss in training does not depend on."""

        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(64, 4)
            self.register_buffer("scale", torch.ones(1))
            self.register_buffer("mask", torch.full((2,), -math.inf))  # is no divergence

        def forward(self, x: Tensor) -> Tensor:
            self.scale *= 1e30 if self.training else 1
            return self.fc(x.flatten(1)) * 1e-6

    assert "in epoch 1: scale is NaN or infinite; lower lr" in diverge(Hidden(), lr=1e-6)


def test_evaluation_names_the_first_image_without_a_prediction() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            scores = x.flatten(1)[:, :4].clone()
            scores[:, 3] = -math.inf  # a class that is ruled out is a prediction of the others
            return torch.where(x.amax((1, 2, 3))[:, None] > 0.99, math.nan, scores)

    images = torch.zeros(9, 1, 8, 8, dtype=torch.uint8)
    labels = torch.arange(9) % 3
    assert evaluate(Fails(), PLAIN, LabelledImages(images, labels), batch_size=4)[1].sum() == 9
    images[6] = 255
    with pytest.raises(NonFiniteScoresError, match="the scores of image 6 are NaN or infinite"):
        evaluate(Fails(), PLAIN, LabelledImages(images, labels), batch_size=4)
