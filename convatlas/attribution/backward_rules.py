"""The backward rules of the deconvnet: what it does at each operation of any network.

Autograd records a graph of what a network computed, and its backward pass applies the exact adjoint of each
operation: transposed filters without biases, unpooling into the switches (signals that meet at one position
add up), batch norm as a factor, both branches of a sum. The deconvnet (Zeiler & Fergus, arXiv 1311.2901,
section 2.1) differs at the rectifier alone: there it rectifies the signal itself. Rules on the graph rather
than on modules reach every rectifier: functional, in place, reused, or inside a block. A rectifier with a
maximum, as ReLU6, is one too.

Other quantities that depend on the image (the statistics of a normalisation, a vector norm, the denominator
of a quotient, attention weights, the places that a spatial transformer or a deformable convolution reads
from) are constants, at their values for the image.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node
from torch.backends import mkldnn
from torch.utils.hooks import RemovableHandle

from convatlas import UserError
from convatlas.attribution.edit_advice import advise_edit
from convatlas.attribution.inplace_writes import Write, find_write
from convatlas.attribution.logits import SKIPPABLE_NODES, is_skipped

Grads = tuple[Tensor | None, ...]
# From a node, autograd's gradients of its inputs, and those of its outputs, to the gradients of its inputs.
BackwardRule = Callable[[Node, Grads, Grads], Grads]

SKIP_LAYER = "choose a layer before it, or none (views.deconv.layers: [])"
# Operations whose adjoint autograd computes: linear ones, pooling into its switches, and other selections.
ADJOINT_NODES = set(
    """
    Accumulate Add Addbmm Addcmul Addmm Addmv Baddbmm Sub Rsub Neg Mul Mm Mv Bmm Dot Matmul Linear Lerp Sum
    Mean Cumsum Cat Stack
    Convolution ConvolutionOverrideable SlowConv2D SlowConvTranspose2D Thnn_conv2D MkldnnConvolution
    MaxPool1DWithIndices MaxPool2DWithIndices MaxPool3DWithIndices AdaptiveMaxPool2D AdaptiveMaxPool3D
    MaxUnpool2D MaxUnpool3D FractionalMaxPool2D AvgPool2D AvgPool3D AdaptiveAvgPool2D MkldnnAdaptiveAvgPool2D
    AdaptiveAvgPool3D View UnsafeView ReshapeAlias Transpose Permute T Expand ExpandAs Squeeze Unsqueeze Slice
    Select Split SplitWithSizes UnsafeSplit Unbind Narrow Index IndexSelect IndexAdd IndexCopy Gather
    Scatter ScatterAdd SelectScatter SliceScatter Flip Roll Rot90 Repeat Unfold
    Im2Col Col2Im AsStrided Alias Clone Copy ToCopy Contiguous Detach Identity ConstantPadNd ReflectionPad1D
    ReflectionPad2D ReflectionPad3D ReplicationPad1D ReplicationPad2D ReplicationPad3D PixelShuffle
    PixelUnshuffle ChannelShuffle UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D UpsampleLinear1D
    UpsampleBilinear2D UpsampleBilinear2DAa UpsampleBicubic2D UpsampleBicubic2DAa UpsampleTrilinear3D
    UpsampleNearestExact2D Diagonal Tril Triu Topk Sort Kthvalue _ScaleBatchNorm
    FftR2C FftC2R FftC2C ViewAsReal ViewAsComplex Complex Conj IndexPut torchvision_roi_align
    """.split()
)  # fmt: skip
GENERATED = "GeneratedBackwardFor_"  # how the names of registered operators' nodes begin
# Operations in place on a part of a tensor whose adjoint, CopySlices, autograd computes.
WRITE_OPERATIONS = {"Add", "Sub", "Mul", "Neg", "Copy", "Fill", "Zero", "Div"}
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
INPUT_NODE = "Accumulate"  # where the gradient of the network's input arrives
MAX_PIXEL_CHANNELS = 4  # an input with no more channels holds pixels
# Rectifiers, all but the first only where they clip at zero; Hardtanh from 0 to 6 is ReLU6.
RELU_NODES = {"Relu", "Threshold", "ClampMin", "Clamp", "Hardtanh"}
ACTIVATION_NODES = RELU_NODES | set(
    """
    LeakyRelu Elu Celu Selu Gelu Silu Mish Glu Hardswish Hardsigmoid Sigmoid Tanh Softmax LogSoftmax
    Softplus Softshrink Hardshrink Softsign LogSigmoid PreluKernel Prelu RreluWithNoise ClampMax ClampTensor
    Maximum Minimum Where MaskedFill Abs Exp Log Sin Cos Erf Square Sqrt Relu6
    """.split()
)  # fmt: skip


def node_type(node: Node) -> str:
    """Return the operation of a node, such as Relu of ReluBackward0 or of a write into a slice.

    Args:
        node: A node of autograd's graph.
    """
    write = find_write(node)
    if write is not None:
        return write.operation
    name = node.name().rpartition("::")[2]
    if name.startswith(GENERATED):  # of a registered operator, such as torchvision_deform_conv2d
        return name.removeprefix(GENERATED).rpartition("_")[0]
    name = name.partition("Backward")[0].removesuffix("Grad")
    if name in SKIPPABLE_NODES and is_skipped(node):
        return "Identity"
    if name == "IndexPut" and _writes_by_mask(node):
        return "MaskedPut"
    return _power_type(node) if name == "Pow" else name


def _writes_by_mask(node: Any) -> bool:
    """Return whether a write to places of a tensor takes a mask, as y[y < 0] = 0, which is an activation."""
    return any(index is not None and index.dtype == torch.bool for index in node._saved_indices)


def _power_type(node: Any) -> str:
    """Return the operation that a power with a constant exponent is: x ** 2 is the product x * x."""
    exponent = node._saved_exponent
    if isinstance(exponent, Tensor):
        return "Pow"
    if exponent < 0:
        return "Reciprocal"
    if exponent == 0.5:
        return "Sqrt"
    return "Mul" if exponent >= 1 and exponent == int(exponent) else "Pow"


def next_nodes(node: Node) -> list[Node]:
    """Return the nodes to which a node passes the signal: those of its inputs that are no constants.

    Args:
        node: A node of autograd's graph.
    """
    constant = CONSTANT_INPUTS.get(node_type(node), ())
    return [
        child for n, (child, _) in enumerate(node.next_functions) if child is not None and n not in constant
    ]


class _ScaleBatchNorm(torch.autograd.Function):
    """A batch norm with constant statistics whose backward pass is one product, not autograd's four."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, output: Tensor, factor: Tensor) -> Tensor:
        ctx.factor = factor
        ctx.mark_dirty(output)  # it is returned as it is
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        return grad_output * ctx.factor, None, None


