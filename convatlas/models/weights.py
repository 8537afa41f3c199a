"""Read trained weights from the user's files, without running their code, and load them into a network."""

import json
import logging
import pickle
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convatlas import UserError
from convatlas.models.checkpoint_files import read_checkpoint
from convatlas.models.factory import format_error
from convatlas.models.weight_names import (
    COMPILED_PART,
    MAX_REPORTED_NAMES,
    PARALLEL_PART,
    StateDict,
    abbreviate_names,
    add_tied_names,
    remove_ignored_names,
    remove_name_prefix,
    remove_part,
    remove_wrapper_part,
)
from convatlas.names import format_shape, suggest_nearest
from convatlas.pipeline.architecture_names import locate_weights_file
from convatlas.pipeline.config_types import WeightsConfig

log = logging.getLogger(__name__)

EXTRA_STATE = "_extra_state"  # PyTorch's name of a module's extra state
MAX_SEARCH_DEPTH = 3  # nested mappings that are searched for weights


def load_weights(network: nn.Module, settings: WeightsConfig, key: str) -> None:
    """Load the weights of a file into a network, in place.

    Args:
        network: The network.
        settings: The network's `weights` in the config: `path`, and optionally `key`, the place of the
            weights in the checkpoint, `strip_prefix`, which is removed from their names, and `ignore`, globs
            of names, without that prefix, that are not loaded.
        key: Place of `settings` in the config, for messages.

    Raises:
        UserError: The file cannot be read or is refused, or its weights do not fit the network.
    """
    path, checkpoint_key = settings["path"], settings.get("key")
    content = read_checkpoint(locate_weights_file(path), f"{key}.path", checkpoint_key)
    state = find_state_dict(content, path, checkpoint_key, key, network, settings.get("strip_prefix"))
    prefix = remove_part(settings.get("strip_prefix") or "", COMPILED_PART)
    state = remove_name_prefix(remove_wrapper_part(state, network, COMPILED_PART), prefix, key)
    state = remove_ignored_names(state, settings.get("ignore", []), key)
    state = remove_wrapper_part(state, network, PARALLEL_PART)
    apply_weights(network, state, key)
    log.info("%d weights from %s", len(state), path)


def find_state_dict(
    content: Any,
    path: str | Path,
    checkpoint_key: str | None,
    key: str,
    network: nn.Module,
    strip_prefix: str | None = None,
) -> StateDict:
    """Return the state dict in what a checkpoint holds: tensors, and the extra state of modules.

    Other values are skipped.

    Args:
        content: What the checkpoint holds.
        path: The checkpoint's file, for messages.
        checkpoint_key: Place of the weights in the content; dots separate the keys of nested mappings.
        key: Place of the weights in the config, for messages.
        network: The network, for the advice which of several places fits it.
        strip_prefix: The prefix that is removed from the names, for the same advice.

    Raises:
        UserError: The weights are not at that place; the message says where there are some that fit the
            network, or where there are any.
    """
    value = content
    place: list[str] = []
    for part in _split_checkpoint_key(content, checkpoint_key):
        if not isinstance(value, Mapping) or part not in value:
            names = list(map(str, value)) if isinstance(value, Mapping) else []
            raise UserError(
                f"{key}.key: {path} has no {'.'.join([*place, part])!r}; {suggest_nearest(part, names)}"
            )
        value = value[part]
        place.append(part)
    if not _is_state_dict(value):
        candidates = {".".join([*place, *inner]): state for inner, state in _find_nested_state_dicts(value)}
        if not candidates:
            location = f" at {'.'.join(place)}" if place else ""
            raise UserError(
                f"{key}: {path} holds no weights by name{location}, but {_describe_content(value)}"
            )
        advice = _suggest_places(candidates, network.state_dict(), strip_prefix)
        raise UserError(f"{key}: the weights of {path} are nested deeper; {advice}")
    state, skipped = StateDict(), []
    for name, item in value.items():
        if isinstance(item, Tensor):
            state[str(name)] = item.detach()
        elif _is_extra_state(name):
            state[name] = item
        else:
            skipped.append(str(name))
    quantised = [name for name in skipped if "_packed_params" in name]
    quantised += [name for name, item in state.items() if isinstance(item, Tensor) and item.is_quantized]
    if quantised:
        raise UserError(
            f"{key}: {path} holds quantised weights: {abbreviate_names(quantised)}; give the weights from "
            "before the quantisation, in floating point"
        )
    if skipped:
        log.info("skipped, not tensors: %s", abbreviate_names(skipped))
    metadata = getattr(value, "_metadata", None)
    state._metadata = metadata if isinstance(metadata, Mapping) else None
    return state


def _split_checkpoint_key(content: Any, checkpoint_key: str | None) -> list[str]:
    """Return the keys that lead to the weights; a key of the outermost mapping may contain dots itself."""
    if not checkpoint_key:
        return []
    if isinstance(content, Mapping) and checkpoint_key in content:
        return [checkpoint_key]
    return checkpoint_key.split(".")


