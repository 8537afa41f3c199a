"""Interrupted training goes on to the very weights of training that was not."""

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from convatlas import UserError
from convatlas.datasets import formats
from convatlas.datasets.synthetic_pets.generate import draw_pets
from convatlas.models.preprocessing import Preprocessing
from convatlas.training import trainer
from convatlas.training.checkpoint import TENSORS_FILE, VALUES_FILE, Checkpoint, set_optimizer_state
from convatlas.training.labelled_images import LabelledImages, hold_out
from convatlas.training.trainer import TrainingResult, fit
from tests.support.workspace import ROOT

TRAIN = ROOT / "scripts/train.py"
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


def data() -> tuple[LabelledImages, LabelledImages]:
    """Images whose bright pixels are of class 0."""
    images = torch.randint(
        0, 256, (60, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return hold_out(LabelledImages(images, (images[:, 0] < 128).to(torch.uint8)), 0.2, 0)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.3), nn.Conv2d(6, 2, 1)
    )


class _StoppedError(Exception):
    pass


def fitted(
    settings: dict[str, Any], kept_in: Checkpoint | None = None
) -> tuple[dict[str, Tensor], TrainingResult]:
    made = network()
    found = fit(made, PLAIN, *data(), settings, seed=0, checkpoint=kept_in)
    return made.state_dict(), found


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Training that ends in the middle of an epoch, before its validation."""
    plain = trainer.evaluate

    def after(epochs: int) -> None:
        left = [epochs]

        def evaluate(*arguments: Any) -> Any:
            if not left[0]:
                monkeypatch.setattr(trainer, "evaluate", plain)
                raise _StoppedError
            left[0] -= 1
            return plain(*arguments)

        monkeypatch.setattr(trainer, "evaluate", evaluate)

    return after


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
    stop: Any, tmp_path: Path, changed: dict[str, Any], after: int
) -> None:
    settings = SETTINGS | changed
    expected, told = fitted(settings)
    kept_in = Checkpoint(tmp_path / "checkpoint", {"seed": 0})
    stop(after)
    with pytest.raises(_StoppedError):
        fitted(settings, kept_in)
    torch.manual_seed(99)
    found, again = fitted(settings, kept_in)
    assert again.history == told.history
    assert (again.best_epoch, again.resumed_epochs) == (told.best_epoch, after)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    kept_in = Checkpoint(tmp_path / "checkpoint", {})
    expected, told = fitted(SETTINGS, kept_in)
    found, again = fitted(SETTINGS, kept_in)
    assert again.resumed_epochs == len(told.history) == 5
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def test_what_an_optimizer_has_gathered_is_put_where_its_parameters_are() -> None:
    """The count of steps too: a fused optimiser on a GPU reads it there."""
    parameter = nn.Parameter(torch.zeros(2, 3, 4, 4, device="meta").to(memory_format=torch.channels_last))
    optimizer = torch.optim.AdamW([parameter])
    set_optimizer_state(optimizer, {"0.step": torch.tensor(3.0), "0.exp_avg": torch.zeros(2, 3, 4, 4)})
    state = optimizer.state[parameter]
    assert {name: value.device.type for name, value in state.items()} == {"step": "meta", "exp_avg": "meta"}
    assert state["exp_avg"].is_contiguous(memory_format=torch.channels_last)
    assert state["step"].shape == ()


def test_a_checkpoint_that_there_is_no_space_for_is_told_and_the_last_one_kept(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path / "checkpoint", {"of": "this"})
    kept.save({"w": torch.ones(3)}, {"epoch": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(UserError, match=r"^cannot write .*checkpoint: File too large$"):
            kept.save({"w": torch.zeros(100_000)}, {"epoch": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    tensors, values = kept.load() or ({}, {})
    assert (tensors["w"].tolist(), values) == ([1, 1, 1], {"epoch": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_what_is_of_another_training_or_damaged_is_not_taken_up(tmp_path: Path) -> None:
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


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few")
    (folder / "drawn").mkdir()
    draw_pets(folder / "drawn", count=36)
    settings = {"source": str(folder / "drawn"), "target": "species", "on_bad_image": "error", "mirrors": []}
    formats.prepare(folder / "pets", {"format": "oxford-iiit-pet"} | settings, "datasets.pets")
    return folder / "pets"


def started(data: Path, output: Path) -> subprocess.Popen[bytes]:
    settings = {
        "architecture": "sd_unet",
        "arguments": {"width": 2},
        "dataset": "pets",
        "input": {"size": 32},
        "training": SETTINGS | {"epochs": 12},
    }
    command = [sys.executable, str(TRAIN), "--name", "sd_unet", "--settings", json.dumps(settings)]
    return subprocess.Popen(
        [*command, "--data", str(data), "--output", str(output)], stderr=subprocess.DEVNULL
    )


@pytest.fixture(scope="module")
def whole(few: Path) -> Path:
    """What training makes that nobody stops."""
    output = few.parent / "whole"
    assert started(few, output).wait() == 0
    return output


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_process_is_taken_up_where_it_was(
    few: Path, whole: Path, tmp_path: Path, sent: signal.Signals
) -> None:
    """SD-UNet on drawn pets: the files of a run that was stopped are those of one that was not."""
    process = started(few, tmp_path / "stopped")
    kept = tmp_path / "stopped/checkpoint" / VALUES_FILE
    while process.poll() is None and not kept.exists():
        time.sleep(0.005)
    process.send_signal(sent)
    assert process.wait() != 0
    assert kept.exists()
    assert not (tmp_path / "stopped/weights.safetensors").exists()
    done = len(load_file(kept.parent / TENSORS_FILE)["history"])
    assert 1 <= done < 12
    assert started(few, tmp_path / "stopped").wait() == 0
    for name in ("weights.safetensors", "history.csv", "metrics.json", "network.json"):
        assert (tmp_path / "stopped" / name).read_bytes() == (whole / name).read_bytes(), name
    told = json.loads((tmp_path / "stopped/timing.json").read_text())
    assert told["resumed_after_epoch"] >= done
    assert not kept.parent.exists()
