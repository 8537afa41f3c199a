"""The names of layers, as in layers.json.

A call of a leaf module is named by its dotted path, a call of a function or operator by a composite module
`<module>/<function>`. Later calls of one name get `:2`, `:3`.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

# Other names of one operation.
FUNCTION_ALIASES = {
    "iadd": "add", "radd": "add", "isub": "sub", "rsub": "sub", "imul": "mul", "rmul": "mul",
    "truediv": "div", "itruediv": "div", "rtruediv": "div", "multiply": "mul", "divide": "div",
    "subtract": "sub", "concat": "cat", "concatenate": "cat", "clip": "clamp",
}  # fmt: skip


def function_name(func: Callable[..., Any]) -> str:
    """Return the name of a function in layer names: `Tensor.relu_` is relu, `+` and `+=` are add.

    Args:
        func: A function of torch, or a method of a tensor.
    """
    name = getattr(func, "__name__", "").strip("_").removesuffix("_with_indices")
    return FUNCTION_ALIASES.get(name, name)


def next_call_name(path: str, call_counts: Counter[str]) -> str:
    """Count one more call at a path and return its unique name: `path`, then `path:2`, `path:3`.

    Args:
        path: Dotted path of a module, or `<module>/<function>`.
        call_counts: The number of calls of each name so far; it is updated.
    """
    call_counts[path] += 1
    if call_counts[path] == 1:
        return path
    name = f"{path}:{call_counts[path]}"
    if name in call_counts:  # a module has this very name
        return next_call_name(path, call_counts)
    call_counts[name] = 1
    return name
