"""What the deconvnet does at each step of a network's computation, whatever the network.

Torch's autograd keeps a graph of what was computed, and going down it applies the exact adjoint of each
step: transposed filters without biases, unpooling into the switches (what meets in one place adds up),
batch norm as a factor, both branches of a sum. The deconvnet (Zeiler & Fergus, arXiv 1311.2901, section
2.1) differs at the rectifier alone: there the signal itself is rectified. Working on the graph rather
than on modules finds each of them: functional, in place, reused, or within a block.

What depends on the image otherwise (a normalisation's statistics, a quotient's denominator, attention
weights) is held fixed at the image's own.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.backends.mkldnn import set_flags
from torch.utils.hooks import RemovableHandle

from convatlas import UserError

Grads = tuple[Tensor | None, ...]
BackwardRule = Callable[
    [Node, Grads, Grads], Grads
]  # the step, what autograd sends down, what came from above

# Steps whose adjoint autograd gives: linear ones, and pooling into its switches.
ADJOINT_NODES = set(
    """
    Accumulate Add Addbmm Addmm Addmv Baddbmm Sub Rsub Neg Mul Mm Mv Bmm Dot Matmul Linear Sum Mean Cat Stack
    Convolution ConvolutionOverrideable SlowConv2D SlowConvTranspose2D Thnn_conv2D MkldnnConvolution
    MaxPool1DWithIndices MaxPool2DWithIndices MaxPool3DWithIndices AdaptiveMaxPool2D AdaptiveMaxPool3D
    MaxUnpool2D MaxUnpool3D FractionalMaxPool2D AvgPool2D AvgPool3D AdaptiveAvgPool2D MkldnnAdaptiveAvgPool2D
    AdaptiveAvgPool3D View UnsafeView ReshapeAlias Transpose Permute T Expand ExpandAs Squeeze Unsqueeze Slice
    Select Split SplitWithSizes UnsafeSplit Unbind Narrow Index IndexSelect Gather Flip Roll Repeat Unfold
    Im2Col Col2Im AsStrided Alias Clone Copy ToCopy Contiguous Detach Identity ConstantPadNd ReflectionPad1D
    ReflectionPad2D ReflectionPad3D ReplicationPad1D ReplicationPad2D ReplicationPad3D PixelShuffle
    PixelUnshuffle ChannelShuffle UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D UpsampleLinear1D
    UpsampleBilinear2D UpsampleBilinear2DAa UpsampleBicubic2D UpsampleBicubic2DAa UpsampleTrilinear3D
    UpsampleNearestExact2D GridSampler2D Diagonal Tril Triu _ScaleBatchNorm
    """.split()
)  # fmt: skip
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
FEW_CHANNELS = 4  # channels, as the pixels have
RELU_NODES = {"Relu", "Threshold", "ClampMin", "Clamp"}  # the last three only where they cut at zero
ACTIVATION_NODES = RELU_NODES | set(
    """
    LeakyRelu Elu Celu Selu Gelu Silu Mish Glu Hardtanh Hardswish Hardsigmoid Sigmoid Tanh Softmax LogSoftmax
    Softplus Softshrink Hardshrink Softsign LogSigmoid PreluKernel Prelu RreluWithNoise ClampMax ClampTensor
    Maximum Minimum Where MaskedFill Abs Exp Log Sin Cos Erf Square Sqrt Relu6
    """.split()
)  # fmt: skip


def node_type(node: Node) -> str:
    """The step's name as torch has it, less its ending: ReluBackward0 is Relu."""
    return node.name().rpartition("::")[2].partition("Backward")[0].removesuffix("Grad")


def next_nodes(node: Node) -> list[Node]:
    """The steps to which a step hands the signal: those of its inputs that are not held fixed."""
    fixed = CONSTANT_INPUTS.get(node_type(node), ())
    return [lower for n, (lower, _) in enumerate(node.next_functions) if lower is not None and n not in fixed]


