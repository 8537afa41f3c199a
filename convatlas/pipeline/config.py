"""The config: checked against the schema, all errors at once, and completed with its defaults."""

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from datetime import date
from importlib import resources
from typing import Any, cast

import yaml

from convatlas import UserError
from convatlas.names import RESERVED_NAMES, describe_missing_file, suggest_nearest
from convatlas.paths import expand_home
from convatlas.pipeline import architecture_names
from convatlas.pipeline.config_types import Config
from convatlas.pipeline.schema_errors import RENAMED_KEYS, list_schema_errors
from convatlas.pipeline.yaml_numbers import convert_exponent_number

SCHEMA_PATH = resources.files("convatlas.pipeline") / "config.schema.yaml"
# Of a network's further pages in the gallery, networks/<network>-<suffix>.html.
PAGE_SUFFIX = re.compile(
    r"-((layers|figures|attribution)(-[0-9]+)?|lecture|units|unit-table|top-images|errors|analyses|evolution"
    r"|invariance|occlusion|correspondence|ablation|feature-visualisation|similarity"
    r"|effective-receptive-field|concepts)\Z"
)
TEST_IMAGE_KEYS = ("digits", "first", "indices")  # of `images`: those from a data set's test split
DEFAULT_IMAGES = {"first": 5}
DEFAULT_PHOTOGRAPHS = ["cat", "astronaut", "coffee", "rocket"]


def resolve_config(config: Mapping[str, Any]) -> Config:
    """Check a merged config and complete it: nulls dropped, defaults filled in, `only` applied.

    Nulls in the `arguments` of a network are kept: they are values for its function. Numbers such as 1e-3,
    which YAML 1.1 reads as text for want of a dot, are numbers wherever the schema has a number, and in
    `arguments` where they are not quoted (see `yaml_numbers`).

    Args:
        config: The config as Snakemake merged it. It is not modified. Relative paths in it are relative to
            the working directory.

    Returns:
        A new config. Each network has its own `images` and `views`, and the full name of its torchvision
        weights. Data sets that no network uses are dropped.

    Raises:
        UserError: Lists all errors: the key, the value given, what is allowed, the nearest name.
    """
    schema = yaml.safe_load(SCHEMA_PATH.read_text(encoding="utf-8"))
    merged: dict[str, Any] = _read_numbers(_drop_nulls(config, schema, schema), schema, schema)
    if isinstance(merged.get("published"), date):  # as YAML reads it
        merged["published"] = merged["published"].isoformat()
    errors = [*list_schema_errors(merged, schema), *_find_unknown_names(merged)]
    if errors:
        raise UserError("the config has a fault:\n" + "\n".join(f"  - {error}" for error in errors))
    completed = cast(Config, _complete_networks(merged, schema))
    if completed["only"]:
        completed["networks"] = {name: completed["networks"][name] for name in completed["only"]}
    dataset_names = {network["dataset"] for network in completed["networks"].values() if "dataset" in network}
    completed["datasets"] = {name: completed["datasets"][name] for name in sorted(dataset_names)}
    return completed


def _drop_nulls(value: Any, schema: dict[str, Any], root: dict[str, Any], section: str = "") -> Any:
    """Return a copy without the keys that are null, which an overlay uses to remove a key of the default.

    Nulls are kept where they are values of their own: where the schema has null, and in what the schema does
    not describe, the `arguments` of a network.

    Args:
        value: The config, or a value in it.
        schema: Its schema.
        root: The schema that holds `$defs`.
        section: The key of the value.
    """
    schema = _resolve_reference(schema, root)
    if not isinstance(value, dict) or not schema.keys() & {"properties", "additionalProperties"}:
        return deepcopy(value)
    properties, others = schema.get("properties", {}), schema.get("additionalProperties")
    others = others if isinstance(others, dict) else {}
    return {
        key: _drop_nulls(item, properties.get(key, others), root, key)
        for key, item in value.items()
        if item is not None
        or "null" in properties.get(key, {}).get("type", [])
        or key in RENAMED_KEYS.get(section, {})
    }


