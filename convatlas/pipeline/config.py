"""The config: checked against the schema, all faults at once, and completed with its defaults."""

import json
from collections.abc import Iterator
from copy import deepcopy
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from convatlas import UserError
from convatlas.names import suggest_nearest
from convatlas.pipeline import architecture_names

SCHEMA_PATH = resources.files("convatlas.pipeline") / "config.schema.yaml"
NULLABLE_KEYS = {("training", "max_steps"), ("training", "coarse"), ("atlas", "layers"), ("deconv", "steps")}
NULLABLE_KEYS |= {("views", "strongest"), ("strongest", "batch"), ("strongest", "project")}
TEST_IMAGE_KEYS = ("digits", "first", "indices")  # images that a data set's test split gives
DEFAULT_PHOTOGRAPHS = ["cat", "astronaut", "coffee", "rocket"]

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


def resolve_config(config: dict[str, Any]) -> dict[str, Any]:
    """Check a merged config and complete it: nulls dropped, defaults filled, `only` applied.

    Each network comes back with its own `images` and `views`, and torchvision's weights under their
    full name. Raises UserError, which lists every fault: the key, what was given, what is allowed,
    the nearest name. Paths are seen from the working directory.
    """
    schema = yaml.safe_load(SCHEMA_PATH.read_text())
    config = _drop_nulls(config)
    faults = [*map(_format_schema_error, _find_schema_errors(config, schema)), *_find_unknown_names(config)]
    if faults:
        raise UserError("the config has a fault:\n" + "\n".join(f"  - {fault}" for fault in faults))
    config = _complete_networks(config, schema)
    if config["only"]:
        config["networks"] = {name: config["networks"][name] for name in config["only"]}
    used = {network["dataset"] for network in config["networks"].values() if "dataset" in network}
    config["datasets"] = {name: config["datasets"][name] for name in sorted(used)}
    return config


def _drop_nulls(value: Any, within: str = "") -> Any:
    """Drop keys set to null, by which an overlay removes what the default has, but where null is a value."""
    if not isinstance(value, dict):
        return deepcopy(value)
    return {
        key: _drop_nulls(item, key)
        for key, item in value.items()
        if item is not None or (within, key) in NULLABLE_KEYS
    }


def _find_schema_errors(config: dict[str, Any], schema: dict[str, Any]) -> list[jsonschema.ValidationError]:
    whole = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer",  # for JSON Schema 64.0 is one too, but not for those who count with it
        lambda _, value: isinstance(value, int) and not isinstance(value, bool),
    )
    checker = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=whole)
    return sorted(checker(schema).iter_errors(config), key=lambda error: list(map(str, error.path)))


