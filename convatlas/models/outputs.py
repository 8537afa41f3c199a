"""What the output of a network means: its main tensor, the scores of classes, and their probabilities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from convatlas.names import MULTI_LABEL_KINDS
from convatlas.records import NetworkDescription, OutputDescription, OutputKind

MAX_DEPTH = 8  # containers within containers


def list_tensors(outputs: Any) -> dict[str, Tensor]:
    """Return the tensors in a network's output by their paths, such as "logits" or "1.scores".

    Args:
        outputs: What the network's forward pass returned: a tensor, or mappings, tuples, lists, dataclasses
            or other objects with tensors.

    Returns:
        The tensors in their order; a path joins names and numbers by dots, and is "" for the output itself.
    """
    if isinstance(outputs, Tensor):
        return {"": outputs}
    return dict(_walk_tensors(outputs, (), MAX_DEPTH))


def _walk_tensors(part: Any, path: tuple[str, ...], depth: int) -> list[tuple[str, Tensor]]:
    """Return the tensors in a part of an output, with their paths."""
    if isinstance(part, Tensor):
        return [(".".join(path), part)]
    if not depth:
        return []
    parts = get_parts(part)
    return [pair for name in parts for pair in _walk_tensors(parts[name], (*path, name), depth - 1)]


def get_parts(outputs: Any) -> dict[str, Any]:
    """Return the parts of a container by name, or by number; none of a tensor or a plain value.

    Args:
        outputs: A network's output, or a part of it.
    """
    if isinstance(outputs, Mapping):
        return {str(name): part for name, part in outputs.items()}
    if isinstance(outputs, tuple | list):
        names = getattr(outputs, "_fields", range(len(outputs)))  # of a named tuple
        return {str(name): part for name, part in zip(names, outputs, strict=True)}
    if is_dataclass(outputs) and not isinstance(outputs, type):
        return {field.name: getattr(outputs, field.name) for field in fields(outputs)}
    if isinstance(outputs, Tensor | nn.Module | type):
        return {}
    return dict(getattr(outputs, "__dict__", {}))


@dataclass(frozen=True)
class Output:
    """What the output of a network means, as network.json says.

    Attributes:
        kind: How its main tensor is read as scores of classes; "none" where it is not.
        path: The path of its main tensor in the output; "" for the output itself.
        shape: The shape of the main tensor without the batch axis: (scores,) of an image, or (scores, H, W)
            of its pixels; () where it is neither.
        class_count: Number of classes: that of the scores, but 2 for a score of the second of two classes.
        reason: How the kind is known, for pages and messages.
    """

    kind: OutputKind = "softmax"
    path: str = ""
    shape: tuple[int, ...] = ()
    class_count: int = 0
    reason: str = ""

    @classmethod
    def from_description(cls, network: NetworkDescription) -> "Output":
        """Read the output of a network from its network.json.

        Args:
            network: Contents of network.json.
        """
        output = network["output"]
        shape = tuple(output["shape"])
        return cls(output["kind"], output["path"], shape, len(network["classes"]), output["reason"])

    def to_dict(self) -> OutputDescription:
        """Return the entry `output` of network.json."""
        return {"kind": self.kind, "path": self.path, "shape": list(self.shape), "reason": self.reason}

    @property
    def is_per_pixel(self) -> bool:
        """Whether the main tensor has a score, or another value, for each pixel."""
        return len(self.shape) == 3

    def covers(self, input_size: Sequence[int]) -> bool:
        """Return whether there is a score for each pixel of the input, as it is or at a fraction of its size.

        Args:
            input_size: Height and width of the input; inputs of one or three axes have no pixels.
        """
        if not self.is_per_pixel or len(input_size) != 2:
            return False
        (height, width), (input_height, input_width) = self.shape[1:], input_size
        has_one_ratio = height * input_width == width * input_height
        return has_one_ratio and input_height % height == 0 and input_width % width == 0

    def fits(self, class_count: int) -> bool:
        """Return whether there are as many scores as classes, or one score for the second of two classes.

        Args:
            class_count: Number of classes.
        """
        return self.shape[:1] == (class_count,) or (self.shape[:1] == (1,) and class_count == 2)

    @property
    def is_binary(self) -> bool:
        """Whether one score tells the second of two classes from the first."""
        return self.shape[:1] == (1,) and self.class_count == 2

    @property
    def is_multi_label(self) -> bool:
        """Whether several classes may be right at once."""
        return self.kind in MULTI_LABEL_KINDS and self.shape[0] > 1

    @property
    def score_kind(self) -> OutputKind:
        """How the scores of `select_scores` are read, which has two of a binary classifier."""
        if self.is_binary and self.kind != "none":
            return "probabilities" if self.kind == "independent-probabilities" else "softmax"
        return self.kind

    def select_scores(self, outputs: Any, images: int) -> Tensor | None:
        """Return the scores of classes in a network's output.

        Args:
            outputs: What the network's forward pass returned.
            images: Number N of the images in the batch.

        Returns:
            The scores (N, classes), or (N, classes, H, W) of pixels, also where `squeeze()` removed axes. The
            scores of a binary classifier are 0 and its logit, or both probabilities. None where the output
            has no scores, or none of N images.
        """
        tensor = None if self.kind == "none" else list_tensors(outputs).get(self.path)
        if tensor is None or not tensor.is_floating_point() or not tensor.numel():
            return None
        scores = self._restore_axes(tensor, images)
        if scores is not None and self.is_binary:
            first = 1 - scores if self.kind == "independent-probabilities" else torch.zeros_like(scores)
            scores = torch.cat([first, scores], 1)
        return scores

    def _restore_axes(self, tensor: Tensor, images: int) -> Tensor | None:
        """Return the main tensor as (N, scores) or (N, scores, H, W); None where it is not of N images."""
        if self.is_per_pixel:
            count, (height, width) = self.shape[0], tensor.shape[-2:]
            has_all = tensor.numel() == images * count * height * width
            return tensor.reshape(images, count, height, width) if has_all else None
        if tensor.ndim == 4 and not self.shape:
            return tensor  # scores of pixels, of a network that is not described
        count = self.shape[0] if self.shape else tensor.numel() // images
        if tensor.numel() != images * count:
            return None
        return tensor if tensor.ndim == 2 and len(tensor) == images else tensor.reshape(images, count)

    def compute_probabilities(self, scores: Tensor) -> Tensor:
        """Return the probabilities of classes from the scores of `select_scores`.

        Args:
            scores: Scores (N, classes), or (N, classes, H, W) of pixels.

        Returns:
            Probabilities of the same shape, float32. They sum to 1 only if the classes exclude each other.
        """
        scores = scores.float()
        if self.score_kind in ("softmax", "log-softmax"):
            return scores.softmax(1)
        return scores.sigmoid() if self.score_kind in ("sigmoid", "multi-label") else scores

    def predict(self, outputs: Any) -> Tensor | None:
        """Return the probabilities of the classes of one image.

        Args:
            outputs: What the network's forward pass on one image returned.

        Returns:
            Probabilities (classes,) float32; None where the output has no scores of images, or they give no
            probabilities because one is NaN or +∞. A score of −∞ is the logarithm of zero.
        """
        if self.is_per_pixel:
            return None
        scores = self.select_scores(outputs, images=1)
        if scores is None or predict_classes(scores) < 0:
            return None
        return self.compute_probabilities(scores)[0]


def predict_classes(scores: Tensor) -> Tensor:
    """Return the class of the highest score of each image.

    Args:
        scores: The scores of classes, (N, classes).

    Returns:
        Numbers of classes, (N,) int64; −1 where the scores give no prediction, since one is NaN or +∞, or all
        are −∞. Some may be −∞, as the logarithm of zero is.
    """
    largest = scores.amax(1)  # NaN where any is
    return scores.argmax(1).where(largest.isfinite(), -1)


def resize_scores(scores: Tensor, size: Sequence[int]) -> Tensor:
    """Return scores of pixels at another resolution, interpolated bilinearly.

    Args:
        scores: Scores (N, classes, h, w); others are returned as they are.
        size: Height and width.
    """
    if scores.ndim != 4 or scores.shape[2:] == tuple(size):
        return scores
    return functional.interpolate(scores, tuple(size), mode="bilinear", align_corners=False)


LOGITS = Output()  # of a network whose output is a tensor of logits
