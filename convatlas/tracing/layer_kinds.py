"""The kinds of layers: of a module by its class, of a function or operator by its name in `layer_names`."""

from torch import nn

from convatlas.records import Kind

# The kinds of layer by the class of the module; the first match counts.
MODULE_KINDS: list[tuple[Kind, tuple[type, ...]]] = [
    ("conv", (nn.modules.conv._ConvNd,)),
    ("linear", (nn.Linear, nn.Bilinear)),
    ("pool", (nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd, nn.modules.pooling._LPPoolNd,
              nn.modules.pooling._AdaptiveAvgPoolNd, nn.modules.pooling._AdaptiveMaxPoolNd)),
    ("norm", (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm, nn.RMSNorm)),
    ("dropout", (nn.modules.dropout._DropoutNd,)),
    ("reshape", (nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle)),
]  # fmt: skip

# Functions and operators that are layers where a composite module calls them, by kind. Names are
# without underscores: `add` stands for torch.add, Tensor.add_, + and += alike.
_FUNCTIONS_BY_KIND: dict[Kind, str] = {
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
}
FUNCTION_KINDS: dict[str, Kind] = {
    name: kind for kind, names in _FUNCTIONS_BY_KIND.items() for name in names.split()
}


def module_kind(module: nn.Module) -> Kind:
    """Return the kind of a module by its class.

    Args:
        module: Any module.

    Returns:
        The kind; "other" where none matches.
    """
    for kind, classes in MODULE_KINDS:
        if isinstance(module, classes):
            return kind
    if isinstance(module, nn.MultiheadAttention):
        return "other"
    is_activation = any(cls.__module__ == "torch.nn.modules.activation" for cls in type(module).__mro__)
    return "activation" if is_activation else "other"
