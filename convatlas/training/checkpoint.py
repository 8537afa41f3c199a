"""The state of a training after its last epoch, from which it continues where it was interrupted."""

import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from convatlas import UserError
from convatlas.files import atomic_write, read_json, remove_stale, write_json

log = logging.getLogger(__name__)

TENSORS_FILE, VALUES_FILE = "state.safetensors", "state.json"
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A folder that holds the state of one training after its last epoch.

    Attributes:
        folder: The folder.
        description: All that determines the result of the training, as JSON: settings, data, seed, versions.
            The state of a training with another description is not loaded.
    """

    folder: Path
    description: dict[str, Any]

    def save(self, tensors: Tensors, values: Mapping[str, Any]) -> None:
        """Replace the state in the folder, atomically.

        Args:
            tensors: Tensors by name.
            values: Whatever else belongs to the state, as JSON.

        Raises:
            UserError: The folder cannot be written.
        """
        with atomic_write(self.folder) as temporary:
            temporary.mkdir()
            state = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            (temporary / TENSORS_FILE).write_bytes(save(state))
            write_json(temporary / VALUES_FILE, {"description": self.description, "values": values})

    def load(self) -> tuple[Tensors, dict[str, Any]] | None:
        """Return the tensors and values saved last; None where there are none, or none of this training."""
        if not (self.folder / VALUES_FILE).exists():
            return None
        try:
            saved = read_json(self.folder / VALUES_FILE)
            tensors = load_file(self.folder / TENSORS_FILE)
        except (UserError, SafetensorError, OSError) as error:
            log.warning("the checkpoint in %s is damaged (%s): training starts anew", self.folder, error)
            return None
        if saved.get("description") != self.description:
            log.info("the checkpoint in %s is of another training: this one starts anew", self.folder)
            return None
        return tensors, saved["values"]

    def remove(self) -> None:
        """Remove the folder, and what an interrupted `save` left behind."""
        shutil.rmtree(self.folder, ignore_errors=True)
        remove_stale(self.folder)


def add_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """Return copies of tensors under the names `<prefix>.<name>`; the originals may share memory.

    Args:
        prefix: The start of the names, without a dot at its end.
        tensors: Tensors by name.
    """
    return {f"{prefix}.{name}": tensor.detach().clone() for name, tensor in tensors.items()}


def select_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """Return the tensors that `add_prefix` named, under their own names.

    Args:
        prefix: The prefix that `add_prefix` added.
        tensors: Tensors by name; those without the prefix are omitted.
    """
    start = prefix + "."
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}


def get_optimizer_state(optimizer: torch.optim.Optimizer) -> Tensors:
    """Return the tensors of an optimiser's state under the names `<number of the parameter>.<name>`.

    Args:
        optimizer: The optimiser; its parameters are counted from 0, over all groups.
    """
    return {
        f"{n}.{name}": value
        for n, parameter in enumerate(_list_parameters(optimizer))
        for name, value in optimizer.state[parameter].items()
        if isinstance(value, Tensor)
    }


def set_optimizer_state(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Set an optimiser's state, on its parameters' device and in their memory format.

    The step counts are on that device too, as fused optimisers on a GPU need them.

    Args:
        optimizer: The optimiser.
        tensors: What `get_optimizer_state` returned.
    """
    for n, parameter in enumerate(_list_parameters(optimizer)):
        for name, value in select_prefix(str(n), tensors).items():
            has_shape = value.shape == parameter.shape
            template = parameter if has_shape else torch.empty_like(value, device=parameter.device)
            optimizer.state[parameter][name] = torch.empty_like(template, dtype=value.dtype).copy_(value)


def get_generator_states(shuffle_generator: torch.Generator) -> Tensors:
    """Return the states of the random generators that training draws from, torch's own among them.

    Args:
        shuffle_generator: The generator of the images' order and of the augmentation.

    Returns:
        States uint8 under "shuffle", "torch" and, with a GPU, "cuda".
    """
    states = {"shuffle": shuffle_generator.get_state(), "torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_generator_states(shuffle_generator: torch.Generator, states: Mapping[str, Tensor]) -> None:
    """Set the generators to the states that `get_generator_states` returned.

    Args:
        shuffle_generator: The generator of the order of images and of augmentation.
        states: The states by name.
    """
    shuffle_generator.set_state(states["shuffle"])
    torch.set_rng_state(states["torch"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])


def _list_parameters(optimizer: torch.optim.Optimizer) -> Iterator[nn.Parameter]:
    """Yield the parameters of an optimiser, of one group after the other."""
    return (parameter for group in optimizer.param_groups for parameter in group["params"])
