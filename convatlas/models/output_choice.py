"""The main tensor among several that a network returns: named, or chosen by evidence, or not claimed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from torch import Tensor

from convatlas import UserError
from convatlas.models import output_graph
from convatlas.models.outputs import Output, get_parts, list_tensors

MAIN_NAMES = ("out", "logits")  # of torchvision's segmentation networks, and of transformers' outputs
# Parts of names of tensors that are no scores of classes.
OTHER_NAMES = re.compile("hidden|pool|feat|embed|atten|box|anchor|landmark|loss|latent", re.IGNORECASE)
# The last operations of logits; after others, such as ReLU or pooling, tensors of another size are features.
LINEAR_OPERATIONS = output_graph.WEIGHTED_OPERATIONS | {"Add"}
MAX_LISTED = 12  # tensors that a message lists


@dataclass(frozen=True)
class ClassCounts:
    """The numbers of classes that a network may have scores of, where they are known.

    Attributes:
        images: Number of classes of images.
        pixels: Number of classes of pixels.
    """

    images: int | None = None
    pixels: int | None = None

    def fit(self, shape: Sequence[int]) -> bool:
        """Return whether there are as many scores as classes, or one score for two classes.

        Args:
            shape: Shape (scores,), or (scores, H, W) of pixels.
        """
        return self.equal(shape) or (shape[0] == 1 and self._get_count(shape) == 2)

    def equal(self, shape: Sequence[int]) -> bool:
        """Return whether there are as many scores as classes.

        Args:
            shape: Shape (scores,), or (scores, H, W) of pixels.
        """
        return shape[0] == self._get_count(shape)

    def _get_count(self, shape: Sequence[int]) -> int | None:
        """Return the number of classes of what has scores of a shape: images or pixels."""
        return self.images if len(shape) == 1 else self.pixels


@dataclass(frozen=True)
class MainTensor:
    """The main tensor of a network's output on one image.

    Attributes:
        path: Its path in the output.
        tensor: The tensor.
        source: What names it as scores: the config, or its name; "" where nothing does.
    """

    path: str
    tensor: Tensor
    source: str = ""


def get_score_shape(tensor: Tensor, input_size: Sequence[int]) -> tuple[int, ...] | None:
    """Return the shape of scores that a tensor of one image may hold.

    Args:
        tensor: A tensor of a network's output on one image.
        input_size: Height and width of the input.

    Returns:
        (scores,), or (scores, H, W) of pixels, also after `squeeze()`; None where it holds neither.
    """
    shape = tuple(tensor.shape)
    if not tensor.is_floating_point() or not tensor.numel():
        return None
    if shape[-2:] == tuple(input_size) and tensor.numel() == shape[-2] * shape[-1]:
        return (1, *shape[-2:])
    if len(shape) < 2:
        return (tensor.numel(),)
    if shape[0] != 1:
        return None
    if tensor.numel() == shape[1]:
        return (shape[1],)
    return shape[1:] if len(shape) == 4 else None


def get_named_tensor(outputs: Any, path: str, key: str) -> MainTensor:
    """Return the tensor at a path of the config.

    Args:
        outputs: The network's output on one image.
        path: `output.path` of the config.
        key: Place of the network in the config, for messages.

    Raises:
        UserError: There is no tensor at the path; lists those that there are.
    """
    tensors = list_tensors(outputs)
    if path in tensors:
        return MainTensor(path, tensors[path], f"{path!r} is set in the config")
    if "" in tensors:
        raise UserError(
            f"{key}.output.path: got {path!r}, but the network returns a single tensor of shape "
            f"{tuple(tensors[''].shape)}; remove the path"
        )
    nearest = get_close_matches(path, tensors, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise UserError(
        f"{key}.output.path: the network's output has no tensor {path!r}; {hint}there are: "
        f"{format_tensors(tensors)}"
    )


def choose_main_tensor(outputs: Any, counts: ClassCounts, input_size: Sequence[int]) -> MainTensor | str:
    """Choose the main tensor of a network's output by evidence.

    A tensor that is called "out" or "logits" is the main one, and so is the only one. Else, of those that may
    hold scores: the only one with as many scores as classes; or that the others were computed on the way to;
    or the only one that a softmax computed; or, of scores of the same classes, the one behind most
    convolutions and matrix products: the others are auxiliary outputs.

    Args:
        outputs: The network's output on one image, with its graph.
        counts: Numbers of classes, where they are known.
        input_size: Height and width of the input.

    Returns:
        The main tensor; where the evidence does not tell, the reason, as the end of a sentence.
    """
    path, part, is_named = _follow_names(outputs)
    if isinstance(part, Tensor):
        return MainTensor(path, part, "by its name" if is_named else "")
    tensors = {f"{path}.{name}".lstrip("."): tensor for name, tensor in list_tensors(part).items()}
    if _is_detection(part):
        return "it returns detections, such as boxes"
    candidates = {
        name: tensor
        for name, tensor in tensors.items()
        if tensor.ndim and get_score_shape(tensor, input_size) and not OTHER_NAMES.search(name)
    }
    if not candidates:
        return (
            f"it returns no tensor of shape (N, classes) or (N, classes, H, W), but {format_tensors(tensors)}"
        )
    shapes = {name: get_score_shape(tensor, input_size) or () for name, tensor in candidates.items()}
    for has_number in (counts.equal, counts.fit):
        fitting = {name: tensor for name, tensor in candidates.items() if has_number(shapes[name])}
        if fitting:
            break
    chosen = _choose_by_graph(fitting or candidates, shapes)
    if chosen is None:
        return (
            f"{len(candidates)} of the tensors that it returns may be scores of classes: "
            f"{format_tensors(candidates)}; name one in the config, as in "
            f"output: {{path: {next(iter(candidates))}}}"
        )
    return MainTensor(chosen, candidates[chosen])


def _follow_names(outputs: Any) -> tuple[str, Any, bool]:
    """Follow the names of main outputs, and containers of one tensor, as far as they lead.

    Returns:
        The path, the part of the output there, and whether a name led to it.
    """
    path: list[str] = []
    is_named = False
    while not isinstance(outputs, Tensor) and not _is_detection(outputs):
        parts = {name: part for name, part in get_parts(outputs).items() if _has_scores(part)}
        named = [name for name in MAIN_NAMES if name in parts]
        if not named and len(parts) != 1:
            break
        name = named[0] if named else next(iter(parts))
        is_named = is_named or bool(named)
        outputs = parts[name]
        path.append(name)
    return ".".join(path), outputs, is_named


def _has_scores(part: Any) -> bool:
    """Return whether a part of an output holds more than None, plain values and single numbers."""
    return any(tensor.ndim for tensor in list_tensors(part).values())


def _is_detection(outputs: Any) -> bool:
    """Return whether an output is a list of mappings, one per image, or holds the boxes of detected objects.

    One box beside the scores of the image's classes is that of a network that classifies and localises.
    """
    parts = get_parts(outputs)
    is_list = isinstance(outputs, tuple | list) and not hasattr(outputs, "_fields")
    if is_list and parts and all(isinstance(part, Mapping) for part in parts.values()):
        return True
    return "boxes" in parts and ("labels" in parts or not _is_one_box_with_scores(parts))


def _is_one_box_with_scores(parts: Mapping[str, Any]) -> bool:
    """Return whether the parts of an output hold one box, (1, coordinates), and scores (1, classes)."""
    names = [
        name for name, part in parts.items() if isinstance(part, Tensor) and part.ndim == 2 and len(part) == 1
    ]
    return "boxes" in names and not all(OTHER_NAMES.search(name) for name in names)


def _choose_by_graph(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return the name of the tensor that the graph shows to be the main one; None where it does not."""
    last = [
        name
        for name in tensors
        if not any(_is_intermediate(name, other, tensors, shapes) for other in tensors if other != name)
    ]
    if len(last) == 1:
        return last[0]
    softmaxed = [
        name
        for name in last
        if output_graph.list_last_operations(tensors[name]) in ({"Softmax"}, {"LogSoftmax"})
        and shapes[name][0] > 1
    ]
    if len(softmaxed) == 1:
        return softmaxed[0]
    if len({(len(shapes[name]), shapes[name][0]) for name in last}) > 1:
        return None
    # Auxiliary outputs leave the network earlier (GoogLeNet's classifiers; deep supervision).
    depths = {name: output_graph.count_weighted_operations(tensors[name]) for name in last}
    deepest = [name for name in last if depths[name] == max(depths.values())]
    return deepest[0] if len(deepest) == 1 else None


