"""Interrupted training continues, and gives the same bits as training without interruption."""

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision  # noqa: F401  its version is part of a training's description
from safetensors.torch import load_file
from torch import Tensor, nn

from convatlas import UserError
from convatlas.datasets import formats
from convatlas.datasets.synthetic_pets.generate import draw_pets
from convatlas.files import read_json
from convatlas.models.preprocessing import Preprocessing
from convatlas.training import trainer
from convatlas.training.checkpoint import TENSORS_FILE, VALUES_FILE, Checkpoint, set_optimizer_state
from convatlas.training.labelled_images import LabelledImages, hold_out
from convatlas.training.run import train_network
from convatlas.training.trainer import TrainingResult, fit
from tests.support.workspace import ROOT

SETTINGS: dict[str, Any] = {
    "epochs": 5,
    "max_steps": None,
    "batch_size": 16,
    "lr": 0.01,
    "optimizer": "adamw",
    "schedule": "one_cycle",
    "weight_decay": 0.01,
    "validation": 0.2,
    "shift": 1,
    "flip": True,
    "crop": 0.7,
    "scale": 1.2,
    "stretch": 0.2,
    "rotate": 10.0,
    "colour": 0.1,
    "ema_decay": 0.0,
    "progressive_resize": None,
    "precision": "float32",
}
PLAIN = Preprocessing(8, (0.5,), (0.5,))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Compute with one thread: for tensors as small as these, several mostly wait for each other."""
    threads, debug_mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode(debug_mode)


def make_splits() -> tuple[LabelledImages, LabelledImages]:
    """Return images of noise whose bright pixels are of class 0, for training and validation."""
    images = torch.randint(
        0, 256, (60, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return hold_out(LabelledImages(images, (images[:, 0] < 128).to(torch.uint8)), 0.2, 0)


def build_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.3), nn.Conv2d(6, 2, 1)
    )


class _InterruptedError(Exception):
    pass


def train_small(
    settings: dict[str, Any], checkpoint: Checkpoint | None = None
) -> tuple[dict[str, Tensor], TrainingResult]:
    """Train the small network, and return its weights and the training's result."""
    network = build_network()
    result = fit(network, PLAIN, *make_splits(), settings, seed=0, checkpoint=checkpoint)
    return network.state_dict(), result


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Interrupt the next training after some epochs, before the validation of the following one."""
    evaluate = trainer.evaluate

    def interrupt(epochs: int) -> None:
        remaining = [epochs]

        def evaluate_or_raise(*arguments: Any) -> Any:
            if not remaining[0]:
                monkeypatch.setattr(trainer, "evaluate", evaluate)
                raise _InterruptedError
            remaining[0] -= 1
            return evaluate(*arguments)

        monkeypatch.setattr(trainer, "evaluate", evaluate_or_raise)

    return interrupt


@pytest.mark.parametrize("after", [0, 1, 4])
@pytest.mark.parametrize(
    "changed",
    [
        {"optimizer": "adamw", "schedule": "one_cycle", "precision": "float32"},
        {"optimizer": "sgd", "schedule": "cosine", "precision": "bfloat16", "ema_decay": 0.9},
        {"optimizer": "adam", "schedule": "constant", "precision": "float32", "ema_decay": 0.5},
        {"optimizer": "adamw", "progressive_resize": {"size": 4, "share": 0.6}},
    ],
    ids=["adamw", "sgd", "adam", "progressive_resize"],
)
def test_resumed_training_gives_the_same_bits(
    interrupt: Callable[[int], None], tmp_path: Path, changed: dict[str, Any], after: int
) -> None:
    settings = SETTINGS | changed
    expected_weights, expected = train_small(settings)
    checkpoint = Checkpoint(tmp_path / "checkpoint", {"seed": 0})
    interrupt(after)
    with pytest.raises(_InterruptedError):
        train_small(settings, checkpoint)
    torch.manual_seed(99)
    weights, result = train_small(settings, checkpoint)
    assert result.history == expected.history
    assert (result.best_epoch, result.resumed_epochs) == (expected.best_epoch, after)
    assert all(torch.equal(tensor, expected_weights[name]) for name, tensor in weights.items())


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint", {})
    expected_weights, expected = train_small(SETTINGS, checkpoint)
    weights, result = train_small(SETTINGS, checkpoint)
    assert result.resumed_epochs == len(expected.history) == 5
    assert all(torch.equal(tensor, expected_weights[name]) for name, tensor in weights.items())


def test_an_optimizers_state_is_set_on_its_parameters_device() -> None:
    """The step count too: a fused optimiser on a GPU reads it there."""
    parameter = nn.Parameter(torch.zeros(2, 3, 4, 4, device="meta").to(memory_format=torch.channels_last))
    optimizer = torch.optim.AdamW([parameter])
    set_optimizer_state(optimizer, {"0.step": torch.tensor(3.0), "0.exp_avg": torch.zeros(2, 3, 4, 4)})
    state = optimizer.state[parameter]
    assert {name: value.device.type for name, value in state.items()} == {"step": "meta", "exp_avg": "meta"}
    assert state["exp_avg"].is_contiguous(memory_format=torch.channels_last)
    assert state["step"].shape == ()


def test_a_checkpoint_that_does_not_fit_the_disk_is_reported_and_the_last_one_remains(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint", {"of": "this"})
    checkpoint.save({"w": torch.ones(3)}, {"epoch": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(UserError, match=r"^cannot write .*checkpoint: File too large$"):
            checkpoint.save({"w": torch.zeros(100_000)}, {"epoch": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    tensors, values = checkpoint.load() or ({}, {})
    assert (tensors["w"].tolist(), values) == ([1, 1, 1], {"epoch": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_damaged_checkpoint_or_that_of_another_training_is_not_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    assert Checkpoint(folder, {"seed": 0}).load() is None
    Checkpoint(folder, {"seed": 0}).save({"x": torch.ones(2)}, {"n": 1})
    assert Checkpoint(folder, {"seed": 1}).load() is None
    tensors, values = Checkpoint(folder, {"seed": 0}).load()
    assert (tensors["x"].tolist(), values) == ([1, 1], {"n": 1})
    (folder / TENSORS_FILE).write_bytes((folder / TENSORS_FILE).read_bytes()[:-3])
    assert Checkpoint(folder, {"seed": 0}).load() is None
    (folder / VALUES_FILE).write_text("{")
    assert Checkpoint(folder, {"seed": 0}).load() is None
    Checkpoint(folder, {}).remove()
    assert not folder.exists()


# A process that is killed.

EPOCHS = 5
NETWORK = {
    "architecture": "sd_unet",
    "arguments": {"width": 2},
    "dataset": "pets",
    "input": {"size": 32},
    "training": SETTINGS | {"epochs": EPOCHS},
}
# Trains, and sends itself a signal while it saves the checkpoint of the third epoch: before the files are
# written, or when one of two is. torchvision is imported as its version is part of a training's description.
PROGRAM = """
import json, os, signal, sys
import torchvision
from convatlas.training import checkpoint
from convatlas.training.run import train_network

