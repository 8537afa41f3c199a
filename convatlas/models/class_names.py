"""The names of the classes that a network tells apart."""

from pathlib import Path

from convatlas import UserError


def read_class_names(given: list[str] | str | None, key: str) -> list[str] | None:
    """Give the names in a config's `classes`: a list, or a text file with one a line."""
    if not isinstance(given, str):
        return given
    path = Path(given).expanduser()
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except OSError as error:
        raise UserError(f"{key}: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{key}: {path} is no text in UTF-8: {error}") from error
    names = [line for line in lines if line]
    if not names:
        raise UserError(f"{key}: {path} names no class; write one a line")
    return names


def check_class_names(names: list[str] | None, outputs: int | None, key: str) -> list[str]:
    """Give the names for a network of so many outputs, plain numbers where there are none.

    `outputs` is None where they are no scores of classes; then any names will do. Raises UserError
    where there is not one name an output.
    """
    if names and outputs is not None and len(names) != outputs:
        raise UserError(f"{key}: {len(names)} names of classes for a network of {outputs} outputs")
    return names or [str(number) for number in range(outputs or 0)]