def _read_numbers(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """Return a copy of a value with numbers where it has their text, such as "1e-3", and they are meant.

    Args:
        value: A value of the config.
        schema: Its schema.
        root: The schema that holds `$defs`.
    """
    schema = _resolve_reference(schema, root)
    if isinstance(value, dict):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties")
        others = others if isinstance(others, dict) else {}
        return {key: _read_numbers(item, properties.get(key, others), root) for key, item in value.items()}
    if isinstance(value, list):
        return [_read_numbers(item, schema.get("items", {}), root) for item in value]
    return convert_exponent_number(value, schema.get("type", []))


def _complete_networks(config: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Give every network its own images, views and record, then fill in the schema's defaults."""
    images, views = config.pop("images", DEFAULT_IMAGES), config.pop("views", {})
    record = config.pop("record", {})
    for network in config["networks"].values():
        verify = architecture_names.is_own_architecture(network["architecture"])
        network["record"] = {"verify": verify, **record, **network.get("record", {})}
        network["images"] = network.get("images") or _select_available_images(images, network)
        network["views"] = _merge_nested(views, network.get("views", {}))
        if isinstance(network.get("weights"), str):
            network["weights"] = architecture_names.resolve_weights_name(
                network["architecture"], network["weights"]
            )
    completed: dict[str, Any] = _fill_defaults(config, schema, schema)
    return completed


def _select_available_images(images: dict[str, Any], network: dict[str, Any]) -> dict[str, Any]:
    """Return the shared `images` that a network can use: without a data set no test images."""
    if "dataset" in network:
        return images
    available = {key: value for key, value in images.items() if key not in TEST_IMAGE_KEYS}
    if available.keys() <= {"on_bad_image"}:
        available["photographs"] = DEFAULT_PHOTOGRAPHS
    return available


def _merge_nested(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of `base` with the values of `override`, mappings merged key by key."""
    merged = deepcopy(base)
    for key, value in override.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge_nested(merged[key], value)
        else:
            merged[key] = value
    return merged


def _fill_defaults(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """Return a value with the defaults of its schema; `root` is the schema that holds `$defs`."""
    schema = _resolve_reference(schema, root)
    if not isinstance(value, dict) or not schema.keys() & {"properties", "additionalProperties"}:
        return value
    properties = schema.get("properties", {})
    filled = {
        key: _fill_defaults(item, properties.get(key) or schema["additionalProperties"], root)
        for key, item in value.items()
    }
    for key, inner in properties.items():
        inner = _resolve_reference(inner, root)
        if key not in value and "default" in inner:
            filled[key] = _fill_defaults(deepcopy(inner["default"]), inner, root)
    return filled


def _resolve_reference(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """Return the definition that a schema refers to with `$ref`, or the schema itself."""
    if "$ref" not in schema:
        return schema
    definition: dict[str, Any] = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    return definition


def _find_unknown_names(config: dict[str, Any]) -> Iterator[str]:
    """Yield the errors that a schema cannot express: names and paths of what does not exist.

    Values of a wrong type are skipped: the schema reports them.
    """
    networks, datasets = _get_mapping(config, "networks"), _get_mapping(config, "datasets")
    for name in networks:
        network, key = _get_mapping(networks, name), f"networks.{name}"
        yield from _find_missing_code(network, key)
        dataset = network.get("dataset")
        if isinstance(dataset, str) and dataset not in datasets:
            yield f"{key}.dataset: no data set named {dataset!r}; {suggest_nearest(dataset, list(datasets))}"
        yield from _find_image_errors(network, config, key)
        yield from _find_array_errors(network, config, key)
    yield from _find_name_conflicts(config)
    only = config.get("only")
    for name in only if isinstance(only, list) else []:
        if isinstance(name, str) and name not in networks:
            yield f"only: no network named {name!r}; {suggest_nearest(name, list(networks))}"


def _find_image_errors(network: dict[str, Any], config: dict[str, Any], key: str) -> Iterator[str]:
    """Yield what is wrong with a network's sample images: none, or test images without a data set."""
    images = network.get("images")
    if not (images or config.get("images", DEFAULT_IMAGES)):
        yield f"{key}.images: no image is chosen; give digits, first, indices, photographs or files"
    if images and network.get("dataset") is None:
        for kind in TEST_IMAGE_KEYS:
            if kind in _get_mapping(network, "images"):
                yield (
                    f"{key}.images.{kind}: there are no test images without a dataset; "
                    "give photographs or files"
                )


def _find_array_errors(network: dict[str, Any], config: dict[str, Any], key: str) -> Iterator[str]:
    """Yield what is wrong with a network whose inputs are no images, by the length of `input.size`."""
    size = _get_mapping(network, "input").get("size")
    if not isinstance(size, list) or len(size) not in (1, 3):
        return
    if network.get("dataset") is not None:
        yield (
            f"{key}.dataset: data sets hold images, and input.size {size} is none of an image; give trained "
            "weights, and remove dataset"
        )
    images = network.get("images") or _get_mapping(config, "images")
    if (
        not isinstance(images, dict)
        or not images.keys() <= {"files", "on_bad_image"}
        or not images.get("files")
    ):
        yield (
            f"{key}.images: input.size {size} is none of an image; choose arrays of that size by files "
            "alone: images: {files: [one.npy, folder/]}"
        )


def _find_missing_code(network: dict[str, Any], key: str) -> Iterator[str]:
    """Yield what is wrong with a network's architecture and weights, and which of its files are missing."""
    architecture, weights, classes = (network.get(name) for name in ("architecture", "weights", "classes"))
    if isinstance(architecture, str):
        if error := architecture_names.find_architecture_error(architecture):
            yield f"{key}.architecture: {error}"
        elif isinstance(weights, str) and (
            error := architecture_names.find_weights_error(architecture, weights)
        ):
            yield f"{key}.weights: {error}"
    path = _get_mapping(network, "weights").get("path")
    if isinstance(path, str) and (error := architecture_names.find_weights_file_error(path)):
        yield f"{key}.weights.path: {error}"
    if (
        isinstance(classes, str)
        and classes != architecture_names.IMAGENET_CLASSES
        and not expand_home(classes).is_file()
    ):
        yield f"{key}.classes: {describe_missing_file(classes)}"


def _find_name_conflicts(config: dict[str, Any]) -> Iterator[str]:
    """Yield the names that cannot be names of files on every system, of the networks that are built.

    Names that differ in capitals alone are one file on macOS and Windows, where galleries are read. Values of
    a wrong type are skipped: the schema reports them.
    """
    networks, only = _get_mapping(config, "networks"), config.get("only")
    if isinstance(only, list) and only:
        networks = {name: network for name, network in networks.items() if name in only}
    datasets = [_get_mapping(networks, name).get("dataset") for name in networks]
    for section, values in (("networks", list(networks)), ("datasets", datasets)):
        names = list(dict.fromkeys(name for name in values if isinstance(name, str)))
        used: dict[str, str] = {}
        for name in names:
            if name.lower() in RESERVED_NAMES:
                yield f"{section}.{name}: Windows allows no file of this name; rename it, as {name}_"
            if (other := used.setdefault(name.lower(), name)) != name:
                yield (
                    f"{section}.{name}: differs from {other!r} in capitals alone, which macOS and Windows "
                    "ignore in the names of files; rename one of them, or give `only`"
                )
            owner = PAGE_SUFFIX.sub("", name)
            if section == "networks" and owner != name and owner in names:
                yield f"{section}.{name}: a page of the network {owner!r} has this name; rename one of them"


def _get_mapping(config: dict[str, Any], key: Any) -> dict[str, Any]:
    """Return the value at a key if it is a mapping, else an empty one."""
    value = config.get(key)
    return value if isinstance(value, dict) else {}