def _complete_networks(config: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Give every network its own images and views, then fill in the schema's defaults."""
    images, views = config.pop("images", {"first": 5}), config.pop("views", {})
    for network in config["networks"].values():
        network["images"] = network.get("images") or _select_available_images(images, network)
        network["views"] = _merge_nested(views, network.get("views", {}))
        if isinstance(network.get("weights"), str):
            network["weights"] = architecture_names.resolve_weights_name(
                network["architecture"], network["weights"]
            )
    return _fill_defaults(config, schema, schema)


def _select_available_images(images: dict[str, Any], network: dict[str, Any]) -> dict[str, Any]:
    """The images for networks that name none; without a data set there are no test images."""
    if "dataset" in network:
        return images
    others = {kind: value for kind, value in images.items() if kind not in TEST_IMAGE_KEYS}
    return others if others.keys() - {"skip_unreadable"} else {**others, "photographs": DEFAULT_PHOTOGRAPHS}


def _merge_nested(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = deepcopy(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge_nested(merged[key], value) if both else value
    return merged


def _fill_defaults(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> Any:
    schema = _resolve_reference(schema, root)
    if not isinstance(value, dict) or not schema.keys() & {"properties", "additionalProperties"}:
        return value
    properties = schema.get("properties", {})
    filled = {}
    for key, item in value.items():
        inner = properties.get(key) or schema["additionalProperties"]
        filled[key] = _fill_defaults(item, inner, root)
    for key, inner in properties.items():
        inner = _resolve_reference(inner, root)
        if key not in value and "default" in inner:
            filled[key] = _fill_defaults(deepcopy(inner["default"]), inner, root)
    return filled


def _resolve_reference(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    return schema


def _format_schema_error(error: jsonschema.ValidationError) -> str:
    """One line for one fault: where, what was given, what is allowed."""
    key = ".".join(map(str, error.absolute_path)) or "the top level"
    if error.validator == "additionalProperties":
        known = list(error.schema["properties"])
        unknown = [name for name in error.instance if name not in known]
        return "; ".join(f"{key}: unknown key {n!r}; {suggest_nearest(n, known)}" for n in unknown)
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        return f"{key}: {', '.join(map(repr, missing))} must be given"
    if "propertyNames" in error.absolute_schema_path:
        if "description" in error.schema:
            return f"{key}: {error.instance!r} is not {error.schema['description']}"
        return (
            f"{key}: the name {error.instance!r} must be text; it may hold only letters, digits, '-' "
            "and '_', and starts with a letter or digit"
        )
    given = error.instance
    kind = PYTHON_TYPE_LABELS.get(type(given), f"a {type(given).__name__}")
    shown = repr(given) if isinstance(given, str) else json.dumps(given, default=str)
    return f"{key}: got {shown[:80]} ({kind}); allowed: {_describe_allowed(error.schema)}"


def _describe_allowed(schema: dict[str, Any]) -> str:
    """Say in words what a schema admits."""
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    types = schema.get("type", [])
    words = []
    for kind in [types] if isinstance(types, str) else types:
        if kind == "string" and (word := _get_pattern_literal(schema)):
            words.append(repr(word))
            continue
        word = JSON_TYPE_LABELS[kind]
        if kind in ("integer", "number"):
            word += f" of at least {schema['minimum']}" if "minimum" in schema else ""
            word += f" and at most {schema['maximum']}" if "maximum" in schema else ""
            word += " above 0" if "exclusiveMinimum" in schema else ""
        if kind == "array" and schema.get("uniqueItems"):
            word += " without repeats"
        if "minProperties" in schema or (kind == "array" and "minItems" in schema):
            word += " with at least one entry"
        words.append(word)
    allowed = " or ".join(words)
    if "pattern" in schema and not _get_pattern_literal(schema):
        allowed += f" that matches {schema['pattern']}"
    return allowed


def _get_pattern_literal(schema: dict[str, Any]) -> str | None:
    """The one word that a schema's pattern admits, such as `all`; None where it admits more."""
    word = schema.get("pattern", "")[1:-1]
    return word if schema.get("pattern") == f"^{word}$" and word.isalpha() else None


def _find_unknown_names(config: dict[str, Any]) -> Iterator[str]:
    """Find what the schema cannot: names that point at nothing. What it can find is passed over."""
    networks, datasets = _get_mapping(config, "networks"), _get_mapping(config, "datasets")
    for name in networks:
        network, where = _get_mapping(networks, name), f"networks.{name}"
        yield from _find_missing_code(network, where)
        given = network.get("dataset")
        if isinstance(given, str) and given not in datasets:
            yield f"{where}.dataset: no data set is called {given!r}; {suggest_nearest(given, list(datasets))}"
        images = network.get("images")
        if not (images or config.get("images", True)):
            yield f"{where}.images: no image is chosen; give digits, first, indices, photographs or files"
        for kind in TEST_IMAGE_KEYS if images and given is None else ():
            if kind in _get_mapping(network, "images"):
                yield (
                    f"{where}.images.{kind}: there are no test images without a dataset; "
                    "give photographs or files"
                )
    only = config.get("only")
    for name in only if isinstance(only, list) else []:
        if isinstance(name, str) and name not in networks:
            yield f"only: no network is called {name!r}; {suggest_nearest(name, list(networks))}"


def _find_missing_code(network: dict[str, Any], where: str) -> Iterator[str]:
    """Find an architecture, weights and a file of classes that are not there."""
    architecture, weights, classes = (network.get(key) for key in ("architecture", "weights", "classes"))
    if isinstance(architecture, str):
        if fault := architecture_names.find_architecture_error(architecture):
            yield f"{where}.architecture: {fault}"
        elif isinstance(weights, str) and (
            fault := architecture_names.find_weights_error(architecture, weights)
        ):
            yield f"{where}.weights: {fault}"
    path = _get_mapping(network, "weights").get("path")
    for key, given in (("weights.path", path), ("classes", classes)):
        if isinstance(given, str) and not Path(given).expanduser().is_file():
            yield f"{where}.{key}: there is no file {given!r}"


def _get_mapping(config: dict[str, Any], key: Any) -> dict[str, Any]:
    """What stands at a key, if it is a mapping, else nothing."""
    value = config.get(key)
    return value if isinstance(value, dict) else {}
