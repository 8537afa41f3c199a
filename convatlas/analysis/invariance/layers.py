"""The layers whose features are compared where the config names none: the first and the last hidden one."""

from collections.abc import Sequence

from convatlas.layer_selection import choose_layers
from convatlas.records import Layer

TRANSPARENT_KINDS = ("dropout", "reshape")  # layers that pass their input's values on


def choose_compared_layers(
    layers: Sequence[Layer], selection: Sequence[str | int] | None, key: str
) -> list[Layer]:
    """Return the layers whose features are compared, in execution order.

    Args:
        layers: layers.json.
        selection: Names, globs and ordinals of convolutions; None stands for the first convolution and the
            last hidden layer: the one from which the last convolution or linear layer is computed.
        key: Place of the selection in the config, for the error.

    Raises:
        UserError: An entry of the selection matches no layer.
    """
    if selection is not None:
        names = choose_layers(layers, selection, key)
        return [layer for layer in layers if layer["name"] in names]
    called = {layer["name"]: layer for layer in layers if layer["called"]}
    weighted = [layer for layer in called.values() if layer["kind"] in ("conv", "linear")]
    if not weighted:
        return list(called.values())[-1:]
    first = next((layer for layer in weighted if layer["kind"] == "conv"), weighted[0])
    late = weighted[-1]
    while late["inputs"] and late["inputs"][-1] in called:
        late = called[late["inputs"][-1]]
        if late["kind"] not in TRANSPARENT_KINDS:
            break
    names = [first["name"], late["name"]]
    return [layer for layer in called.values() if layer["name"] in names]
