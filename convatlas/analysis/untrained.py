"""The untrained version of a network, the control of analyses."""

from pathlib import Path

import torch
from torch import nn

from convatlas.models import build
from convatlas.models.state import get_tensor_state
from convatlas.results import Results

NO_CONTROL = "it is built with its weights, so that there is no untrained network"


def build_untrained(folder: str | Path, network: nn.Module) -> nn.Module | None:
    """Build a network with the weights that its seed draws, those before training where it is trained here.

    Args:
        folder: The network's folder, results/<network>.
        network: The network with its weights.

    Returns:
        The untrained network, on the CPU, in evaluation mode; None where its function returns the same
        weights: NO_CONTROL says so.
    """
    folder = Path(folder)
    description = Results(folder).network
    untrained, _ = build.build_from_description(description, description["seed"], f"networks.{folder.name}")
    trained_state, state = get_tensor_state(network), get_tensor_state(untrained)
    if all(torch.equal(state[name], tensor) for name, tensor in trained_state.items() if name in state):
        return None
    return untrained
