"""The rules by which receptive fields pass through the operations of PyTorch, as its dispatcher runs them."""

from collections.abc import Sequence

from torch import Tensor

from convatlas.tracing import field_moves, field_windows
from convatlas.tracing.field_operation import (
    FieldOf,
    Operation,
    Result,
    UnknownFieldError,
    broadcast,
    field_of_input,
    rules_by_name,
    take,
)
from convatlas.tracing.receptive_field import AxisField, unite


def propagate(operation: Operation, field_of: FieldOf) -> Result:
    """Return the field of what an operation returns, along one axis of the input.

    Args:
        operation: The operation.
        field_of: The field of each of its tensors.

    Raises:
        UnknownFieldError: The rules do not cover the operation.
    """
    fields = [field for t in operation.tensors if (field := field_of(t)) is not None]
    if operation.name in CONSTANTS or not fields:
        return None
    if any(tensor.numel() == 0 for tensor in operation.tensors):
        raise UnknownFieldError(operation.name)
    rule = RULES.get(operation.name, _pointwise if operation.is_pointwise else None)
    if rule is not None:
        return rule(operation, field_of)
    if all(field.is_global for field in fields):  # whatever it computes
        return fields[0].reduce(range(fields[0].ndim), keepdim=False).lift(operation.result.ndim)
    raise UnknownFieldError(operation.name)


def _unite_broadcast(pairs: Sequence[tuple[AxisField | None, Tensor]], shape: Sequence[int]) -> AxisField:
    """Return the field of values computed from tensors that broadcast to a shape."""
    return unite([broadcast(field, tensor.shape, shape) for field, tensor in pairs if field is not None])


def _pointwise(operation: Operation, field_of: FieldOf) -> AxisField:
    pairs = [(field_of(tensor), tensor) for tensor in operation.tensors]
    return _unite_broadcast(pairs, operation.result.shape)


def _copy_into(operation: Operation, field_of: FieldOf) -> AxisField | None:
    source = operation.arguments["src"]
    field = field_of(source)
    return None if field is None else broadcast(field, source.shape, operation.result.shape)


def _reduce(operation: Operation, field_of: FieldOf) -> AxisField:
    keepdim = operation.arguments.get("keepdim", False)
    return field_of_input(operation, field_of).reduce(operation.get_dims(), keepdim)


def _spread(operation: Operation, field_of: FieldOf) -> AxisField:
    """Every value along the dimensions depends on all of them."""
    return field_of_input(operation, field_of).reduce(operation.get_dims())


def _gate(operation: Operation, field_of: FieldOf) -> AxisField:
    field, (d,) = field_of_input(operation, field_of), operation.get_dims()
    size = operation.input.shape[d]
    return unite([take(field, d, half, size) for half in (range(size // 2), range(size // 2, size))])


def _layer_norm(operation: Operation, field_of: FieldOf) -> AxisField:
    ndim = operation.input.ndim
    first = ndim - len(operation.arguments["normalized_shape"])
    return field_of_input(operation, field_of).reduce(range(first, ndim))


def _group_norm(operation: Operation, field_of: FieldOf) -> AxisField:
    return field_of_input(operation, field_of).reduce(range(1, operation.input.ndim))


def _batch_norm(operation: Operation, field_of: FieldOf) -> AxisField:
    field = field_of_input(operation, field_of)
    dims = [d for d in range(field.ndim) if d != 1]
    return field.reduce(dims) if operation.arguments.get("training") else field


def _matmul(operation: Operation, field_of: FieldOf) -> AxisField:
    *others, a, b = operation.tensors
    shape = operation.result.shape
    fields = [broadcast(field, t.shape, shape) for t in others if (field := field_of(t)) is not None]
    if (field := field_of(a)) is not None:
        fields.append(field.reduce([a.ndim - 1], keepdim=b.ndim > 1))
    if (field := field_of(b)) is not None:
        fields.append(field.reduce([max(b.ndim - 2, 0)], keepdim=b.ndim > 1))
    return unite(fields).lift(len(shape))


def _attention(operation: Operation, field_of: FieldOf) -> AxisField:
    """Each query attends to all keys and values."""
    ndim = operation.input.ndim
    query, key, value, *others = (field_of(tensor) for tensor in operation.tensors)
    if any(field is not None for field in others):
        raise UnknownFieldError(operation.name)
    fields = [field.reduce([ndim - 2, ndim - 1]) for field in (key, value) if field is not None]
    return unite(fields + ([query.reduce([ndim - 1])] if query is not None else []))


def _attend_to_all(operation: Operation, field_of: FieldOf) -> AxisField:
    """Each token depends on all tokens of its image, (N, tokens, channels)."""
    fields = [field for t in operation.tensors if (field := field_of(t)) is not None]
    return unite([field.reduce([1, 2]) for field in fields])


CONSTANTS = set(
    """
    zeros_like ones_like empty_like full_like rand_like randn_like randint_like new_zeros new_ones new_full
    new_empty new_empty_strided fill zero normal uniform bernoulli exponential random _local_scalar_dense
    """.split()
)
# Of other operations that PyTorch calls pointwise, the rule is `_pointwise`.
_COMBINING_RULES = rules_by_name(
    {
        _pointwise: "alias detach lift lift_fresh clone contiguous _to_copy dropout native_dropout hardswish "
        "hardsigmoid _prelu_kernel rrelu_with_noise log_sigmoid_forward threshold softplus masked_fill",
        _copy_into: "copy",
        _reduce: "mean sum amax amin max min var std var_mean std_mean linalg_vector_norm norm logsumexp "
        "prod any all argmax argmin nansum median aminmax count_nonzero",
        _spread: "_softmax _safe_softmax _log_softmax sort topk",
        _gate: "glu",
        _layer_norm: "native_layer_norm",
        _group_norm: "native_group_norm",
        _batch_norm: "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training "
        "cudnn_batch_norm miopen_batch_norm",
        _matmul: "mm bmm addmm baddbmm mv dot addmv",
        _attention: "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
        "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention "
        "_scaled_dot_product_fused_attention_overrideable",
        _attend_to_all: "_native_multi_head_attention _transformer_encoder_layer_fwd",
    }
)
RULES = field_moves.RULES | field_windows.RULES | _COMBINING_RULES
