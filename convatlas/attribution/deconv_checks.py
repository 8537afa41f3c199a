"""Check that the deconvnet is defined for the projected layers, before a network is trained."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from convatlas import UserError
from convatlas.attribution.backward_rules import attach_rules
from convatlas.attribution.graph import topological_order
from convatlas.attribution.network_graph import run_until_layer
from convatlas.layer_selection import choose_projected_layers
from convatlas.models.preprocessing import Preprocessing
from convatlas.pipeline.config_types import NetworkConfig
from convatlas.tracing.config_checks import list_selected_layers


def find_deconv_errors(
    network: nn.Module, preprocessing: Preprocessing, settings: NetworkConfig, key: str
) -> Iterator[str]:
    """Yield why the deconvnet is not defined for a layer that the config projects.

    The rules depend on the operations of a network, not on its weights.

    Args:
        network: The network, trained or not.
        preprocessing: Its preprocessing.
        settings: Its section of the config.
        key: Place of the section in the config.
    """
    if not preprocessing.is_image:
        return
    parameter = next(network.parameters(), torch.empty(0))
    dtype = parameter.dtype if parameter.is_floating_point() else torch.float32
    x = torch.zeros(1, *preprocessing.shape, dtype=dtype, requires_grad=True)
    names = list_projected_layers(network, preprocessing, settings)
    try:
        check_rules(network, x, names, settings["views"]["deconv"]["rectify"])
    except UserError as error:
        yield f"{key}.views.deconv: {error}"


def list_projected_layers(
    network: nn.Module, preprocessing: Preprocessing, settings: NetworkConfig
) -> list[str]:
    """Return the layers whose units the config projects, of sample images or top activations, in order.

    Args:
        network: The network.
        preprocessing: Its preprocessing.
        settings: Its section of the config. A selection with names that do not exist is left out.
    """
    deconv, strongest = settings["views"]["deconv"], settings["views"]["strongest"]
    selections: list[Any] = [deconv["layers"] if deconv["select"] else []]
    if deconv["steps"] and "layer" in deconv["steps"]:
        selections.append([deconv["steps"]["layer"]])
    if settings.get("dataset") and strongest and strongest["project"]:
        selections.append(strongest["project"])
    entries = [entry for selection in selections if selection != "all" for entry in selection]
    if not any(selections):
        return []
    layers = list_selected_layers(network, preprocessing.shape, settings["downsample_name"], entries)
    names: set[str] = set()
    for selection in selections:
        with suppress(UserError):  # reported with its key
            names.update(choose_projected_layers(layers, selection, ""))
    return [layer["name"] for layer in layers if layer["name"] in names]


def check_rules(network: nn.Module, x: Tensor, names: Sequence[str], rectify: bool) -> None:
    """Raise UserError where the deconvnet has no rule for an operation on the way to a layer.

    The network runs once for the last layer, and again for a layer that it is not computed from.

    Args:
        network: Any network.
        x: An input, (1, C, H, W), which requires a gradient.
        names: Names of layers, in execution order.
        rectify: Whether the signal is rectified at activations that are not ReLUs too.

    Raises:
        UserError: As in `deconvnet.project`.
    """
    pending = list(names)
    while pending:
        _, edge, layers = run_until_layer(network, x, pending.pop())
        with attach_rules(edge, layers, rectify):
            below = {layers.get(node) for node in topological_order(edge.node)[0]}
        pending = [name for name in pending if name not in below]
