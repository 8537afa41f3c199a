"""What to edit in a network with an operation that has no deconvnet rule."""

from typing import Any

from torch.autograd.function import BackwardCFunction

from convatlas.attribution.inplace_writes import WRITE_NODE, find_write

_SCALE = ".detach() its result where it only scales (a statistic, an attention weight)"
_STATISTIC = "call .detach() on the result of std or var: a statistic that scales is a constant"
# What to change in a network whose operation has no adjoint here.
_ADVICE = {
    "Pow": "write a power as products, x * x, or with a whole number, x ** 2, or " + _SCALE,
    "MaskedPut": "write y = torch.where(mask, ...) instead of y[mask] = ...",
    **dict.fromkeys(["Std", "Var", "StdMean", "VarMean"], _STATISTIC),
}


def advise_edit(node: Any, operation: str) -> str:
    """Return what to change in a network so that the deconvnet goes through an operation.

    Args:
        node: The node of the operation.
        operation: The operation, as `backward_rules.node_type` names it.
    """
    if isinstance(node, BackwardCFunction):
        name = type(node).__name__.removesuffix("Backward")
        return (
            f"call torch's own operations instead of {name}.apply (a custom autograd.Function), for instance "
            "F.relu or F.silu, or .detach() its result where it only scales"
        )
    if operation == WRITE_NODE or find_write(node):
        return "write y = torch.cat(...) or y = y.op(...) instead of the operation in place on a part of y"
    return _ADVICE.get(operation, "write it as sums, products and convolutions, or " + _SCALE)
