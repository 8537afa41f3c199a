"""The weights of a network after some epochs of its training: snapshots/epoch-<number>.safetensors.

They show how units evolve, as in Zeiler & Fergus, Visualizing and understanding convolutional networks
(arXiv 1311.2901), figure 4.
"""

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save
from torch import Tensor, nn

from convatlas import UserError
from convatlas.files import (
    atomic_write,
    damaged_file_error,
    missing_file_error,
    read_json,
    write_bytes,
    write_json,
)
from convatlas.models.state import get_tensor_state

log = logging.getLogger(__name__)

DESCRIPTION_FILE = "snapshots.json"


@dataclass(frozen=True)
class Snapshots:
    """The folder of the snapshots of a training.

    While the network trains, they lie in the folder `<folder>.partial`, which an interrupted training leaves
    behind for the one that continues.

    Attributes:
        folder: results/<network>/snapshots, which appears when the training is complete.
        epochs: The chosen epochs, from 1; those beyond the last one are omitted. Without any, none is saved.
    """

    folder: Path
    epochs: Sequence[int]

    @property
    def partial_folder(self) -> Path:
        """The folder of the snapshots of a training in progress."""
        return self.folder.with_name(f"{self.folder.name}.partial")

    def list_epochs(self, epoch_count: int) -> list[int]:
        """Return the epochs of a training that are saved: 0, the untrained weights, the chosen, and the last.

        Args:
            epoch_count: Number of epochs of the training.

        Returns:
            The epochs, ascending; none where none is chosen.
        """
        if not self.epochs:
            return []
        return sorted({0, *(epoch for epoch in self.epochs if epoch < epoch_count), epoch_count})

    def save(self, epoch: int, network: nn.Module) -> None:
        """Save the weights of a network; the file appears complete.

        Args:
            epoch: Number of epochs that it was trained for.
            network: The network.

        Raises:
            UserError: The file cannot be written.
        """
        state = {name: tensor.detach().cpu() for name, tensor in get_tensor_state(network).items()}
        state = {name: tensor.contiguous().clone() for name, tensor in state.items()}
        write_bytes(_locate(self.partial_folder, epoch), save(state))

    def has_all(self, epoch_count: int, completed: int) -> bool:
        """Return whether an interrupted training left all snapshots of its completed epochs behind.

        Args:
            epoch_count: Number of epochs of the training.
            completed: Number of epochs after which it was interrupted.
        """
        epochs = [epoch for epoch in self.list_epochs(epoch_count) if epoch <= completed]
        return all(_locate(self.partial_folder, epoch).exists() for epoch in epochs)

    def finish(self, epoch_count: int, weights_sha256: str) -> None:
        """Replace the folder by the snapshots of a complete training.

        Args:
            epoch_count: Number of its epochs; 0 of a network that was not trained.
            weights_sha256: Hash of the network's weights.safetensors.

        Raises:
            UserError: The files cannot be written.
        """
        epochs = self.list_epochs(epoch_count) if epoch_count else []
        description = {"epochs": epochs, "weights_sha256": weights_sha256}
        with atomic_write(self.folder) as temporary:
            temporary.mkdir()
            for epoch in epochs:
                os.replace(_locate(self.partial_folder, epoch), _locate(temporary, epoch))
            write_json(temporary / DESCRIPTION_FILE, description)
        self.clear()

    def clear(self) -> None:
        """Remove what an interrupted training left behind."""
        shutil.rmtree(self.partial_folder, ignore_errors=True)


def read_epochs(folder: Path, weights_sha256: str) -> list[int]:
    """Return the epochs of the snapshots of a trained network, ascending from 0, the untrained weights.

    Args:
        folder: results/<network>/snapshots.
        weights_sha256: Hash of the network's weights.safetensors.

    Raises:
        UserError: There are no snapshots, or they are of another training.
    """
    description = read_json(folder / DESCRIPTION_FILE)
    if not description["epochs"]:
        raise UserError(f"{folder} holds no snapshots: train the network with `views.evolution`")
    if description.get("weights_sha256") != weights_sha256:
        raise UserError(
            f"{folder} holds snapshots of another training than weights.safetensors; delete the folder and "
            "run again, which trains the network"
        )
    epochs: list[int] = description["epochs"]
    return epochs


def read_snapshot(folder: Path, epoch: int) -> dict[str, Tensor]:
    """Return the weights after an epoch, by name.

    Args:
        folder: results/<network>/snapshots.
        epoch: One of `read_epochs`.

    Raises:
        UserError: The file is missing or damaged.
    """
    path = _locate(folder, epoch)
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise missing_file_error(path) from error
    except Exception as error:  # safetensors raises errors of several kinds
        raise damaged_file_error(path, error) from error


def _locate(folder: Path, epoch: int) -> Path:
    """Return the path of the snapshot after an epoch."""
    return folder / f"epoch-{epoch:04d}.safetensors"
