"""The schema's errors in one line each: the key, the value given, what is allowed, the nearest name."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import jsonschema

from convatlas.names import suggest_nearest

# Old keys by the section that holds them, and old values by section and key, with their new names.
RENAMED_KEYS: dict[str, dict[str, str]] = {
    "training": {
        "average": "ema_decay",
        "coarse": "progressive_resize",
        "widen": "scale",
        "turn": "rotate",
    },
    "images": {"skip_unreadable": "on_bad_image"},
    "views": {"road": "highlight", "pdf": "formats"},
    "remark": {"words": "text"},
}
RENAMED_VALUES: dict[str, dict[str, str]] = {
    "on_bad_image": {"stop": "error"},
    "single_file.layers": {"road": "highlight"},
}

JSON_TYPE_LABELS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "array": "a list",
    "object": "a mapping",
    "boolean": "true or false",
    "null": "null",
}
PYTHON_TYPE_LABELS = {
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "a mapping",
    type(None): "null",
}
FAR_MAXIMUM = 100_000  # from which on a limit is stated only of a value beyond it
MAX_VALUE_LENGTH = 80  # characters of a value that a message shows


def list_schema_errors(config: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield one line for each error of a config against its schema, sorted by key.

    Unlike JSON Schema, 64.0 is no integer: the code counts with these numbers. NaN and infinite numbers are
    none.

    Args:
        config: The config, before defaults are filled in.
        schema: The JSON Schema.
    """
    type_checker = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"integer": _is_integer, "number": lambda checker, value: _is_finite(value)}
    )
    extend: Any = jsonschema.validators.extend
    validator = extend(jsonschema.Draft202012Validator, type_checker=type_checker)(schema)
    for error in sorted(validator.iter_errors(config), key=lambda error: list(map(str, error.path))):
        yield from _format_error(error)


def _is_integer(checker: object, value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, float) and math.isfinite(value)
    )


def _format_error(error: Any) -> Iterator[str]:
    """Yield the lines for one error of jsonschema: one, or one for each unknown key."""
    key = ".".join(map(str, error.absolute_path)) or "the top level"
    renamed = RENAMED_KEYS.get(key.rpartition(".")[2], {})
    if error.validator == "additionalProperties":
        known_keys = list(error.schema["properties"])
        for name in error.instance:
            if name in renamed:
                yield f"{key}.{name} is called {key.rpartition('.')[2]}.{renamed[name]} now"
            elif name not in known_keys:
                yield f"{key}: unknown key {name!r}; {suggest_nearest(name, known_keys)}"
    elif error.validator == "required":
        present = {*error.instance, *(renamed[name] for name in error.instance if name in renamed)}
        if missing := [name for name in error.validator_value if name not in present]:
            yield f"{key}: {', '.join(map(repr, missing))} must be given"
    elif "propertyNames" in error.absolute_schema_path:
        rule = f"is not {error.schema['description']}" if "description" in error.schema else ""
        yield (
            f"{key}: {error.instance!r} {rule}"
            if rule
            else f"{key}: the name {error.instance!r} must be text; it may hold only letters, digits, '-' "
            "and '_', and starts with a letter or digit"
        )
    else:
        yield f"{key}: {_format_value_error(key, error.instance, error.schema)}"


def _format_value_error(key: str, value: object, schema: Mapping[str, Any]) -> str:
    """Say that a value is not allowed, or what it is called now."""
    for suffix, renamed in RENAMED_VALUES.items():
        if f".{key}".endswith(f".{suffix}") and isinstance(value, str) and value in renamed:
            return f"{value!r} is called {renamed[value]!r} now"
    kind = PYTHON_TYPE_LABELS.get(type(value), f"a {type(value).__name__}")
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=str)
    hint = _suggest_literal(value, schema)
    takes_text = "string" in schema.get("type", []) and "pattern" not in schema
    if takes_text and isinstance(value, bool | int | float):
        hint = "; YAML reads a number, or a word such as yes, no, on and off, as text only in quotes"
    return f"got {text[:MAX_VALUE_LENGTH]} ({kind}); allowed: {_describe_allowed(schema, value)}{hint}"


def _suggest_literal(value: object, schema: Mapping[str, Any]) -> str:
    """Return the nearest of a schema's words, for a text such as "Grad-CAM" that is none of them; or ""."""
    words = [word for word in schema.get("enum", _get_pattern_literals(schema)) if isinstance(word, str)]
    if not isinstance(value, str) or "array" in schema.get("type", []):
        return ""
    close = get_close_matches(re.sub(r"[\s-]", "_", value.lower()), words, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _describe_allowed(schema: Mapping[str, Any], value: object) -> str:
    """Return what a schema allows instead of a value, in words."""
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    types = schema.get("type", [])
    literals = " or ".join(map(repr, _get_pattern_literals(schema)))
    alternatives = [
        literals if kind == "string" and literals else _describe_type(kind, schema, value)
        for kind in ([types] if isinstance(types, str) else types)
    ]
    allowed = " or ".join(alternatives)
    if "pattern" in schema and not literals:
        allowed += f" that matches {schema['pattern']}"
    return allowed


def _describe_type(kind: str, schema: Mapping[str, Any], value: object) -> str:
    """Return the values of one JSON type that a schema allows, in words."""
    text = JSON_TYPE_LABELS[kind]
    if kind in ("integer", "number"):
        if "minimum" in schema:
            text += f" of at least {schema['minimum']}"
        is_above = isinstance(value, int) and value > schema.get("maximum", math.inf)
        if is_above or schema.get("maximum", math.inf) < FAR_MAXIMUM:
            text += f" and at most {schema['maximum']}"
        if "exclusiveMinimum" in schema:
            text += " above 0"
    if kind == "array" and schema.get("uniqueItems"):
        text += " without repeats"
    if kind == "array" and "maxItems" in schema:
        fewest, most = schema.get("minItems", 0), schema["maxItems"]
        return f"{text} with {most if fewest == most else f'{fewest} to {most}'} entries"
    if "minProperties" in schema or (kind == "array" and "minItems" in schema):
        text += " with at least one entry"
    return text


def _get_pattern_literals(schema: Mapping[str, Any]) -> list[str]:
    """Return the words that a schema's pattern matches, as of `^(all|first)$`; none if it matches others."""
    pattern = schema.get("pattern", "")
    if not pattern.startswith("^") or not pattern.endswith("$"):
        return []
    words: list[str] = pattern[1:-1].removeprefix("(").removesuffix(")").split("|")
    return words if all(word.isalnum() for word in words) else []
