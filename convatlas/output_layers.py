"""The layers that compute the output of a network, which its hidden layers do not include."""

from collections.abc import Sequence

from convatlas.records import Layer

WEIGHTED_KINDS = ("conv", "linear")


def find_output_layers(layers: Sequence[Layer]) -> set[str]:
    """Return the layers that compute the output: the last ones with weights, and those after them.

    Args:
        layers: layers.json.
    """
    called = {
        layer["name"]: layer for layer in layers if layer["called"] and not _is_composite(layers, layer)
    }
    used = {name for layer in called.values() for name in layer["inputs"]}
    pending = [name for name in called if name not in used]
    outputs: set[str] = set()
    while pending:
        name = pending.pop()
        if name in called and name not in outputs:
            outputs.add(name)
            if called[name]["kind"] not in WEIGHTED_KINDS:
                pending += called[name]["inputs"]
    return outputs


def _is_composite(layers: Sequence[Layer], layer: Layer) -> bool:
    """Return whether an entry is a call of a module that calls other layers."""
    prefixes = f"{layer['module']}.", f"{layer['module']}/"
    return layer["name"] == layer["module"] and any(other["name"].startswith(prefixes) for other in layers)
