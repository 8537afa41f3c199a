"""The classes whose scores are attributed: as the config names them, or as each image gives them."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from convatlas import UserError
from convatlas.attribution.class_scores import ClassScores
from convatlas.models.outputs import predict_classes
from convatlas.names import suggest_nearest
from convatlas.pipeline.config_types import TargetSelection

TOP_COUNT = 3  # classes of "top3"


def find_class_errors(selection: TargetSelection, classes: Sequence[str], key: str) -> Iterator[str]:
    """Yield what is wrong with the numbers and names of classes in `targets`.

    Args:
        selection: `views.attribution.targets`.
        classes: Names of the network's classes; empty where they are not known.
        key: Place of the selection in the config.
    """
    for target in selection if isinstance(selection, list) else []:
        if isinstance(target, int):
            if classes and target >= len(classes):
                yield f"{key}: no class {target}; there are {len(classes):,}, counted from 0"
        elif classes and target not in classes:
            yield f"{key}: no class {target!r}; {suggest_nearest(target, classes)}"
        elif classes.count(target) > 1:
            numbers = [str(number) for number, name in enumerate(classes) if name == target]
            hint = f"give a number: {', '.join(numbers)}"
            yield f"{key}: {target!r} is the name of {len(numbers)} classes; {hint}"


def number_classes(selection: Sequence[int | str], classes: Sequence[str], key: str) -> list[int]:
    """Return the numbers of the classes that `targets` lists, each once.

    Args:
        selection: Numbers and names.
        classes: Names of the network's classes.
        key: Place of the selection in the config, for the error.

    Raises:
        UserError: There is no such class, or several have one name.
    """
    if errors := list(find_class_errors(list(selection), classes, key)):
        raise UserError("\n".join(errors))
    numbers = [target if isinstance(target, int) else list(classes).index(target) for target in selection]
    return list(dict.fromkeys(numbers))


def rank_classes(class_scores: ClassScores, scores: Tensor) -> Tensor:
    """Return the classes of images, those of the highest scores or of the most pixels first.

    Args:
        class_scores: The scores of the network.
        scores: Those of N images, (N, classes) or (N, classes, h, w) of pixels.

    Returns:
        Class numbers, (N, classes) int64; -1 for an image whose scores are not finite.
    """
    if scores.ndim == 2:
        is_finite, sizes = predict_classes(scores) >= 0, scores
    else:
        is_finite = scores.isfinite().flatten(1).all(1)
        classes = torch.arange(scores.shape[1], device=scores.device).expand(len(scores), -1)
        targets = class_scores.make_targets(scores.nan_to_num(0, 0, 0), classes)
        assert targets.pixels is not None
        sizes = targets.pixels.sum((2, 3))
    order = sizes.argsort(dim=1, descending=True, stable=True)
    return order.where(is_finite[:, None], -1)
