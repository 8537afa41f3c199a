"""The names of weights: what wrappers added to them, what is left out, and the names of tied weights."""

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from convatlas import UserError

log = logging.getLogger(__name__)

COMPILED_PART = "_orig_mod"  # of names of weights, added by torch.compile
PARALLEL_PART = "module"  # added by DataParallel and DistributedDataParallel
MAX_REPORTED_NAMES = 4  # names listed by a report


class StateDict(OrderedDict[str, Any]):
    """Weights by name, and what else a network's state dict holds.

    Attributes:
        _metadata: The versions of modules by their names, from which PyTorch's hooks see what to convert;
            None where the file has none.
    """

    _metadata: Mapping[str, Mapping[str, Any]] | None = None


def remove_name_prefix(state: StateDict, prefix: str | None, key: str) -> StateDict:
    """Return weights without a prefix of their names; weights whose names lack it are skipped.

    Args:
        state: The weights by name.
        prefix: The prefix, such as "module."; None or "" changes nothing.
        key: Place of the weights in the config, for messages.

    Raises:
        UserError: No name begins with the prefix.
    """
    if not prefix:
        return state
    skipped = [name for name in state if not name.startswith(prefix)]
    if len(skipped) == len(state):
        raise UserError(
            f"{key}.strip_prefix: no name begins with {prefix!r}; the names are: {abbreviate_names(skipped)}"
        )
    if skipped:
        log.info("skipped, without the prefix %r: %s", prefix, abbreviate_names(skipped))
    result = StateDict(
        (name.removeprefix(prefix), item) for name, item in state.items() if name.startswith(prefix)
    )
    if state._metadata is not None:  # under the modules' names, which end without a dot
        result._metadata = {
            f"{module}.".removeprefix(prefix).removesuffix("."): versions
            for module, versions in state._metadata.items()
            if f"{module}.".startswith(prefix)
        }
    return result


def remove_wrapper_part(state: StateDict, network: nn.Module, part: str) -> StateDict:
    """Return weights without the part that a wrapper of modules adds to their names, wherever it stands.

    Names stay as they are where they fit the network already, where another would then have the same name,
    and, of the part that DataParallel adds, at their beginning: there `strip_prefix` says what is meant.

    Args:
        state: The weights by name.
        network: The network.
        part: The part between dots, such as `_orig_mod` of torch.compile.
    """
    expected = set(network.state_dict())
    renamed = {}
    for name in state:
        head = f"{part}." if part == PARALLEL_PART and name.startswith(f"{part}.") else ""
        new = head + remove_part(name.removeprefix(head), part)
        if new != name and name not in expected and (part == COMPILED_PART or new in expected):
            renamed[name] = new
    names = [renamed.get(name, name) for name in state]
    if not renamed or len(set(names)) < len(names):
        return state
    log.info("read without %r: %s", part, abbreviate_names(list(renamed)))
    result = StateDict(zip(names, state.values(), strict=True))
    if state._metadata is not None:
        result._metadata = {
            remove_part(f"{n}.", part).removesuffix("."): v for n, v in state._metadata.items()
        }
    return result


def remove_part(name: str, part: str) -> str:
    """Return a name without a part between dots, or at its beginning, wherever it stands.

    Args:
        name: Name of a weight, or the beginning of one.
        part: The part, without dots.
    """
    return f".{name}".replace(f".{part}.", ".").removeprefix(".")


def remove_ignored_names(state: StateDict, patterns: Sequence[str], key: str) -> StateDict:
    """Return weights without those whose names match a pattern.

    Args:
        state: The weights by name.
        patterns: Globs of names, such as `*.total_ops`; `*` matches dots too.
        key: Place of the weights in the config, for messages.

    Raises:
        UserError: A pattern matches no name.
    """
    ignored = set()
    for pattern in patterns:
        matches = [name for name in state if fnmatchcase(name, pattern)]
        if not matches:
            raise UserError(
                f"{key}.ignore: no name matches {pattern!r}; the names are: {abbreviate_names(list(state))}"
            )
        ignored.update(matches)
    if ignored:
        log.info("ignored: %s", abbreviate_names([name for name in state if name in ignored]))
    result = StateDict((name, item) for name, item in state.items() if name not in ignored)
    result._metadata = state._metadata
    return result


def add_tied_names(state: StateDict, network_state: Mapping[str, Any]) -> StateDict:
    """Return weights with those that files omit since they share the memory of another.

    Args:
        state: The weights by name.
        network_state: The network's state dict.
    """
    tensors = {name: item for name, item in network_state.items() if isinstance(item, Tensor)}
    present = {(t.data_ptr(), t.shape): name for name, t in tensors.items() if name in state and t.numel()}
    result = StateDict(state)
    result._metadata = state._metadata
    for name, tensor in tensors.items():
        source = present.get((tensor.data_ptr(), tensor.shape))
        if name not in state and source is not None:
            log.info("%s is tied to %s", name, source)
            result[name] = state[source]
    return result


def abbreviate_names(names: list[str]) -> str:
    """Return the first names, and how many more there are.

    Args:
        names: Names of weights.
    """
    more = f" and {len(names) - MAX_REPORTED_NAMES} more" if len(names) > MAX_REPORTED_NAMES else ""
    return ", ".join(names[:MAX_REPORTED_NAMES]) + more