def _describe_content(value: Any) -> str:
    """Return what a value is that holds no weights."""
    if isinstance(value, Mapping):
        return f"a mapping of {abbreviate_names(list(map(str, value))) or 'nothing'}"
    return f"a {type(value).__name__}"


def _is_state_dict(value: Any) -> bool:
    """Return whether a value is a mapping that holds tensors and no further mappings but extra state."""
    if not isinstance(value, Mapping):
        return False
    values = [item for name, item in value.items() if not _is_extra_state(name)]
    return any(isinstance(v, Tensor) for v in values) and not any(isinstance(v, Mapping) for v in values)


def _is_extra_state(name: object) -> bool:
    """Return whether an entry of a state dict is what a module's `get_extra_state` returned."""
    return isinstance(name, str) and name.rpartition(".")[2] == EXTRA_STATE


def _find_nested_state_dicts(
    value: Any, depth: int = MAX_SEARCH_DEPTH
) -> Iterator[tuple[list[str], Mapping[Any, Any]]]:
    """Yield each state dict within nested mappings, with the keys that lead to it."""
    if not isinstance(value, Mapping) or not depth:
        return
    for name, inner in value.items():
        if _is_state_dict(inner):
            yield [str(name)], inner
        else:
            for place, state in _find_nested_state_dicts(inner, depth - 1):
                yield [str(name), *place], state


def _suggest_places(
    candidates: Mapping[str, Mapping[Any, Any]], network_state: Mapping[str, Any], strip_prefix: str | None
) -> str:
    """Return which `key` to give: of the places whose weights fit the network, if any do; else of all.

    Args:
        candidates: The state dicts of a checkpoint by their places.
        network_state: The network's state dict.
        strip_prefix: The prefix that is removed from the names already.
    """
    advice = []
    for place, state in candidates.items():
        prefix = _find_fitting_prefix(state, network_state)
        if prefix is not None:
            change = f' and strip_prefix: "{prefix}"' if prefix else " and no strip_prefix"
            advice.append(f"key: {place}" + ("" if prefix == (strip_prefix or "") else change))
    if advice:
        return "give " + " or ".join(advice)
    places = [f"key: {place}" for place in candidates]
    more = len(places) - MAX_REPORTED_NAMES
    if more > 0:
        places = [*places[:MAX_REPORTED_NAMES], f"one of {more} more"]
    return f"give {' or '.join(places)}; none of them fits the network by its names and shapes"


def _find_fitting_prefix(state: Mapping[Any, Any], network_state: Mapping[str, Any]) -> str | None:
    """Return the prefix, or "", with which a state dict holds all of a network's weights, or None.

    Counters of batches may be missing, and there may be others.
    """
    shapes = {
        remove_part(str(name), COMPILED_PART): item.shape
        for name, item in state.items()
        if isinstance(item, Tensor)
    }
    expected = {
        name: item.shape
        for name, item in network_state.items()
        if isinstance(item, Tensor) and not name.endswith("num_batches_tracked")
    }
    if not expected:
        return None
    first = next(iter(expected))
    prefixes = [name.removesuffix(first) for name in shapes if name == first or name.endswith(f".{first}")]
    for prefix in sorted(prefixes, key=len):
        if all(shapes.get(prefix + name) == shape for name, shape in expected.items()):
            return prefix
    return None


def apply_weights(network: nn.Module, state: StateDict, key: str) -> None:
    """Load weights into a network, in place, converted to its precision.

    All is accepted that the network's `load_state_dict(strict=True)` accepts, whose hooks convert the names
    and values of old checkpoints. Counters of batches (`num_batches_tracked`) may be missing, as in
    checkpoints of old PyTorch versions, and extra state that is no tensor, which safetensors cannot hold.

    Args:
        network: The network. It is not changed where the weights do not fit.
        state: The weights by name.
        key: Place of the weights in the config, for messages.

    Raises:
        UserError: Names or shapes do not fit, with a list of them; or the weights bring extra state that is
            no tensor and differs from the network's own.
    """
    network_state = network.state_dict()
    before = {n: v.clone() if isinstance(v, Tensor) else deepcopy(v) for n, v in network_state.items()}
    state = add_tied_names(state, network_state)
    complete = StateDict(state)
    complete._metadata = state._metadata
    for name, item in before.items():
        if name not in state and (name.endswith("num_batches_tracked") or not isinstance(item, Tensor)):
            complete[name] = item
    for name in [n for n, item in state.items() if not isinstance(item, Tensor) and n not in before]:
        log.info("skipped, extra state that the network does not have: %s", name)
        del complete[name]
    try:
        with torch.no_grad():
            network.load_state_dict(complete)
    except Exception as error:  # of the network's hooks, of any kind
        network.load_state_dict(before)
        raise UserError(
            f"{key}: the weights do not fit the network"
            + (_list_mismatches(before, state) or f": {format_error(error)}")
        ) from error
    _check_extra_state(network, before, key)
    _log_precision(before, state)