network, data, output, function, number = sys.argv[1:]
calls, original = [], getattr(checkpoint, function)

def interrupted(*arguments):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), int(number))
    return original(*arguments)

setattr(checkpoint, function, interrupted)
train_network("sd_unet", json.loads(network), output, data, device="cpu", threads=1)
"""


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of a few drawn pets."""
    folder = tmp_path_factory.mktemp("few")
    (folder / "drawn").mkdir()
    draw_pets(folder / "drawn", count=36)
    settings = {"source": str(folder / "drawn"), "target": "species", "on_bad_image": "error", "mirrors": []}
    formats.prepare(folder / "pets", {"format": "oxford-iiit-pet"} | settings, "datasets.pets")
    return folder / "pets"


def train_here(data: Path, output: Path) -> Path:
    train_network("sd_unet", NETWORK, output, data, device="cpu", threads=1)
    return output


@pytest.fixture
def uninterrupted(pets: Path) -> Path:
    """The files of a training without interruption, made once."""
    output = pets.parent / "uninterrupted"
    return output if output.exists() else train_here(pets, output)


@pytest.mark.parametrize(
    ("sent", "function"), [(signal.SIGINT, "atomic_write"), (signal.SIGKILL, "write_json")]
)
def test_a_killed_process_continues_after_its_last_epoch(
    pets: Path, uninterrupted: Path, tmp_path: Path, sent: signal.Signals, function: str
) -> None:
    """SD-UNet on drawn pets: the files of an interrupted training are those of one without interruption."""
    output = tmp_path / "interrupted"
    command = [sys.executable, "-c", PROGRAM, json.dumps(NETWORK), str(pets), str(output), function]
    process = subprocess.run([*command, str(int(sent))], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL or "KeyboardInterrupt" in process.stderr
    assert not (output / "weights.safetensors").exists()
    assert len(load_file(output / "checkpoint" / TENSORS_FILE)["history"]) == 2
    train_here(pets, output)
    for name in ("weights.safetensors", "history.csv", "metrics.json", "predictions.csv", "network.json"):
        assert (output / name).read_bytes() == (uninterrupted / name).read_bytes(), name
    assert read_json(output / "timing.json")["resumed_after_epoch"] == 2
    assert len((output / "history.csv").read_text().splitlines()) == 1 + EPOCHS
    assert not (output / "checkpoint").exists()
