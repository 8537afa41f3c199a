"""The stages of a network: groups of consecutive layers, by output shape or by module."""

from collections.abc import Callable, Sequence
from itertools import groupby, takewhile
from typing import Any, TypeVar

from convatlas.records import Layer

MAX_SHAPE_STAGES = 16  # stages of one output shape; a network of more is divided by its modules
MAX_STAGES = 20  # stages of modules
MAX_MERGED = 8  # layers of small neighbours that become one stage

Item = TypeVar("Item")


def split_stages(layers: Sequence[Layer]) -> list[list[Layer]]:
    """Divide layers into stages.

    Stages are runs of one output shape. Where these are too many, they are modules; a module that holds more
    than half of the layers, as the `features` of many networks, is divided into its own modules.

    Args:
        layers: The called layers of layers.json.
    """
    by_shape = _group_consecutive(layers, lambda layer: layer["output_shape"])
    if len(by_shape) <= MAX_SHAPE_STAGES:
        return by_shape
    stages = [list(layers)]
    while len(largest := max(stages, key=len)) > len(layers) / 2:
        parts = _split_by_module(largest)
        if len(parts) == 1 or (len(stages) > 1 and len(stages) - 1 + len(parts) > MAX_STAGES):
            break
        index = stages.index(largest)
        stages[index : index + 1] = parts
    return _merge_small_stages(stages)


def assign_stages(layers: Sequence[Layer]) -> dict[str, str]:
    """Name the stage of each called layer by its modules, such as `layer2` or `maxpool to layer1`.

    Args:
        layers: layers.json.

    Returns:
        The name of the stage, by the layer's name.
    """
    called = [layer for layer in layers if layer["called"]]
    all_names = [layer["name"] for layer in called]
    stage_names: dict[str, str] = {}
    for stage in split_stages(called):
        names = [layer["name"] for layer in stage]
        runs = _group_consecutive(names, lambda name: _split_module_path(name)[0])
        modules = [_label_module(run, all_names) for run in runs]
        stage_names |= dict.fromkeys(names, " to ".join(dict.fromkeys([modules[0], modules[-1]])))
    return stage_names


def _merge_small_stages(stages: Sequence[list[Layer]]) -> list[list[Layer]]:
    """Merge small neighbours of one output shape, then the smallest neighbours down to MAX_STAGES."""
    merged = list(stages[:1])
    for stage in stages[1:]:
        both = merged[-1] + stage
        shapes = _group_consecutive(both, lambda layer: layer["output_shape"])
        if len(both) <= MAX_MERGED and len(shapes) == 1:
            merged[-1] = both
        else:
            merged.append(stage)
    while len(merged) > MAX_STAGES:
        index = min(range(len(merged) - 1), key=lambda n: len(merged[n]) + len(merged[n + 1]))
        merged[index : index + 2] = [merged[index] + merged[index + 1]]
    return merged


def _split_by_module(layers: Sequence[Layer]) -> list[list[Layer]]:
    """Divide layers by the modules in which their paths first differ."""
    depth = len(_find_common_path([layer["name"] for layer in layers])) + 1
    return _group_consecutive(layers, lambda layer: _split_module_path(layer["name"])[:depth])


def _find_common_path(names: Sequence[str]) -> list[str]:
    """Return the path of the innermost module that contains all of these layers."""
    levels = zip(*map(_split_module_path, names), strict=False)
    return [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, levels)]


def _split_module_path(name: str) -> list[str]:
    """Split a layer's name into the modules of its path."""
    return name.split("/")[0].split(".")


def _group_consecutive(items: Sequence[Item], key: Callable[[Item], Any]) -> list[list[Item]]:
    """Group consecutive items with equal keys."""
    return [list(group) for _, group in groupby(items, key=key)]


def _label_module(names: Sequence[str], all_names: Sequence[str]) -> str:
    """Name the module of layers, with the range of its children where they are not all of it."""
    if len(names) == 1:
        return names[0]
    module = _find_common_path(names)
    depth = len(module)
    children = [child for name in names for child in _split_module_path(name)[depth : depth + 1]]
    n_module_layers = sum(_split_module_path(name)[:depth] == module for name in all_names)
    if children and n_module_layers > len(names):
        return f"{'.'.join(module)}.{children[0]}–{children[-1]}"
    return ".".join(module)
