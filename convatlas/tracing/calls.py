"""What a network calls: every call of a layer as it happens, modules and functions alike.

A layer is a leaf module's call under its dotted path, or a function's or operator's call by a composite
module, `<module>/<function>`. Later calls of one name get `:2`, `:3`.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# The field's kinds of layer, by the module's class; the first match counts.
MODULE_KINDS: list[tuple[str, tuple[type, ...]]] = [
    ("conv", (nn.modules.conv._ConvNd,)),
    ("linear", (nn.Linear, nn.Bilinear)),
    ("pool", (nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd, nn.modules.pooling._LPPoolNd,
              nn.modules.pooling._AdaptiveAvgPoolNd, nn.modules.pooling._AdaptiveMaxPoolNd)),
    ("norm", (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm, nn.RMSNorm)),
    ("dropout", (nn.modules.dropout._DropoutNd,)),
    ("reshape", (nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle)),
]  # fmt: skip

# Functions and operators that are layers where a composite module calls them, by kind. Underscores
# are left off: `add` stands for torch.add, Tensor.add_, + and += alike.
FUNCTION_KINDS = {
    name: kind
    for kind, names in {
        "conv": "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d",
        "linear": "linear bilinear",
        "pool": "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d lp_pool2d mean "
        "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d "
        "adaptive_max_pool2d adaptive_max_pool3d",
        "norm": "batch_norm instance_norm group_norm layer_norm rms_norm local_response_norm normalize",
        "activation": "relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish glu hardtanh hardswish "
        "hardsigmoid sigmoid tanh softmax log_softmax softmin softplus softsign softshrink hardshrink "
        "tanhshrink logsigmoid threshold clamp clamp_min",
        "dropout": "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout",
        "reshape": "flatten unflatten reshape view permute transpose movedim squeeze unsqueeze pad "
        "pixel_shuffle pixel_unshuffle channel_shuffle",
        "merge": "add sub mul div cat stack matmul bmm",
        "other": "interpolate upsample grid_sample max_unpool2d einsum roll fold unfold "
        "scaled_dot_product_attention multi_head_attention_forward",
    }.items()
    for name in names.split()
}
FUNCTION_ALIASES = {"iadd": "add", "radd": "add", "isub": "sub", "rsub": "sub", "imul": "mul", "rmul": "mul",
            "truediv": "div", "itruediv": "div", "rtruediv": "div", "multiply": "mul", "divide": "div",
            "subtract": "sub", "concat": "cat", "concatenate": "cat", "clip": "clamp"}  # fmt: skip

# The functions that a module of torch.nn stands for, with their arguments after the input, in order.
POOLING_MODULES = {
    "max_pool2d": (nn.MaxPool2d, ("kernel_size", "stride", "padding", "dilation", "ceil_mode")),
    "avg_pool2d": (nn.AvgPool2d, ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")),
    "adaptive_avg_pool2d": (nn.AdaptiveAvgPool2d, ("output_size",)),
    "adaptive_max_pool2d": (nn.AdaptiveMaxPool2d, ("output_size",)),
}


@dataclass(frozen=True)
class Call:
    """One call of one layer: its name, its kind, its inputs and output, as they are, not copied.

    `path` is the module's that is called or that calls, `type` the class of the one or the name of
    the function; `module` is also given where a function has one that stands for it. `inputs` are
    those that depend on the network's input, if any do.
    """

    layer: str
    path: str
    type: str
    kind: str
    module: nn.Module | None
    inputs: tuple[Tensor, ...]
    output: Tensor

    @property
    def input(self) -> Tensor:
        return self.inputs[0]


def module_kind(module: nn.Module) -> str:
    """Give a module's kind: conv, linear, pool, norm, activation, dropout, reshape or other."""
    for name, classes in MODULE_KINDS:
        if isinstance(module, classes):
            return name
    if isinstance(module, nn.MultiheadAttention):
        return "other"
    known = any(parent.__module__ == "torch.nn.modules.activation" for parent in type(module).__mro__)
    return "activation" if known else "other"


def is_leaf(module: nn.Module) -> bool:
    """Whether a module holds no others that it calls, those apart that compute its weights."""
    if isinstance(module, nn.MultiheadAttention):  # which only reads its child's weights
        return True
    return all(name == "parametrizations" for name, _ in module.named_children())


