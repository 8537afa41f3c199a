"""What the output of a network means: decided once, before training, from one run on one input."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convatlas import UserError
from convatlas.models import output_graph
from convatlas.models.build import get_device
from convatlas.models.output_choice import (
    ClassCounts,
    MainTensor,
    choose_main_tensor,
    get_named_tensor,
    get_score_shape,
)
from convatlas.models.outputs import Output
from convatlas.models.preprocessing import Preprocessing
from convatlas.names import format_shape
from convatlas.pipeline.config_types import OutputConfig
from convatlas.records import OutputKind

PROBE_SEED = 0
TOLERANCE = {torch.float16: 1e-2, torch.bfloat16: 2e-2}  # of sums that are 1; of other types 2e-5
# Last operations after which numbers are no logits, unless they are as many as the classes.
ACTIVATIONS = {"Tanh", "Relu", "LeakyRelu", "Gelu", "Silu", "Elu", "Hardtanh", "Softplus"}
ASSUMPTION = "assumed from its shape; output.kind in the config may say otherwise"
SIGMOIDS = {"Sigmoid", "Hardsigmoid"}


@dataclass(frozen=True)
class Scores:
    """The numbers in the main tensor of a network on one input.

    Attributes:
        values: The numbers (scores,) or (scores, H, W), float32.
        tolerance: How far sums of probabilities may be from 1.
        operations: The operations that computed them last; empty where that is not known.
    """

    values: Tensor
    tolerance: float
    operations: frozenset[str]

    @classmethod
    def from_tensor(cls, tensor: Tensor, shape: tuple[int, ...]) -> "Scores":
        """Read a tensor of a network's output on one input.

        Args:
            tensor: The tensor, with its graph.
            shape: The shape of the scores in it, as `get_score_shape` returns it.
        """
        operations = frozenset(output_graph.list_last_operations(tensor))
        return cls(tensor.detach().float().reshape(shape), TOLERANCE.get(tensor.dtype, 2e-5), operations)

    def end_in_sigmoid(self) -> bool:
        """Return whether a sigmoid computed all numbers."""
        return bool(self.operations) and self.operations <= SIGMOIDS

    def are_probabilities(self) -> bool:
        """Return whether all numbers are in 0..1."""
        return bool(((self.values >= 0) & (self.values <= 1 + self.tolerance)).all())

    def sum_to_one(self) -> bool:
        """Return whether the numbers are in 0..1 and sum to 1 over the classes."""
        return self.are_probabilities() and bool(((self.values.sum(0) - 1).abs() < self.tolerance).all())

    def are_log_probabilities(self) -> bool:
        """Return whether the numbers are logarithms of probabilities that sum to 1 over the classes."""
        return bool((self.values.logsumexp(0).abs() < self.tolerance).all())

    def have_unit_length(self) -> bool:
        """Return whether the numbers are a vector of length 1."""
        return self.values.ndim == 1 and abs(float(self.values.norm()) - 1) < self.tolerance


def decide_output(
    network: nn.Module, preprocessing: Preprocessing, settings: OutputConfig, counts: ClassCounts, key: str
) -> Output:
    """Decide what the output of a network means.

    Args:
        network: The network, in evaluation mode.
        preprocessing: Its preprocessing, which has the shape of its input.
        settings: `output` of the network's section of the config.
        counts: Numbers of classes, where they are known.
        key: Place of the network in the config, for messages.

    Returns:
        The output; `class_count` is the number of its scores.

    Raises:
        UserError: `settings` names a tensor that is not there, or a kind that its numbers contradict.
    """
    outputs, input_size = _run_on_noise(network, preprocessing), preprocessing.shape[1:]
    if "path" in settings:
        main: MainTensor | str = get_named_tensor(outputs, str(settings["path"]), key)
    else:
        main = choose_main_tensor(outputs, counts, input_size)
    if settings.get("kind") == "none":
        return Output("none", reason="set in the config")
    shape = None if isinstance(main, str) else get_score_shape(main.tensor, input_size)
    if isinstance(main, str) or shape is None:
        reason = main if isinstance(main, str) else _describe_shape(main)
        if settings:
            raise UserError(f"{key}.output: {reason}")
        return Output("none", reason=reason)
    scores = Scores.from_tensor(main.tensor, shape)
    if "kind" in settings:
        kind, reason = settings["kind"], "set in the config"
        _check_kind(kind, scores, f"{key}.output.kind")
    else:
        kind, reason = _infer_kind(scores, main.source, counts.fit(shape))
    return Output(kind, main.path, shape, shape[0], reason)


def _run_on_noise(network: nn.Module, preprocessing: Preprocessing) -> Any:
    """Return a network's output on an input (1, C, H, W) of noise, with its graph where it can have one."""
    generator = torch.Generator().manual_seed(PROBE_SEED)
    noise = torch.randn(1, *preprocessing.shape, generator=generator).to(get_device(network))
    try:
        with torch.enable_grad():
            return network(noise.requires_grad_().clone())  # a copy, which may be changed in place
    except Exception:  # of networks that run without gradients only, or not on noise
        with torch.no_grad():
            return network(torch.zeros_like(noise))


