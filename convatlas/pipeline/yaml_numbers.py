"""Numbers such as 1e-3, which YAML 1.1 reads as text for want of a dot, and YAML 1.2 and JSON as numbers."""

import re
from typing import Any

EXPONENT_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+\Z")
TAG = "!exponent"


class ExponentNumber(str):
    """A number with an exponent that stands without quotes in a YAML file, as its text.

    Whether text or a number is meant is decided where it is used.
    """

    __slots__ = ()


def mark_exponent_numbers(loader: Any) -> None:
    """Let a YAML loader return numbers with an exponent, if they are not quoted, as ExponentNumber.

    Args:
        loader: A class of loaders of PyYAML, changed in place. What it reads as a number by itself, such as
            1.0e-3, stays a float.
    """
    loader.add_implicit_resolver(TAG, EXPONENT_NUMBER, list("-+.0123456789"))
    loader.add_constructor(TAG, lambda loader, node: ExponentNumber(loader.construct_scalar(node)))


def convert_exponent_number(value: Any, types: str | list[str]) -> Any:
    """Return a number instead of its text, such as "1e-3", where a number is meant.

    Args:
        value: Any value; those that are not such a text are returned as they are.
        types: The JSON types that its schema allows; empty where it allows any, as in the arguments of a
            network's function, where quotes mark text.

    Returns:
        A float; an int for a whole number where the schema allows integers, not all numbers.
    """
    if not isinstance(value, str) or not EXPONENT_NUMBER.match(value):
        return value
    is_marked = isinstance(value, ExponentNumber)
    if (not types and is_marked) or ("number" in types and (is_marked or "string" not in types)):
        return float(value)
    if "integer" in types and (is_marked or "string" not in types) and float(value).is_integer():
        return int(float(value))
    return str(value)