@contextmanager
def simplify_batch_norms(network: nn.Module) -> Iterator[None]:
    """Let the batch norms of a network record `_ScaleBatchNorm` in the graph while the block runs.

    Their outputs do not change; the signal below them equals the exact adjoint up to rounding. Subclasses and
    calls of the function follow `apply_batch_norm_rule` instead.

    Args:
        network: The network. Batch norms without running statistics stay as they are.
    """

    def record_scale(norm: Any, inputs: tuple[Tensor, ...], output: Any) -> Any:
        if not output.requires_grad or node_type(output.grad_fn) == "_ScaleBatchNorm":  # of an outer block
            return output
        factor = (norm.running_var + norm.eps).rsqrt()
        factor = factor if norm.weight is None else factor * norm.weight
        factor = factor.reshape(-1, *[1] * (output.ndim - 2))
        return _ScaleBatchNorm.apply(inputs[0], output.detach(), factor)

    norms = [m for m in network.modules() if type(m) in BATCH_NORMS and m.running_var is not None]
    handles = [norm.register_forward_hook(record_scale) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class OneDNNSwitch:
    """Use torch's own kernel for a convolution's adjoint: oneDNN's takes 2 to 6 times as long to pixels.

    Args:
        node: The node of the convolution.
    """

    def __init__(self, node: Node) -> None:
        self.previous: list[bool] = []
        self.handles = [node.register_prehook(self._disable), node.register_hook(self._restore)]

    def _disable(self, grad_output: Grads) -> None:
        self.previous.append(_set_onednn(False))

    def _restore(self, grad_input: Grads, grad_output: Grads) -> None:
        _set_onednn(self.previous.pop())

    def remove(self) -> None:
        """Remove the hooks, and switch oneDNN on again where the convolution's adjoint has failed."""
        for handle in self.handles:
            handle.remove()
        if self.previous:
            _set_onednn(self.previous[0])
            self.previous.clear()


@contextmanager
def attach_rules(
    edge: GradientEdge, layers: Mapping[Node, str], rectify: bool, skip: str = SKIP_LAYER
) -> Iterator[None]:
    """Apply the deconvnet's rules in every backward pass from a layer to the pixels while the block runs.

    Args:
        edge: Where the layer stands in autograd's graph.
        layers: The names of layers, by the last node of each.
        rectify: Rectify the signal at activations that are not ReLUs too.
        skip: How to do without the deconvnet, for messages.

    Raises:
        UserError: An activation is not a ReLU and `rectify` is false, or the adjoint of an operation is not
            known; the message names the layers.
    """
    hooks: list[RemovableHandle | OneDNNSwitch] = []
    try:
        _register_rules(hooks, edge, layers, rectify, skip)
        yield
    finally:
        for hook in hooks:  # a node that refers to itself through its hook is never freed
            hook.remove()


def _register_rules(
    hooks: list[RemovableHandle | OneDNNSwitch],
    edge: GradientEdge,
    layers: Mapping[Node, str],
    rectify: bool,
    skip: str,
) -> None:
    """Register the rules of every node below an edge, and add their handles to `hooks`."""
    visited: set[Node] = set()
    other_activations: dict[str, str] = {}
    unknown: dict[str, str] = {}
    advice: set[str] = set()
    pending: list[tuple[Any, str]] = [(edge.node, layers.get(edge.node, ""))]
    while pending:
        node, layer = pending.pop()
        if node in visited:
            continue
        visited.add(node)
        layer = layers.get(node, layer)
        operation, write = node_type(node), find_write(node)
        rule = BACKWARD_RULES.get(operation)
        if operation in ACTIVATION_NODES:
            rule = _relu_rule if write is None else _relu_rule_of_write(write)
            if not is_rectifier(node):
                other_activations[layer] = operation
        elif operation not in WRITE_OPERATIONS if write else rule is None and operation not in ADJOINT_NODES:
            unknown[layer] = node.name()
            advice.add(advise_edit(node, operation))
        if reads_pixels(node):
            hooks.append(OneDNNSwitch(node))
        if rule is not None:
            hooks.append(node.register_hook(partial(rule, node)))
        pending += [(child, layer) for child in next_nodes(node)]
    if unknown:
        raise UserError(
            "no deconvnet goes through this network: it knows no adjoint of "
            f"{format_layers(unknown, layers)}, in the layer or just before it. In the network, "
            f"{'; '.join(sorted(advice))}. Or {skip}"
        )
    if not any(node_type(node) == INPUT_NODE for node in visited):
        raise UserError(
            f"no deconvnet goes to the image: {layers.get(edge.node, 'the layer')} depends on the image only "
            "through what the deconvnet takes as constants, such as norms, denominators, or the weights of "
            f"attention; {skip}"
        )
    if other_activations and not rectify:
        raise UserError(
            "the deconvnet is defined for ReLUs (ReLU6 too), and these activations are none: "
            f"{format_layers(other_activations, layers)}; "
            f"views.deconv.rectify: true rectifies the signal there too, and the page says so; or {skip}"
        )


def reads_pixels(node: Any) -> bool:
    """Return whether a node is a convolution of an input that may be pixels.

    Args:
        node: A node of autograd's graph.
    """
    return node_type(node) == "Convolution" and bool(node._saved_input.shape[1] <= MAX_PIXEL_CHANNELS)


def _set_onednn(enabled: bool) -> bool:
    """Switch oneDNN on or off, and return whether it was on."""
    flags: tuple[bool, ...] = mkldnn.set_flags(_enabled=enabled)  # type: ignore[no-untyped-call]
    return flags[0]


def format_layers(operations: dict[str, str], layers: Mapping[Node, str]) -> str:
    """List layers with their operations: those nearest to the pixels, and how many more there are.

    Args:
        operations: The operations by layer; "" is the network itself.
        layers: The names of all layers, in execution order, by the last node of each.
    """
    ordered = [layer for layer in dict.fromkeys([*layers.values(), ""]) if layer in operations]
    items = [f"{layer or 'the network itself'} ({operations[layer]})" for layer in ordered]
    return ", ".join(items[:6]) + (f" and {len(items) - 6} more" if len(items) > 6 else "")


def is_activation(node: Node) -> bool:
    """Return whether a node is an activation, a ReLU or another.

    Args:
        node: A node of autograd's graph.
    """
    return node_type(node) in ACTIVATION_NODES


def is_rectifier(node: Node) -> bool:
    """Return whether a node is max(x, 0), with or without a positive maximum as ReLU6.

    Args:
        node: A node of autograd's graph.
    """
    write = find_write(node)
    return _is_relu(node, node_type(node)) if write is None else _is_relu_write(write)


def _is_relu(node: Any, operation: str) -> bool:
    """Return whether an activation is max(x, 0), with or without a positive maximum as ReLU6, by any name."""
    if operation == "Threshold":
        return bool(node._saved_threshold == 0)
    if operation == "ClampMin":
        return bool(node._saved_min == 0)
    if operation == "Clamp":
        return _clips_at_zero(node._saved_min, node._saved_max)
    if operation == "Hardtanh":
        return _clips_at_zero(node._saved_min_val, node._saved_max_val)
    return operation == "Relu"


def _is_relu_write(write: Write) -> bool:
    """Return whether an operation in place is a rectifier, as `_is_relu`."""
    arguments = write.arguments
    if write.operation == "Threshold":
        return arguments[:2] == (0, 0)
    if write.operation == "ClampMin":
        return arguments[:1] == (0,)
    if write.operation in ("Clamp", "Hardtanh"):
        return bool(arguments) and _clips_at_zero(arguments[0], arguments[1] if arguments[1:] else None)
    return write.operation == "Relu"


def _clips_at_zero(low: float | None, high: float | None) -> bool:
    """Return whether a clamp from `low` to `high` is a rectifier: at zero, with or without a maximum."""
    return low == 0 and (high is None or high > 0)


def _relu_rule(node: Node, grad_input: Grads, grad_output: Grads) -> Grads:
    """Rectify the signal, whatever the activation was."""
    assert grad_output[0] is not None
    return _grad_to_first_input(grad_input, grad_output[0].relu())


def _relu_rule_of_write(write: Write) -> BackwardRule:
    """Return the rule of an activation in place: rectify the signal where it wrote, and keep the rest."""
    region = write.region()

    def rectify_region(node: Node, grad_input: Grads, grad_output: Grads) -> Grads:
        signal = grad_output[0]
        assert signal is not None
        return _grad_to_first_input(grad_input, torch.where(region, signal.relu(), signal))

    return rectify_region


def _norm_rule(node: Any, grad_input: Grads, grad_output: Grads) -> Grads:
    """GroupNorm, LayerNorm: multiply by gamma over the standard deviation of the image, without a shift."""
    signal, inverse, gamma = grad_output[0], node._saved_result2, node._saved_weight
    assert signal is not None
    if node_type(node) == "NativeGroupNorm":  # inverse (N, groups), gamma (channels,)
        n, channels = signal.shape[0], signal.shape[1]
        factor = inverse.reshape(n, -1, 1).expand(n, -1, channels // inverse.shape[1]).reshape(n, channels)
        factor = factor if gamma is None else factor * gamma
        return _grad_to_first_input(
            grad_input, signal * factor.reshape(n, channels, *[1] * (signal.ndim - 2))
        )
    return _grad_to_first_input(grad_input, signal * inverse if gamma is None else signal * inverse * gamma)


def apply_batch_norm_rule(node: Any, grad_input: Grads, grad_output: Grads) -> Grads:
    """Batch norm: multiply by gamma over the standard deviation, which is constant, running or of the image.

    Autograd's own adjoint is not taken, even in evaluation mode: torch 2.15's is reported to be wrong on
    CPU for one image whose input is contiguous and whose gradient is channels last.
    """
    signal, gamma = grad_output[0], node._saved_weight
    assert signal is not None
    if node._saved_training:
        inverse = node._saved_result2
    else:
        eps = node._saved_eps if hasattr(node, "_saved_eps") else node._saved_epsilon  # of cuDNN and MIOpen
        inverse = (node._saved_running_var + eps).rsqrt()
    factor = inverse if gamma is None else inverse * gamma
    return _grad_to_first_input(grad_input, signal * factor.reshape(1, -1, *[1] * (signal.ndim - 2)))


def _extremum_rule(node: Any, grad_input: Grads, grad_output: Grads) -> Grads:
    """Maximum or minimum over axes: unpool into its position, the first in raster order of equal values."""
    if hasattr(node, "_saved_indices"):  # of one axis, whose adjoint autograd computes
        return grad_input
    x, signal = node._saved_self, grad_output[0]
    assert signal is not None
    reduced = [n if n < x.ndim else n - 2**64 for n in getattr(node, "_saved_dim", ())] or range(x.ndim)
    axes = sorted(n % x.ndim for n in reduced)
    shape = [1 if n in axes else size for n, size in enumerate(x.shape)]
    order = [n for n in range(x.ndim) if n not in axes] + axes
    is_extremum = x == node._saved_result.reshape(shape)
    flat = is_extremum.permute(order).flatten(x.ndim - len(axes))
    first = torch.zeros_like(flat).scatter(-1, flat.byte().argmax(-1, keepdim=True), True)
    position = first.reshape([x.shape[n] for n in order]).permute([order.index(n) for n in range(x.ndim)])
    return _grad_to_first_input(grad_input, signal.reshape(shape) * position)


def _constant_inputs_rule(node: Node, grad_input: Grads, grad_output: Grads) -> Grads:
    """Pass no signal to the inputs that are constants, such as a denominator."""
    constant = CONSTANT_INPUTS[node_type(node)]
    return tuple(
        torch.zeros_like(grad) if grad is not None and n in constant else grad
        for n, grad in enumerate(grad_input)
    )


def _grad_to_first_input(grad_input: Grads, signal: Tensor | None) -> Grads:
    """Return gradients that pass a signal to the first input alone."""
    return (signal, *(None if g is None else torch.zeros_like(g) for g in grad_input[1:]))


# The inputs of an operation that are constants, by their index: no signal goes to them.
CONSTANT_INPUTS: dict[str, tuple[int, ...]] = {
    "Div": (1,),
    "Addcdiv": (2,),
    "Rsqrt": (0,),
    "Reciprocal": (0,),
    "LinalgVectorNorm": (0,),  # what a layer divides or multiplies by, as in ConvNeXt-V2
    "Norm": (0,),
    "GridSampler2D": (1,),  # the places to read from, as in spatial transformers
    "GridSampler3D": (1,),
    "torchvision_deform_conv2d": (2,),  # the offsets
    "ScaledDotProductFlashAttentionForCpu": (0, 1),
    "ScaledDotProductFlashAttention": (0, 1),
    "ScaledDotProductEfficientAttention": (0, 1),
    "ScaledDotProductCudnnAttention": (0, 1),
    "ScaledDotProductFusedAttentionOverrideable": (0, 1),
    "SafeSoftmax": (0,),  # the weights of attention, where it is not fused
}
BACKWARD_RULES: dict[str, BackwardRule] = {
    "NativeBatchNorm": apply_batch_norm_rule,
    "CudnnBatchNorm": apply_batch_norm_rule,
    "MiopenBatchNorm": apply_batch_norm_rule,
    "NativeGroupNorm": _norm_rule,
    "NativeLayerNorm": _norm_rule,
    **dict.fromkeys(["Max", "Min", "Amax", "Amin"], _extremum_rule),
    **dict.fromkeys(CONSTANT_INPUTS, _constant_inputs_rule),
}
