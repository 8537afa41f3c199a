"""Run a network without tracing its layers, which takes time: where names of layers are not needed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def record_disabled_gradients() -> Iterator[list[str]]:
    """Record what switches gradients off while the block runs.

    Yields:
        What has switched them off, such as "torch.no_grad()"; empty where nothing has.
    """
    switched_off: list[str] = []
    namespace: Any = torch._C
    set_enabled, inference_mode = namespace._set_grad_enabled, namespace._InferenceMode

    def record_set_enabled(mode: bool) -> Any:
        if not mode:
            switched_off.append("torch.no_grad()")
        return set_enabled(mode)

    def record_inference_mode(mode: bool) -> Any:
        if mode:
            switched_off.append("torch.inference_mode()")
        return inference_mode(mode)

    namespace._set_grad_enabled, namespace._InferenceMode = record_set_enabled, record_inference_mode
    try:
        yield switched_off
    finally:
        namespace._set_grad_enabled, namespace._InferenceMode = set_enabled, inference_mode


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode while the block runs.

    Args:
        network: The network. Its modules are left in their modes.
    """
    training = [module for module in network.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def replace_first_output(module: nn.Module | None, replace: Callable[[Any], Any]) -> Iterator[None]:
    """Replace the output of the first call of a module while the block runs.

    Args:
        module: The module; None replaces nothing.
        replace: From the output to the one that the network continues with.
    """
    if module is None:
        yield
        return

    def replace_output(module: nn.Module, args: Any, output: Any) -> Any:
        handle.remove()
        return replace(output)

    handle = module.register_forward_hook(replace_output)
    try:
        yield
    finally:
        handle.remove()
