"""The layers that are ablated."""

from collections.abc import Sequence

from convatlas.layer_selection import choose_layers, has_weighted_units, space_evenly
from convatlas.output_layers import find_output_layers
from convatlas.records import Layer

MAX_DEFAULT_LAYERS = 12  # where the config names none

OUTPUT_REASON = "its units are the scores of the network's output"


def choose_ablated_layers(
    layers: Sequence[Layer], selection: str | Sequence[str | int] | None, key: str
) -> tuple[list[str], dict[str, str]]:
    """Return the layers to ablate, in execution order, and those of the selection that are left out.

    Args:
        layers: layers.json.
        selection: Names, globs and ordinals of convolutions; "all" for every convolution and linear layer;
            None for up to MAX_DEFAULT_LAYERS of these, evenly spaced in depth. The layers that compute the
            network's output are left out, and linear layers of tokens, whose units come last, too.
        key: The key of the selection in the config, for the error.

    Returns:
        The names; and by name why others of the selection are left out.

    Raises:
        UserError: An entry of the selection matches no layer.
    """
    outputs = find_output_layers(layers)
    if selection is None or selection == "all":
        names = [layer["name"] for layer in layers if layer["called"] and has_weighted_units(layer)]
        hidden = [name for name in names if name not in outputs]
        return (space_evenly(hidden, MAX_DEFAULT_LAYERS) if selection is None else hidden), {}
    names = choose_layers(layers, selection, key)
    left_out = {name: OUTPUT_REASON for name in names if name in outputs}
    return [name for name in names if name not in outputs], left_out