def _check_extra_state(network: nn.Module, before: Mapping[str, Any], key: str) -> None:
    """Raise UserError where weights brought extra state that could not be stored with them.

    The stages after this one build the network again: its extra state must be that of the function.
    """
    changed = [
        name
        for name, item in network.state_dict().items()
        if not isinstance(item, Tensor) and not _are_equal_objects(item, before.get(name))
    ]
    if changed:
        network.load_state_dict(before)
        raise UserError(
            f"{key}: the extra state of {abbreviate_names(changed)} differs from that of the network as its "
            "function builds it; extra state other than tensors is not stored: set it in the function"
        )


def _are_equal_objects(one: object, other: object) -> bool:
    """Return whether two objects of any kind are equal, by their pickles."""
    try:
        return pickle.dumps(one) == pickle.dumps(other)
    except Exception:  # objects of a user's classes may raise anything
        return False


def _list_mismatches(network_state: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """Return which names and shapes of weights do not fit, and what may fix it; "" if all do."""
    expected = {name: item for name, item in network_state.items() if isinstance(item, Tensor)}
    tensors = {name: item for name, item in state.items() if isinstance(item, Tensor)}
    missing = [n for n in expected if n not in tensors and not n.endswith("num_batches_tracked")]
    unexpected = [name for name in tensors if name not in expected]
    misshapen = [n for n in expected if n in tensors and tensors[n].shape != expected[n].shape]
    return _format_mismatch(expected, tensors, missing, unexpected, misshapen)


def _format_mismatch(
    network_state: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    missing: list[str],
    unexpected: list[str],
    misshapen: list[str],
) -> str:
    """Return which weights do not fit, a line for each kind, and what may fix it."""
    lines = []
    prefix = _find_common_prefix(missing, unexpected)
    if prefix is not None:
        lines.append(f'their names begin with "{prefix}"; give strip_prefix: "{prefix}"')
    if missing:
        near = get_close_matches(missing[0], unexpected, n=1)
        hint = f" (is {missing[0]} named {near[0]} there?)" if near and prefix is None else ""
        lines.append(f"{len(missing)} of the network's are missing: {abbreviate_names(missing)}{hint}")
    if unexpected:
        advice = ""
        if not missing and not misshapen and (globs := _suggest_globs(unexpected, network_state)):
            advice = f"; to leave them out, give ignore: {json.dumps(globs)}"
        lines.append(f"{len(unexpected)} are not the network's: {abbreviate_names(unexpected)}{advice}")
    if misshapen:
        shapes = [
            f"{name} is {_describe_shape(state[name])} there and {_describe_shape(network_state[name])} "
            "in the network"
            for name in misshapen
        ]
        lines.append(
            f"{len(misshapen)} have another shape: {abbreviate_names(shapes)}; are the arguments those with "
            "which it was trained?"
        )
    return "".join(f"\n  {line}" for line in lines)


def _suggest_globs(names: list[str], other_names: Iterable[str]) -> list[str]:
    """Return globs that match all of some names and no other name; an empty list if there are none.

    They are the names themselves if these are few, else their last parts.
    """
    if len(names) <= MAX_REPORTED_NAMES:
        return names
    globs = [
        f"*.{last}" if all(name != last for name in names) else f"*{last}"
        for last in dict.fromkeys(name.rpartition(".")[2] for name in names)
    ]
    return [] if any(fnmatchcase(name, glob) for name in other_names for glob in globs) else globs


def _find_common_prefix(missing: list[str], unexpected: list[str]) -> str | None:
    """Return the prefix with which every missing name is among the unexpected ones, if there is one."""
    if not missing:
        return None
    for name in unexpected:
        prefix = name.removesuffix(missing[0])
        if prefix and name.endswith(f".{missing[0]}") and {prefix + m for m in missing} <= set(unexpected):
            return prefix
    return None


def _describe_shape(tensor: Tensor) -> str:
    """Return a tensor's shape as text."""
    return format_shape(tensor.shape) or "a number"


def _log_precision(network_state: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Log which precisions are converted, and warn of numbers that are not finite."""
    tensors = {name: item for name, item in state.items() if isinstance(item, Tensor)}
    converted = {
        tensor.dtype
        for name, tensor in tensors.items()
        if isinstance(expected := network_state.get(name), Tensor) and expected.dtype != tensor.dtype
    }
    if converted:
        log.info("weights of %s are converted to the network's precision", ", ".join(map(str, converted)))
    not_finite = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if not_finite:
        log.warning(
            "%d weights hold numbers that are not finite: %s", len(not_finite), abbreviate_names(not_finite)
        )
