"""An independent deconvnet: a network's ATen operations, run again with the rule at each activation.

`project` puts its rules on the graph that autograd recorded. Here the operations below autograd are traced
(`make_fx`), writes in place are removed from them (`functionalize`), and each is run again, in float64: the
activations as functions with a backward pass of their own, norms and quotients by their formula with detached
statistics. Autograd computes all other adjoints. Nothing of `convatlas.attribution` is used.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

from convatlas.tracing.calls import Call, trace

ACTIVATIONS = set(
    """
    relu hardtanh threshold clamp clamp_min clamp_max relu6 leaky_relu elu celu selu gelu silu mish glu
    hardswish hardsigmoid sigmoid tanh _softmax _log_softmax softplus softshrink hardshrink
    log_sigmoid_forward prelu _prelu_kernel rrelu maximum minimum where masked_fill abs exp log sin cos
    erf sqrt
    """.split()
)
CONSTANTS = {"rsqrt", "reciprocal", "linalg_vector_norm", "norm", "_safe_softmax"}
EXTREMA = {"amax", "amin", "max", "min"}
ATTENTION = "_scaled_dot_product"


class _Reached(Exception):  # noqa: N818
    """Every layer has been called, and the network need run no further."""


class _Rectify(torch.autograd.Function):
    """An activation whose backward pass rectifies the signal and passes it to one argument."""

    @staticmethod
    def forward(ctx: Any, operation: Callable[[Tensor], Any], argument: Tensor) -> Any:
        return operation(argument)

    @staticmethod
    def backward(ctx: Any, signal: Tensor, *others: Any) -> tuple[None, Tensor]:
        return None, signal.clamp(min=0)


def project_reference(
    network: nn.Module, x: Tensor, layers: Sequence[str], units: Sequence[Sequence[int]]
) -> dict[tuple[str, str], Tensor]:
    """Project units of layers to the pixels of one image.

    Args:
        network: Any network in evaluation mode, in the precision in which to compute.
        x: The image, (1, C, H, W), in that precision.
        layers: Names of layers.
        units: The units of each layer.

    Returns:
        By layer and "map" or "peak", (units, C, H, W).
    """
    graph = trace_operations(network, x, layers)
    pixels = x.clone().requires_grad_()
    outputs = _Replay(graph).run(pixels)
    projections = {}
    for layer, numbers, output in zip(layers, units, outputs, strict=True):
        for select in ("map", "peak"):
            signals = [_seed(output.detach(), unit, select) for unit in numbers]
            grads = [torch.autograd.grad(output, pixels, signal, retain_graph=True)[0] for signal in signals]
            projections[layer, select] = torch.cat(grads)
    return projections


def trace_operations(network: nn.Module, x: Tensor, layers: Sequence[str]) -> fx.GraphModule:
    """Return the ATen operations, none in place, that compute the outputs of layers from an image."""

    def run(image: Tensor) -> list[Tensor]:
        outputs: dict[str, Tensor] = {}

        def keep(call: Call) -> None:
            if call.layer in layers:
                outputs[call.layer] = call.output.clone()
            if len(outputs) == len(set(layers)):
                raise _Reached

        try:
            with trace(network, keep):
                network(image.clone())
        except _Reached:
            pass
        return [outputs[layer] for layer in layers]

    with torch.no_grad():
        functional = torch.func.functionalize(run)
        graph = make_fx(functional, _error_on_data_dependent_ops=False)(x)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _seed(output: Tensor, unit: int, select: str) -> Tensor:
    """Return the rectified map of a unit, or its first maximum, with all else zero.

    The units of an output whose first axis is not that of a batch of one are along its first axis.
    """
    seed = torch.zeros_like(output)
    unit_seeds = seed[0] if len(seed) == 1 and seed.ndim > 1 else seed
    plane = output.reshape(unit_seeds.shape)[unit].clamp(min=0)
    if select == "peak":
        first = torch.zeros_like(plane).flatten()
        first[plane.argmax()] = 1
        plane = plane * first.view(plane.shape)
    unit_seeds[unit] = plane
    return seed


class _Replay(fx.Interpreter):
    """Runs traced operations again with the backward rules of the deconvnet."""

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = target._schema.name.removeprefix("aten::") if hasattr(target, "_schema") else ""
        if name in ACTIVATIONS:
            return _activation(name, target, args, kwargs)
        if name in EXTREMA and "dim" not in target._schema.overload_name:
            return _extremum(name, *args, **kwargs)
        if name == "pow" and not isinstance(args[1], Tensor):
            return _power(target, *args)
        if name == "copy":
            return args[1].to(args[0].dtype).expand_as(args[0])
        if name == "view":  # the strides may be others than in the traced run
            return args[0].reshape(args[1])
        if name in CONSTANTS:
            return target(args[0].detach(), *args[1:], **kwargs)
        if name in ("div", "grid_sampler_2d", "grid_sampler_3d") and isinstance(args[1], Tensor):
            return target(args[0], args[1].detach(), *args[2:], **kwargs)
        if name == "torchvision::deform_conv2d":
            return target(*args[:2], args[2].detach(), *args[3:], **kwargs)
        if name.startswith(ATTENTION):
            return target(args[0].detach(), args[1].detach(), *args[2:], **kwargs)
        if name in NORMS:
            return NORMS[name](*args)
        return super().call_function(target, args, kwargs)


def _extremum(name: str, x: Tensor, axes: Sequence[int] = (), keepdim: bool = False) -> Tensor:
    """Return amax or amin, whose signal goes to the first position of the extremum."""
    axes = sorted(axis % x.ndim for axis in axes) or list(range(x.ndim))
    others = [axis for axis in range(x.ndim) if axis not in axes]
    flat = x.permute(*others, *axes).flatten(len(others))
    index = (flat if "max" in name else -flat).argmax(-1, keepdim=True)
    shape = [x.shape[axis] if axis in others else 1 for axis in range(x.ndim)]
    extremum = flat.gather(-1, index)
    return extremum.reshape(shape if keepdim else [x.shape[axis] for axis in others])


def _power(target: Any, x: Tensor, exponent: float) -> Tensor:
    """Return a power: whole numbers are products, negative ones quotients, one half is an activation."""
    if exponent == 0.5:
        return _activation("sqrt", target, (x, exponent), {})
    return target(x.detach() if exponent < 0 else x, exponent)


def _activation(name: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an activation whose first argument gets the rectified signal; that of a `where` is its second."""
    place = 1 if name == "where" else 0

    def operation(argument: Tensor) -> Any:
        return target(*args[:place], argument, *args[place + 1 :], **kwargs)

    return _Rectify.apply(operation, args[place])


