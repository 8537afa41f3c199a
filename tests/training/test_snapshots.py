"""Snapshots hold the weights after chosen epochs, and change nothing of their training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from convatlas import UserError
from convatlas.training import trainer
from convatlas.training.checkpoint import Checkpoint
from convatlas.training.snapshots import Snapshots, read_epochs, read_snapshot
from convatlas.training.trainer import fit
from tests.training.test_checkpoint import PLAIN, SETTINGS, build_network, make_splits, one_thread

__all__ = ["one_thread"]  # a fixture
SETTINGS_WITH_AVERAGE = SETTINGS | {"ema_decay": 0.5}
EPOCHS = SETTINGS["epochs"]


class _InterruptedError(Exception):
    pass


def train_small(
    folder: Path, snapshots: Snapshots | None = None, settings: dict[str, Any] = SETTINGS_WITH_AVERAGE
) -> tuple[dict[str, Tensor], trainer.TrainingResult]:
    """Train the small network with a checkpoint, and return its weights and the training's result."""
    network, checkpoint = build_network(), Checkpoint(folder / "checkpoint", {})
    result = fit(network, PLAIN, *make_splits(), settings, 0, checkpoint, snapshots=snapshots)
    return network.state_dict(), result


def interrupt(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Interrupt the next training after it saved the snapshot of an epoch, before its checkpoint."""
    save = Checkpoint.save

    def save_or_raise(self: Checkpoint, tensors: dict[str, Tensor], values: Any) -> None:
        if len(tensors["history"]) == epoch:
            monkeypatch.setattr(Checkpoint, "save", save)
            raise _InterruptedError
        save(self, tensors, values)

    monkeypatch.setattr(Checkpoint, "save", save_or_raise)


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def are_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("chosen", "epochs"), [([1, 2, 64], [0, 1, 2, EPOCHS]), ([4, 2], [0, 2, 4, EPOCHS]), ([9], [0, EPOCHS])]
)
def test_the_chosen_epochs_that_the_training_has_are_saved(chosen: list[int], epochs: list[int]) -> None:
    assert Snapshots(Path("x"), chosen).list_epochs(EPOCHS) == epochs


def test_training_gives_the_same_bits_with_snapshots(tmp_path: Path) -> None:
    expected_weights, expected = train_small(tmp_path / "without")
    weights, result = train_small(tmp_path, Snapshots(tmp_path / "snapshots", [1, 3]))
    assert are_equal(weights, expected_weights)
    assert (result.history, result.best_epoch) == (expected.history, expected.best_epoch)


@pytest.mark.parametrize("ema_decay", [0, 0.5])
def test_a_snapshot_holds_the_weights_that_are_validated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ema_decay: float
) -> None:
    validated, evaluate = [{n: t.clone() for n, t in build_network().state_dict().items()}], trainer.evaluate

    def evaluate_copy(network: torch.nn.Module, *arguments: Any) -> Any:
        validated.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return evaluate(network, *arguments)

    monkeypatch.setattr(trainer, "evaluate", evaluate_copy)
    snapshots = Snapshots(tmp_path / "snapshots", [1, 2, 4])
    train_small(tmp_path, snapshots, SETTINGS | {"ema_decay": ema_decay})
    snapshots.finish(EPOCHS, "hash")
    epochs = read_epochs(snapshots.folder, "hash")
    assert epochs == [0, 1, 2, 4, 5]
    for epoch in epochs:
        assert are_equal(read_snapshot(snapshots.folder, epoch), validated[epoch]), epoch


@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_an_interrupted_training_leaves_the_same_snapshots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    whole, interrupted = (Snapshots(tmp_path / name / "snapshots", [1, 2, 3]) for name in ("whole", "parts"))
    train_small(tmp_path / "whole", whole)
    interrupt(monkeypatch, epoch)
    with pytest.raises(_InterruptedError):
        train_small(tmp_path / "parts", interrupted)
    assert not interrupted.folder.exists()
    _, result = train_small(tmp_path / "parts", interrupted)
    assert result.resumed_epochs == epoch - 1
    for snapshots in (whole, interrupted):
        snapshots.finish(EPOCHS, "hash")
    assert read_files(interrupted.folder) == read_files(whole.folder)
    assert not interrupted.partial_folder.exists()


def test_an_interrupted_training_without_its_snapshots_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, 3)
    with pytest.raises(_InterruptedError):
        train_small(tmp_path)
    snapshots = Snapshots(tmp_path / "snapshots", [2])
    _, result = train_small(tmp_path, snapshots)
    assert result.resumed_epochs == 0
    snapshots.finish(EPOCHS, "hash")
    assert read_epochs(snapshots.folder, "hash") == [0, 2, EPOCHS]


def test_snapshots_of_another_training_are_refused(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path / "snapshots", [1])
    for epoch in (0, 1, 2):
        snapshots.save(epoch, build_network())
    snapshots.finish(2, "old")
    with pytest.raises(UserError, match=r"another training than weights\.safetensors; delete the folder"):
        read_epochs(snapshots.folder, "new")
    (snapshots.folder / "epoch-0001.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match=r"epoch-0001\.safetensors is damaged"):
        read_snapshot(snapshots.folder, 1)
