"""Redraw the weights of a network's layers, in the order of its forward pass, and restore them.

A layer is a module that holds weights of its own. Its own `reset_parameters` redraws them, as in an
untrained network: a batch norm becomes the identity, for its statistics describe outputs of the trained
weights. Weights of a module without that method, those that a composite module uses by itself, and those that
the method does not reach, as parametrised ones, are permuted: the same values at random positions.
"""

import inspect
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# The tensors of a batch norm, and the values with which it is the identity.
IDENTITY = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}


@dataclass(frozen=True)
class WeightedLayer:
    """Weights that are redrawn together.

    Attributes:
        path: Path of their module.
        name: Path of their module, or of the first of them where the module uses several on its own.
        module: The module that holds them.
        weights: Their names in the module.
    """

    path: str
    name: str
    module: nn.Module
    weights: tuple[str, ...]


class _WeightUses(TorchFunctionMode):
    """Records the last call of a function that takes each weight."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.last_call: dict[int, int] = {}  # by the weight's id

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") != "__get__":  # of an attribute such as shape
            self.calls += 1
            for value in (*args, *(kwargs or {}).values()):
                for item in value if isinstance(value, tuple | list) else (value,):
                    self.last_call[id(item)] = self.calls
        return func(*args, **(kwargs or {}))


def list_weighted_layers(network: nn.Module, x: Tensor) -> list[WeightedLayer]:
    """List the layers that hold weights in the order in which the forward pass uses them last.

    Args:
        network: Any network; it runs once, in evaluation mode.
        x: Its input, (N, C, H, W).

    Returns:
        The layers, the one nearest to the input first. Weights that the forward pass does not use, such as
        those of an auxiliary classifier, are in none.
    """
    uses = _WeightUses()
    was_training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad(), restore_weights(network), uses:
            network(x.clone())  # a layer may change its input in place, or its buffers
    finally:
        for module, training in was_training.items():
            module.training = training
    layers: dict[WeightedLayer, int] = {}
    previous = 0
    for path, module in network.named_modules():
        calls = {name: uses.last_call.get(id(weight), 0) for name, weight in _own_weights(module).items()}
        if isinstance(module, torch.jit.ScriptModule):  # whose calls are not recorded
            calls = dict.fromkeys(calls, previous)
        else:
            calls = {name: call for name, call in calls.items() if call}
        for layer in _group_weights(path, module, calls):
            layers[layer] = previous = max(calls[name] for name in layer.weights)
    return sorted(layers, key=lambda layer: layers[layer])


def _own_weights(module: nn.Module) -> dict[str, Tensor]:
    """Return the weights that a module holds itself, by name; of a norm with its buffers."""
    weights: dict[str, Tensor] = dict(module.named_parameters(recurse=False))
    if _is_norm(module):
        buffers = dict(module.named_buffers(recurse=False))
        weights |= {name: buffer for name, buffer in buffers.items() if buffer.is_floating_point()}
    return weights


def _is_norm(module: nn.Module) -> bool:
    """Return whether a module normalises with statistics of its training data."""
    return all(isinstance(getattr(module, name, None), Tensor) for name in ("running_mean", "running_var"))


def _is_resettable(module: nn.Module) -> bool:
    """Return whether a module's `reset_parameters` concerns its own weights alone."""
    reset = getattr(module, "reset_parameters", None)
    if not callable(reset) or any(True for child in module.children() for _ in child.parameters()):
        return False
    arguments = inspect.signature(reset).parameters.values()
    return all(
        argument.default is not argument.empty
        or argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD)
        for argument in arguments
    )


def _group_weights(path: str, module: nn.Module, calls: dict[str, int]) -> list[WeightedLayer]:
    """Group the weights of a module: all, or those of one call where the module makes several itself."""
    if not calls:
        return []
    groups: dict[int, list[str]] = {}
    for name, call in calls.items():
        groups.setdefault(0 if _is_resettable(module) or _is_norm(module) else call, []).append(name)
    if len(groups) == 1 and path:
        return [WeightedLayer(path, path, module, tuple(calls))]
    prefix = f"{path}." if path else ""
    return [WeightedLayer(path, prefix + names[0], module, tuple(names)) for names in groups.values()]


def redraw(layer: WeightedLayer, seed: int) -> None:
    """Redraw the weights of a layer in place; what is drawn depends on the layer's name and the seed alone.

    Args:
        layer: The layer.
        seed: A seed.
    """
    before = {name: getattr(layer.module, name).detach().clone() for name in layer.weights}
    devices = list({weight.device for weight in before.values() if weight.is_cuda})
    with torch.no_grad(), torch.random.fork_rng(devices):
        # Of the CPU alone where no weight is on a GPU: torch.manual_seed is slow, for it seeds all devices.
        seed_generators = torch.manual_seed if devices else torch.default_generator.manual_seed
        seed_generators(seed + zlib.crc32(layer.name.encode()))
        reached = _reset(layer)
        for name, old in before.items():
            weight = getattr(layer.module, name)
            if _is_norm(layer.module) and name in IDENTITY:
                weight.fill_(IDENTITY[name])
            elif name not in reached:
                order = torch.randperm(old.numel()).to(old.device)
                weight.copy_(old.flatten()[order].view_as(old))


def _reset(layer: WeightedLayer) -> set[str]:
    """Call the layer's own `reset_parameters`, and return the names of the weights that it has drawn."""
    if not _is_resettable(layer.module):
        return set()
    for name in layer.weights:
        weight = getattr(layer.module, name)
        if weight.is_floating_point():
            weight.fill_(torch.nan)  # what the method does not draw stays NaN
    reset: Any = layer.module.reset_parameters
    with suppress(Exception):  # of the user's code, as where it draws by the weights' standard deviation
        reset()
    return {name for name in layer.weights if not getattr(layer.module, name).isnan().any()}


@contextmanager
def restore_weights(network: nn.Module) -> Iterator[None]:
    """Restore all parameters and buffers of a network, bit for bit, at the end of the block.

    Args:
        network: The network.
    """
    states = [
        (module, name, tensor, tensor.detach().clone())
        for module in network.modules()
        for name, tensor in [
            *module.named_parameters(recurse=False),
            *module.named_buffers(recurse=False),
        ]
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, tensor, value in states:
                if getattr(module, name, None) is not tensor:
                    setattr(module, name, tensor)
                tensor.copy_(value)


def split_stages(layers: Sequence[WeightedLayer], stages: int) -> list[list[WeightedLayer]]:
    """Split layers into stages, from the output down: the last layer alone, then even numbers of layers.

    Args:
        layers: The layers, the one nearest to the input first.
        stages: How many stages at most.

    Returns:
        The stages. With more layers than stages, the deeper stages have several layers each.
    """
    downwards = list(layers)[::-1]
    return [downwards[:1], *split_evenly(downwards[1:], stages - 1)]


def split_evenly(layers: Sequence[WeightedLayer], stages: int) -> list[list[WeightedLayer]]:
    """Split layers into at most a number of stages of nearly the same length, in their order.

    Args:
        layers: The layers.
        stages: How many stages at most.
    """
    count = max(1, min(stages, len(layers)))
    bounds = [round(n * len(layers) / count) for n in range(count + 1)]
    return [list(layers[a:b]) for a, b in pairwise(bounds) if b > a]