def _normalise(
    x: Tensor, mean: Tensor, inverse: Tensor, weight: Tensor | None, bias: Tensor | None, shape: Sequence[int]
) -> Tensor:
    """Return the normalised x, with statistics that are constants."""
    normalised = (x - mean.detach()) * inverse.detach()
    normalised = normalised if weight is None else normalised * weight.reshape(shape)
    return normalised if bias is None else normalised + bias.reshape(shape)


def _batch_norm(
    x: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, momentum: float, eps: float
) -> tuple[Tensor]:
    axes = [0, *range(2, x.ndim)]
    shape = [1, -1, *[1] * (x.ndim - 2)]
    if training:
        variance, mean = torch.var_mean(x, axes, correction=0)
    return (_normalise(x, mean.reshape(shape), (variance.reshape(shape) + eps).rsqrt(), weight, bias, shape),)


def _batch_norm_impl(
    x: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, momentum: float, eps: float
) -> tuple[Tensor]:
    return _batch_norm(x, weight, bias, mean, variance, False, momentum, eps)


def _group_norm(
    x: Tensor, weight: Any, bias: Any, n: int, channels: int, pixels: int, groups: int, eps: float
) -> tuple[Tensor]:
    variance, mean = torch.var_mean(x.reshape(n, groups, -1), -1, correction=0, keepdim=True)
    grouped = (x.reshape(n, groups, -1) - mean.detach()) * (variance + eps).rsqrt().detach()
    shape = [1, channels, *[1] * (x.ndim - 2)]
    zero = torch.zeros((), dtype=x.dtype)
    return (_normalise(grouped.reshape(x.shape), zero, zero + 1, weight, bias, shape),)


def _layer_norm(x: Tensor, shape: Sequence[int], weight: Any, bias: Any, eps: float) -> tuple[Tensor]:
    variance, mean = torch.var_mean(x, list(range(-len(shape), 0)), correction=0, keepdim=True)
    return (_normalise(x, mean, (variance + eps).rsqrt(), weight, bias, shape),)


NORMS: dict[str, Callable[..., Any]] = {
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm_impl,
    "native_group_norm": _group_norm,
    "native_layer_norm": _layer_norm,
}