class _ScaleBatchNorm(torch.autograd.Function):
    """A batch norm with fixed statistics, going down: one product, where autograd takes four."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, made: Tensor, factor: Tensor) -> Tensor:
        ctx.factor = factor
        ctx.mark_dirty(made)  # it is given back as it is
        return made

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None, None]:
        return above * ctx.factor, None, None


@contextmanager
def simplify_batch_norms(network: nn.Module) -> Iterator[None]:
    """While the block runs, let the network's batch norms leave `_ScaleBatchNorm` in autograd's graph.

    Their outputs are their own; what goes down through them is the same, bit for bit.
    """

    def scaled(norm: Any, given: tuple[Tensor, ...], made: Tensor) -> Tensor:
        factor = (norm.running_var + norm.eps).rsqrt()
        factor = factor if norm.weight is None else factor * norm.weight
        return _ScaleBatchNorm.apply(given[0], made.detach(), factor.reshape(-1, *[1] * (made.ndim - 2)))

    norms = [m for m in network.modules() if type(m) in BATCH_NORMS and m.running_var is not None]
    handles = [norm.register_forward_hook(scaled) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def attach_rules(edge: Any, names: Mapping[Node, str], rectify: bool) -> Iterator[None]:
    """Set the deconvnet's rules on every step from a layer (its gradient edge) down to the pixels.

    They are taken off again at the end: a step that knows itself through its rule is never freed.
    `names` has the layer to which a step is the last. Raises UserError, which names the layers, where an
    activation is not a ReLU, unless `rectify` says to rectify the signal there too, and where a step has
    no adjoint.
    """
    hooks: list[RemovableHandle] = []
    try:
        _register_rules(hooks, edge, names, rectify)
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _register_rules(
    hooks: list[RemovableHandle], edge: Any, names: Mapping[Node, str], rectify: bool
) -> None:
    """Set the rules, and add to `hooks` what takes each of them off."""
    seen, others, unknown = set(), {}, {}
    todo = [(edge.node, names.get(edge.node, ""))]
    while todo:
        node, layer = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        layer = names.get(node, layer)
        kind = node_type(node)
        rule = BACKWARD_RULES.get(kind)
        if kind in ACTIVATION_NODES:
            rule = _relu_rule
            if not _is_relu(node, kind):
                others[layer] = kind
        elif rule is None and kind not in ADJOINT_NODES:
            unknown[layer] = node.name()
        if kind == "Convolution" and node._saved_input.shape[1] <= FEW_CHANNELS:
            hooks += _disable_onednn(node)
        if rule is not None:
            hooks.append(
                node.register_hook(lambda down, above, node=node, rule=rule: rule(node, down, above))
            )
        todo += [(lower, layer) for lower in next_nodes(node)]
    if unknown:
        raise UserError(
            f"no deconvnet goes through this network: it knows no adjoint of "
            f"{_format_layers(unknown, names)}; choose a layer before it, or none (views.deconv.layers: [])"
        )
    if others and not rectify:
        raise UserError(
            f"the deconvnet is defined for ReLUs, and these activations are none: {_format_layers(others, names)}; "
            "views.deconv.rectify: true rectifies the signal there too, and the page says so; "
            "views.deconv.layers: [] leaves the deconvnet out"
        )


def _disable_onednn(node: Node) -> list[RemovableHandle]:
    """Take torch's own code for one step down: oneDNN's is 2 to 6 times as slow down to few channels."""
    before: list[bool] = []

    def off(above: Grads) -> None:
        before.append(set_flags(_enabled=False)[0])

    def on(down: Grads, above: Grads) -> None:
        set_flags(_enabled=before.pop())

    return [node.register_prehook(off), node.register_hook(on)]


def _format_layers(layers: dict[str, str], names: Mapping[Node, str]) -> str:
    """Name the layers nearest to the pixels, and how many more there are."""
    ordered = [layer for layer in dict.fromkeys([*names.values(), ""]) if layer in layers]
    named = [f"{layer or 'the network itself'} ({layers[layer]})" for layer in ordered]
    return ", ".join(named[:6]) + (f" and {len(named) - 6} more" if len(named) > 6 else "")


def _is_relu(node: Any, kind: str) -> bool:
    """Whether an activation is max(x, 0), under whatever name."""
    if kind == "Threshold":
        return node._saved_threshold == 0
    if kind == "ClampMin":
        return node._saved_min == 0
    if kind == "Clamp":
        return node._saved_min == 0 and node._saved_max is None
    return kind == "Relu"


def _relu_rule(node: Node, grad_input: Grads, grad_output: Grads) -> Grads:
    """At a rectifier the signal is rectified, whatever the activation was."""
    assert grad_output[0] is not None
    return _grad_to_first_input(grad_input, grad_output[0].relu())


def _norm_rule(node: Any, grad_input: Grads, grad_output: Grads) -> Grads:
    """GroupNorm, LayerNorm: multiply by gamma over the image's own deviation, no shift."""
    signal, inverse, gamma = grad_output[0], node._saved_result2, node._saved_weight
    assert signal is not None
    if node_type(node) == "NativeGroupNorm":  # (N, groups), gamma a channel
        n, channels = signal.shape[0], signal.shape[1]
        factor = inverse.reshape(n, -1, 1).expand(n, -1, channels // inverse.shape[1]).reshape(n, channels)
        factor = factor if gamma is None else factor * gamma
        return _grad_to_first_input(
            grad_input, signal * factor.reshape(n, channels, *[1] * (signal.ndim - 2))
        )
    return _grad_to_first_input(grad_input, signal * inverse if gamma is None else signal * inverse * gamma)


def _batch_norm_rule(node: Any, grad_input: Grads, grad_output: Grads) -> Grads:
    """Batch norm's running statistics are constants; an instance norm's are the image's own."""
    if not node._saved_training:
        return grad_input
    signal, inverse, gamma = grad_output[0], node._saved_result2, node._saved_weight
    assert signal is not None
    factor = inverse if gamma is None else inverse * gamma
    return _grad_to_first_input(grad_input, signal * factor.reshape(1, -1, *[1] * (signal.ndim - 2)))


def _division_rule(node: Node, grad_input: Grads, grad_output: Grads) -> Grads:
    """A quotient of two signals passes the signal to its numerator."""
    return _grad_to_first_input(grad_input, grad_input[0])


def _attention_rule(node: Node, grad_input: Grads, grad_output: Grads) -> Grads:
    """Attention passes the signal to the values, not to what weighs them."""
    return tuple(
        torch.zeros_like(g) if g is not None and n in (0, 1) else g for n, g in enumerate(grad_input)
    )


def _constant_rule(node: Node, grad_input: Grads, grad_output: Grads) -> Grads:
    """One over a norm, and attention's weights, are constants."""
    return tuple(None if g is None else torch.zeros_like(g) for g in grad_input)


def _grad_to_first_input(grad_input: Grads, signal: Tensor | None) -> Grads:
    return (signal, *(None if g is None else torch.zeros_like(g) for g in grad_input[1:]))


BACKWARD_RULES: dict[str, BackwardRule] = {
    "NativeBatchNorm": _batch_norm_rule,
    "CudnnBatchNorm": _batch_norm_rule,
    "MiopenBatchNorm": _batch_norm_rule,
    "NativeGroupNorm": _norm_rule,
    "NativeLayerNorm": _norm_rule,
    "Div": _division_rule,
    "Rsqrt": _constant_rule,
    "Reciprocal": _constant_rule,
    "ScaledDotProductFlashAttentionForCpu": _attention_rule,
    "ScaledDotProductFlashAttention": _attention_rule,
    "ScaledDotProductEfficientAttention": _attention_rule,
    "ScaledDotProductCudnnAttention": _attention_rule,
    "ScaledDotProductFusedAttentionOverrideable": _attention_rule,
    "SafeSoftmax": _constant_rule,  # its weights, where it is not fused
}
# The inputs of a step that are held fixed, by their place: nothing below them is looked at.
CONSTANT_INPUTS: dict[str, tuple[int, ...]] = {
    **{name: (0, 1) for name in BACKWARD_RULES if name.startswith("Scaled")},
    **{name: (0,) for name, rule in BACKWARD_RULES.items() if rule is _constant_rule},
    "Div": (1,),
}
