"""The names of the classes that a network predicts."""

from collections.abc import Sequence

from convatlas import UserError
from convatlas.models.outputs import Output
from convatlas.paths import expand_home
from convatlas.pipeline.architecture_names import EMBEDDED, IMAGENET_CLASSES


def read_class_names(classes: list[str] | str | None, key: str) -> list[str] | None:
    """Return the class names that a config's `classes` gives.

    Args:
        classes: A list of names, the path of a text file (UTF-8) with one name a line, or "imagenet" for the
            names of ImageNet's 1,000 classes as torchvision has them; None for none.
        key: Place of `classes` in the config, for messages.

    Raises:
        UserError: The file cannot be read, or names no class.
    """
    if not isinstance(classes, str):
        return classes
    if classes == IMAGENET_CLASSES:
        from torchvision.models import AlexNet_Weights  # noqa: PLC0415  seconds to import

        return list(AlexNet_Weights.IMAGENET1K_V1.meta["categories"])
    path = expand_home(classes)
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except OSError as error:
        raise UserError(f"{key}: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{key}: {path} is not text in UTF-8: {error}") from error
    names = [line for line in lines if line]
    if not names:
        raise UserError(f"{key}: {path} names no class; write one name a line")
    return names


def list_weights_classes(architecture: str, weights: str, key: str) -> list[str]:
    """Return the names of the classes of torchvision's or embedded weights.

    Args:
        architecture: "torchvision/<name>".
        weights: The name of the weights.
        key: Place of the network in the config, for messages.

    Raises:
        UserError: torchvision has no such network or weights.
    """
    from convatlas.models.torchvision_models import get_weights_entry  # noqa: PLC0415  seconds to import

    entry = get_weights_entry(architecture, "IMAGENET1K_V1" if weights == EMBEDDED else weights, key)
    return list(entry.meta["categories"])


def check_class_names(names: Sequence[str], output: Output, key: str) -> list[str]:
    """Return the names of a network's classes: `names`, or the scores' numbers where there are no names.

    Args:
        names: Names of the classes; empty without names.
        output: What the network's output means.
        key: Place of the names in the config, for messages.

    Returns:
        A name for each score; two for one score that tells two classes apart; none of a network without class
        scores.

    Raises:
        UserError: The number of names is not that of the scores.
    """
    if names and output.shape and not output.fits(len(names)):
        count = output.shape[0]
        raise UserError(
            f"{key}: got {len(names)} class names, but the network's output has {count} "
            f"score{'s' if count > 1 else ''}; give {count} names, one for each score in its order"
            + (", or two for one score that tells the second class from the first" if count == 1 else "")
        )
    if output.kind == "none":
        return []
    return list(names or map(str, range(output.shape[0])))