def _is_intermediate(
    name: str, other: str, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> bool:
    """Return whether a tensor is a value on the way to another one, and not its scores with a value of them.

    Features lead to scores, logits to their probabilities. A single number that is computed from scores, such
    as their entropy, leaves the scores the main tensor.
    """
    if not output_graph.is_computed_from(tensors[other], tensors[name]):
        return False
    if shapes[name] == shapes[other]:
        return True
    is_linear = bool(output_graph.list_last_operations(tensors[name]) & LINEAR_OPERATIONS)
    return shapes[other][0] > 1 and not is_linear


def find_training_output(output: Output, outputs: Any, images: int) -> Output:
    """Return where the scores are in an output in training mode, which may hold auxiliary outputs too.

    Args:
        output: What the network's output means in evaluation mode.
        outputs: Its output in training mode on a batch.
        images: Number of the images in the batch.

    Returns:
        The output, with the path of its scores in training mode.
    """
    tensors = list_tensors(outputs)
    if output.path in tensors:
        return output
    path, part, _ = _follow_names(outputs)
    candidates = {
        path: tensor
        for path, tensor in ({path: part} if isinstance(part, Tensor) else tensors).items()
        if replace(output, path=path).select_scores(outputs, images) is not None
    }
    depths = {path: output_graph.count_weighted_operations(tensor) for path, tensor in candidates.items()}
    return replace(output, path=max(depths, key=depths.__getitem__)) if depths else output


def format_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return tensors as text: "logits (1, 10), hidden (1, 64, 7, 7)".

    Args:
        tensors: Tensors by path.
    """
    listed = [f"{name or 'a tensor'} {tuple(tensor.shape)}" for name, tensor in tensors.items()]
    if len(listed) > MAX_LISTED:
        listed = [*listed[:MAX_LISTED], f"and {len(listed) - MAX_LISTED} more"]
    return ", ".join(listed) or "no tensors"
