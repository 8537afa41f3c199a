"""The names of the classes that a network predicts."""

from collections.abc import Sequence
from pathlib import Path

from convatlas import UserError


def read_class_names(classes: list[str] | str | None, key: str) -> list[str] | None:
    """Return the class names that a config's `classes` gives.

    Args:
        classes: A list of names, or the path of a text file (UTF-8) with one name a line; None for none.
        key: Place of `classes` in the config, for messages.

    Raises:
        UserError: The file cannot be read, or names no class.
    """
    if not isinstance(classes, str):
        return classes
    path = Path(classes).expanduser()
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


def check_class_names(names: Sequence[str] | None, outputs: int | None, key: str) -> list[str]:
    """Return the names of a network's outputs: `names`, or the outputs' numbers where there are no names.

    Args:
        names: Names of the classes, if there are any.
        outputs: Number of the network's outputs; None where they are not scores of classes, so that any
            names will do.
        key: Place of the names in the config, for messages.

    Raises:
        UserError: The number of names is not that of the outputs.
    """
    if names and outputs is not None and len(names) != outputs:
        raise UserError(
            f"{key}: {len(names)} class names for a network of {outputs} outputs; give one name each"
        )
    return list(names or map(str, range(outputs or 0)))
