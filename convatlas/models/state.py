"""The tensors of a network's state, without the extra state of modules that is something else.

`get_extra_state` of a module may return any object. Only tensors are stored; other extra state is that which
the network has when it is built.
"""

from collections.abc import Mapping

from torch import Tensor, nn


def get_tensor_state(network: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a network's state dict by name; they share the network's memory.

    Args:
        network: The network; entries of its state that are not tensors are omitted.
    """
    return {name: item for name, item in network.state_dict().items() if isinstance(item, Tensor)}


def list_non_finite(network: nn.Module) -> list[str]:
    """Return the names of the parameters and buffers with values that are NaN or infinite.

    Args:
        network: The network. −∞ in a buffer does not count: masks of attention hold it.
    """
    names = [name for name, parameter in network.named_parameters() if not parameter.isfinite().all()]
    for name, buffer in network.named_buffers():
        if buffer.isnan().any() or (buffer.isinf() & (buffer.real > 0)).any():
            names.append(name)
    return names


def load_tensor_state(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load what `get_tensor_state` returned into a network, in place.

    Args:
        network: The network.
        state: Tensors by name.

    Raises:
        RuntimeError: Names or shapes do not fit the network.
    """
    extra = {name: item for name, item in network.state_dict().items() if not isinstance(item, Tensor)}
    network.load_state_dict({**extra, **state})