def _describe_shape(main: MainTensor) -> str:
    """Return why a tensor holds no scores of classes."""
    shape, kind = tuple(main.tensor.shape), str(main.tensor.dtype).removeprefix("torch.")
    name = f"{main.path!r} in its output" if main.path else "its output"
    return f"{name} has the shape {shape} of {kind}, and not (N, classes) or (N, classes, H, W) of floats"


def _infer_kind(scores: Scores, source: str, fits_classes: bool) -> tuple[OutputKind, str]:
    """Return what scores mean, and how it is known.

    Args:
        scores: The scores.
        source: What names them as scores, such as "set in the config"; "" where nothing does.
        fits_classes: Whether they are as many as the classes.
    """
    shape, operations = tuple(scores.values.shape), scores.operations
    count, is_claimed = shape[0], bool(source) or fits_classes
    if count > 1 and scores.sum_to_one():
        return "probabilities", "they sum to 1"
    if count > 1 and scores.are_log_probabilities():
        return "log-softmax", "their exponentials sum to 1"
    if not is_claimed and (reason := _find_other_meaning(scores)):
        return "none", reason
    if count == 1 and (operations == {"LogSoftmax"} or (operations == {"Softmax"} and scores.sum_to_one())):
        return "none", "its only score is that of a softmax of one number, which is always 1; use a sigmoid"
    if scores.end_in_sigmoid() or operations == {"Softmax"}:
        return "independent-probabilities", f"it ends in a {' or '.join(sorted(operations)).lower()}"
    if not operations and scores.are_probabilities():
        return (
            "none",
            "its scores are in 0..1, but their last operation is not known; set output.kind in the config",
        )
    kind: OutputKind = "sigmoid" if count == 1 else "softmax"
    known = "as many scores as classes" if count > 1 else "one score"
    return kind, known if fits_classes else source or ASSUMPTION


def _find_other_meaning(scores: Scores) -> str:
    """Return what shows that numbers which nothing names as scores are none; "" where nothing does."""
    shape = tuple(scores.values.shape)
    if len(shape) == 3:
        return (
            f"its output of {format_shape(shape)} numbers may be an image, features or scores of pixels; "
            "classes or output.kind in the config tells"
        )
    if shape[0] > 1 and scores.have_unit_length():
        return f"its output is a vector of {shape[0]} numbers and length 1, such as an embedding"
    if activations := sorted(scores.operations & ACTIVATIONS):
        return f"its output ends in a {activations[0].lower()}, as logits do not; output.kind may tell"
    return ""


def _check_kind(kind: OutputKind, scores: Scores, key: str) -> None:
    """Raise UserError where the numbers of a network contradict the kind that the config sets."""
    count = len(scores.values)
    low, high = float(scores.values.min()), float(scores.values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        return
    error = None
    if kind == "softmax" and count == 1:
        error = "the softmax of a single score is always 1; allowed here: sigmoid, independent-probabilities"
    elif kind == "sigmoid" and count > 1:
        error = f"the output has {count} scores; allowed here: multi-label, or softmax, for exclusive classes"
    elif kind == "probabilities" and not (scores.sum_to_one() and count > 1):
        error = (
            f"the scores, from {low:.3g} to {high:.3g}, are not in 0..1 with the sum 1; give "
            "independent-probabilities if they are in 0..1, softmax or multi-label if they are logits"
        )
    elif kind == "independent-probabilities" and not scores.are_probabilities():
        error = f"the scores, from {low:.3g} to {high:.3g}, are not in 0..1; give multi-label for logits"
    elif kind == "log-softmax" and not scores.are_log_probabilities():
        error = f"the exponentials of the scores, from {low:.3g} to {high:.3g}, do not sum to 1; give softmax"
    elif kind in ("softmax", "multi-label") and count > 1 and scores.sum_to_one():
        error = "the scores are probabilities already: they sum to 1; give probabilities"
    elif kind in ("softmax", "multi-label", "sigmoid") and scores.end_in_sigmoid():
        error = "the network ends in a sigmoid already; give independent-probabilities"
    if error:
        raise UserError(f"{key}: got {kind!r}, but {error}")
