"""The inputs that a network's forward takes: one image, or arguments that nobody gives here."""

import inspect

from torch import nn

from convatlas import UserError
from convatlas.names import join_names

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def check_single_input(network: nn.Module, architecture: str, key: str) -> None:
    """Refuse a network whose forward cannot be called with one input.

    Args:
        network: Any network.
        architecture: Where it comes from, as the config names it.
        key: Place of the network in the config, for messages.

    Raises:
        UserError: forward has no parameter for the input, or more than one parameter without a default.
    """
    parameters = inspect.signature(network.forward).parameters.values()
    positional = [parameter.name for parameter in parameters if parameter.kind in POSITIONAL]
    takes_any = any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters)
    required = [
        parameter.name
        for parameter in parameters
        if parameter.default is inspect.Parameter.empty
        and parameter.kind in (*POSITIONAL, inspect.Parameter.KEYWORD_ONLY)
    ]
    # The first positional parameter takes the input; what else has no default is missing.
    missing = [name for name in required if name not in positional[:1]]
    if not missing and (positional or takes_any):
        return
    inputs = f"{len(required)} inputs, {join_names(required)}" if missing else "no input"
    first = positional[0] if positional else "image"
    raise UserError(
        f"{key}.architecture: forward of {architecture} ({type(network).__name__}) takes {inputs}, and is "
        f"called with one here; name a function that returns a module of your own around it, whose "
        f"forward(self, {first}) calls this network with {first} and fixed values of the others"
    )
