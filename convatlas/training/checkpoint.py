"""Training under way, kept at the end of each epoch, so that it goes on where it was interrupted."""

import logging
import shutil
from collections.abc import Iterator
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
    """A folder that holds the last whole epoch of a training, which `about` tells from any other's.

    `about` (JSON) is all that decides the result: settings, data, seed, versions. What a folder holds
    of another training is not taken up.
    """

    folder: Path
    description: dict[str, Any]

    def save(self, tensors: Tensors, values: dict[str, Any]) -> None:
        """Replace what the folder holds, whole or not at all."""
        with atomic_write(self.folder) as aside:
            aside.mkdir()
            state = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            (aside / TENSORS_FILE).write_bytes(save(state))
            write_json(aside / VALUES_FILE, {"about": self.description, "values": values})

    def load(self) -> tuple[Tensors, dict[str, Any]] | None:
        """Give what was saved last; None where there is nothing, or nothing of this training."""
        if not (self.folder / VALUES_FILE).exists():
            return None
        try:
            kept = read_json(self.folder / VALUES_FILE)
            tensors = load_file(self.folder / TENSORS_FILE)
        except (UserError, SafetensorError, OSError) as error:
            log.warning("the checkpoint in %s is damaged (%s): training starts anew", self.folder, error)
            return None
        if kept["about"] != self.description:
            log.info("the checkpoint in %s is of another training: this one starts anew", self.folder)
            return None
        return tensors, kept["values"]

    def remove(self) -> None:
        """Remove the folder, when what it was kept for is done, and what an interrupted `save` left."""
        shutil.rmtree(self.folder, ignore_errors=True)
        remove_stale(self.folder)


def add_prefix(prefix: str, tensors: Tensors) -> Tensors:
    """Name tensors `<prefix>.<name>`, copied, for some share their memory."""
    return {f"{prefix}.{name}": tensor.detach().clone() for name, tensor in tensors.items()}


def select_prefix(prefix: str, tensors: Tensors) -> Tensors:
    """The tensors that `under` named so, by their own names."""
    start = prefix + "."
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}


def get_optimizer_state(optimizer: torch.optim.Optimizer) -> Tensors:
    """What an optimiser has gathered: `<parameter's number>.<name>`."""
    return {
        f"{n}.{name}": value
        for n, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state[parameter].items()
        if isinstance(value, Tensor)
    }


def set_optimizer_state(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Give an optimiser what `of_optimizer` found, where its parameters are, and in their layouts in memory.

    Its counts of steps, too, are with the parameters, as fused optimisers on a GPU want them.
    """
    for n, parameter in enumerate(_parameters(optimizer)):
        for name, value in select_prefix(str(n), tensors).items():
            same = value.shape == parameter.shape
            like = parameter if same else torch.empty_like(value, device=parameter.device)
            optimizer.state[parameter][name] = torch.empty_like(like, dtype=value.dtype).copy_(value)


def get_generator_states(shuffle: torch.Generator) -> Tensors:
    """The states of the random generators that training draws from."""
    states = {"shuffle": shuffle.get_state(), "torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_generator_states(shuffle: torch.Generator, states: Tensors) -> None:
    """Set the generators to states that `of_generators` found."""
    shuffle.set_state(states["shuffle"])
    torch.set_rng_state(states["torch"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[nn.Parameter]:
    return (parameter for group in optimizer.param_groups for parameter in group["params"])