def named_leaf_modules(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Give the modules of a network that hold no others, each once, with their dotted paths."""
    return ((path, module) for path, module in _named_modules(network) if path and is_leaf(module))


def _named_modules(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module and its path, less those that only compute the weights of another."""
    return ((p, m) for p, m in network.named_modules() if "parametrizations" not in p.split("."))


def next_call_name(path: str, calls: Counter[str]) -> str:
    """Count one more call at `path`, and name it: `path`, then `path:2`, `path:3`; no name comes twice."""
    calls[path] += 1
    if calls[path] == 1:
        return path
    name = f"{path}:{calls[path]}"
    if name in calls:  # a module of that very name
        return next_call_name(path, calls)
    calls[name] = 1
    return name


@contextmanager
def trace(
    network: nn.Module, callback: Callable[[Call], None], blocks: Collection[str] = ()
) -> Iterator[Callable[[], None]]:
    """Show every call of a layer to `see` while the block runs.

    Composite modules named in `blocks` are shown too, once they are through. Functions of what does not
    depend on the network's input are not. The network runs in evaluation mode meanwhile, and is left as
    it was. What is given begins to count calls anew, to be called before each further run of the network.
    """
    watcher = _CallTracer(callback)
    handles = []
    for path, module in _named_modules(network):
        leaf = bool(path) and is_leaf(module)
        handles.append(module.register_forward_pre_hook(watcher.make_pre_hook(path, leaf), with_kwargs=True))
        seen = watcher.make_forward_hook(path, leaf, shown=leaf or path in blocks)
        handles.append(module.register_forward_hook(seen, with_kwargs=True))
    training = [module for module in network.modules() if module.training]
    for module in training:
        module.training = False
    try:
        with watcher:
            yield watcher.reset
    finally:
        watcher.resume_tracing()
        for module in training:
            module.training = True
        for handle in handles:
            handle.remove()


class _CallTracer(TorchFunctionMode):
    """Follows which module is running, and which tensors depend on the network's input."""

    def __init__(self, see: Callable[[Call], None]) -> None:
        super().__init__()
        self.callback = see
        self.reset()
        self.active_modules: list[str] = []  # the paths of the composite modules that are running
        self.leaf_depth = 0
        self.untraced = torch._C.DisableTorchFunction()  # a leaf runs as it does when nobody looks

    def reset(self) -> None:
        """Count calls from the first."""
        self.call_counts = Counter({"input": 1})  # a name that the records keep for the network's input

    def make_pre_hook(self, path: str, leaf: bool) -> Callable[..., None]:
        def entered(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            if not self.active_modules and not self.leaf_depth:
                _mark_input_dependent([inputs, named])
            if not leaf:
                self.active_modules.append(path)
                return
            if not self.leaf_depth:
                self.untraced.__enter__()
            self.leaf_depth += 1

        return entered

    def make_forward_hook(self, path: str, leaf: bool, shown: bool) -> Callable[..., None]:
        def left(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            dependent, made = _collect_input_dependent([inputs, named]), collect_tensors(output)
            given = dependent or collect_tensors([inputs, named])
            if dependent:
                _mark_input_dependent(output)
            if shown and made and given and self.leaf_depth == int(leaf):
                name = next_call_name(path, self.call_counts)
                with torch._C.DisableTorchFunction():  # what `see` does is no layer
                    self.callback(
                        Call(name, path, type(module).__name__, module_kind(module), module, given, made[0])
                    )
            if not leaf:
                self.active_modules.pop()
            elif self.leaf_depth == 1:
                self.resume_tracing()
            else:
                self.leaf_depth -= 1

        return left

    def resume_tracing(self) -> None:
        """Follow functions again, after a leaf or an exception in one."""
        if self.leaf_depth:
            self.leaf_depth = 0
            self.untraced.__exit__(None, None, None)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        given = _collect_input_dependent([args, kwargs])
        output = func(*args, **kwargs)
        if not given:
            return output
        name = function_name(func)
        _mark_input_dependent(args[0] if name == "setitem" else output)
        if (
            name in FUNCTION_KINDS
            and self.active_modules
            and not self.leaf_depth
            and (made := collect_tensors(output))
        ):
            path = self.active_modules[-1]
            layer = next_call_name(f"{path}/{name}" if path else name, self.call_counts)
            module = _equivalent_module(name, args[1:], kwargs)
            self.callback(Call(layer, path, name, FUNCTION_KINDS[name], module, given, made[0]))
        return output


def function_name(func: Callable[..., Any]) -> str:
    """Name a function as layers are named: Tensor.relu_ and F.relu are `relu`, + and += are `add`."""
    name = getattr(func, "__name__", "").strip("_").removesuffix("_with_indices")
    return FUNCTION_ALIASES.get(name, name)


def _equivalent_module(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> nn.Module | None:
    """Make the pooling module that does what a function call does."""
    if name not in POOLING_MODULES:
        return None
    made, names = POOLING_MODULES[name]
    given = {key: value for key, value in kwargs.items() if key in names and value is not None}
    return made(**dict(zip(names, args, strict=False)), **given)


def collect_tensors(value: Any) -> tuple[Tensor, ...]:
    """Every tensor in nested tuples, lists and dicts, in order."""
    if isinstance(value, Tensor):
        return (value,)
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return tuple(tensor for item in value for tensor in collect_tensors(item))
    return ()


def _collect_input_dependent(value: Any) -> tuple[Tensor, ...]:
    """Every tensor in a nested value that depends on the network's input."""
    return tuple(tensor for tensor in collect_tensors(value) if hasattr(tensor, "_depends_on_input"))


def _mark_input_dependent(value: Any) -> None:
    for tensor in collect_tensors(value):
        if not isinstance(tensor, nn.Parameter):  # which a network may give beside its output
            tensor._depends_on_input = True  # type: ignore[attr-defined]
