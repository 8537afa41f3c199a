"""Trained weights from others' files: read without running what they hold, and told where they do not fit."""

import logging
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from convatlas import UserError
from convatlas.names import suggest_nearest

log = logging.getLogger(__name__)

MAX_REPORTED_NAMES = 4  # names that a report lists at most
MAX_SEARCH_DEPTH = 3  # mappings within mappings that are searched for weights
PICKLE_LOAD_CODE = "torch.load({}, map_location='cpu', weights_only=False)"
PICKLE_MAGIC = (b"\x80", b"PK")  # how a pickle begins, and the archive in which torch puts one
TORCHSCRIPT_LOAD_CODE = "torch.jit.load({}, map_location='cpu')"


def load_weights(network: nn.Module, given: dict[str, Any], key: str) -> None:
    """Give a network the weights of a file: `given` is the `weights` section of the config, {path, ...}.

    Raises UserError, which names `key`, the place in the config.
    """
    path, inner = given["path"], given.get("key")
    found = find_state_dict(read_checkpoint(path, f"{key}.path", inner), path, inner, key)
    apply_weights(network, remove_name_prefix(found, given.get("strip_prefix"), key), key)
    log.info("%d weights from %s", len(found), path)


def read_checkpoint(path: str | Path, key: str = "weights", inner: str | None = None) -> Any:
    """Read a safetensors file or a PyTorch checkpoint; of the latter no code in it is run.

    Raises UserError, which names `key`, the place in the config; `inner` is where in the checkpoint
    the user said that the weights lie, for its advice.
    """
    path = Path(path).expanduser()
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise UserError(f"{key}: cannot read {path}: {error.strerror}") from error
    if fault := _describe_wrong_file(head):
        raise UserError(f"{key}: {path} {fault}")
    try:
        if path.suffix == ".safetensors" or head[8:10] == b'{"':
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd about the file is told below, if it is refused
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        if refused := _describe_refusal(str(error), head):
            load = TORCHSCRIPT_LOAD_CODE if "TorchScript" in refused else PICKLE_LOAD_CODE
            raise UserError(
                f"{key}: {path} {refused}{_format_conversion_advice(path, inner, load)}"
            ) from error
        raise UserError(f"{key}: {path} is damaged, or no checkpoint: {_format_first_line(error)}") from error
    except Exception as error:  # the unpickler raises many kinds for one damaged file
        raise UserError(f"{key}: {path} is damaged, or no checkpoint: {_format_first_line(error)}") from error


def _describe_wrong_file(head: bytes) -> str | None:
    """What a file is instead of weights, if its beginning tells."""
    if not head:
        return "is empty; fetch or save it again"
    if head.lstrip()[:1] == b"<":
        return "is a web page, not weights (a login or a notice?); download the file itself"
    if head.startswith(b"version https://git-lfs"):
        return "is only Git LFS's pointer to the weights; run `git lfs pull` where it comes from"
    return None


def _describe_refusal(text: str, head: bytes) -> str | None:
    """What torch would not unpickle, in words; None where that was not the fault."""
    if "TorchScript" in text:
        return "is a TorchScript program, which is not opened here, for it may run anything"
    named = re.search(r"(?:GLOBAL|Unsupported (?:class|global):?)\s+(?:GLOBAL )?([\w.]+)", text)
    if named or ("Unsupported" in text and head.startswith(PICKLE_MAGIC)):
        what = f", {named.group(1)}," if named else ""
        return f"holds more than tensors{what} and is not opened, for it may run anything"
    return None


def _format_conversion_advice(path: Path, inner: str | None, load: str) -> str:
    """How the user makes safetensors of a file that they trust, where the classes in it are installed."""
    steps = "".join(f"[{part!r}]" for part in (inner or "").split(".") if part)
    return (
        ".\n  If you trust it, convert it where it can be opened, and give the new file, without key:\n"
        f'  python -c "import torch, safetensors.torch as s; w = {load.format(repr(str(path)))}{steps}; '
        "w = w.state_dict() if hasattr(w, 'state_dict') else w; "
        f's.save_file({{k: v.clone().contiguous() for k, v in w.items()}}, {path.stem + ".safetensors"!r})"'
    )


def _format_first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def find_state_dict(content: Any, path: str | Path, inner: str | None, key: str) -> dict[str, Tensor]:
    """Give the weights in what a checkpoint holds, at `inner`, where dots lead deeper.

    Raises UserError, which says what there is, where they are not at that place.
    """
    found, place = content, []
    for part in _split_checkpoint_key(content, inner):
        if not isinstance(found, Mapping) or part not in found:
            there = list(map(str, found)) if isinstance(found, Mapping) else []
            raise UserError(
                f"{key}.key: {path} has no {'.'.join([*place, part])!r}; {suggest_nearest(part, there)}"
            )
        found = found[part]
        place.append(part)
    if not _is_state_dict(found):
        others = [".".join([*place, *deeper]) for deeper in _find_state_dict_paths(found)]
        if not others:
            raise UserError(
                f"{key}: {path} holds no weights by name{_format_place(place)}, but {_describe_content(found)}"
            )
        raise UserError(
            f"{key}: the weights lie deeper in {path}; give {' or '.join(f'key: {o}' for o in others)}"
        )
    left = [str(name) for name, value in found.items() if not isinstance(value, Tensor)]
    if left:
        log.info("left out, being no tensors: %s", _abbreviate_names(left))
    return {str(name): value.detach() for name, value in found.items() if isinstance(value, Tensor)}


def _split_checkpoint_key(content: Any, inner: str | None) -> list[str]:
    if not inner or (isinstance(content, Mapping) and inner in content):
        return [inner] if inner else []
    return inner.split(".")


def _format_place(place: list[str]) -> str:
    return f" at {'.'.join(place)}" if place else ""


def _describe_content(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a mapping of {_abbreviate_names(list(map(str, value))) or 'nothing'}"
    return f"a {type(value).__name__}"


def _is_state_dict(value: Any) -> bool:
    """Whether a value is weights by name: a mapping that holds tensors and no more mappings."""
    if not isinstance(value, Mapping):
        return False
    values = list(value.values())
    return any(isinstance(v, Tensor) for v in values) and not any(isinstance(v, Mapping) for v in values)


def _find_state_dict_paths(value: Any, depth: int = MAX_SEARCH_DEPTH) -> Iterator[list[str]]:
    """Where within a value weights lie by name: the keys that lead there."""
    for name, inner in value.items() if isinstance(value, Mapping) and depth else ():
        if _is_state_dict(inner):
            yield [str(name)]
        else:
            yield from ([str(name), *deeper] for deeper in _find_state_dict_paths(inner, depth - 1))


def remove_name_prefix(found: dict[str, Tensor], prefix: str | None, key: str) -> dict[str, Tensor]:
    """Remove a prefix from the names of weights, and leave out those without it."""
    if not prefix:
        return found
    left = [name for name in found if not name.startswith(prefix)]
    if len(left) == len(found):
        raise UserError(
            f"{key}.strip_prefix: no name begins with {prefix!r}; they are: {_abbreviate_names(left)}"
        )
    if left:
        log.info("left out, without the prefix %r: %s", prefix, _abbreviate_names(left))
    return {name.removeprefix(prefix): tensor for name, tensor in found.items() if name.startswith(prefix)}


def apply_weights(network: nn.Module, found: dict[str, Tensor], key: str) -> None:
    """Give a network its weights by name. Raises UserError, which lists the names and shapes that do not fit.

    Counters of batches may be missing, as in checkpoints older than they are; numbers of another
    precision are brought to the network's.
    """
    own = network.state_dict()
    missing = [name for name in own if name not in found and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in found if name not in own]
    shaped = [name for name in own if name in found and found[name].shape != own[name].shape]
    if missing or unexpected or shaped:
        raise UserError(
            f"{key}: the weights do not fit the network"
            + _format_mismatch(own, found, missing, unexpected, shaped)
        )
    _log_precision(own, found)
    with torch.no_grad():
        network.load_state_dict(own | found)


def _format_mismatch(
    own: dict[str, Tensor],
    found: dict[str, Tensor],
    missing: list[str],
    unexpected: list[str],
    shaped: list[str],
) -> str:
    lines = []
    prefix = _find_common_prefix(missing, unexpected)
    if prefix is not None:
        lines.append(f'their names begin with "{prefix}"; give strip_prefix: "{prefix}"')
    if missing:
        near = get_close_matches(missing[0], unexpected, n=1)
        hint = f" (is {missing[0]} what it calls {near[0]}?)" if near and prefix is None else ""
        lines.append(f"{len(missing)} of the network's are missing: {_abbreviate_names(missing)}{hint}")
    if unexpected:
        lines.append(f"{len(unexpected)} are not the network's: {_abbreviate_names(unexpected)}")
    if shaped:
        told = [
            f"{n} is {_format_shape(found[n])} there and {_format_shape(own[n])} in the network"
            for n in shaped
        ]
        lines.append(
            f"{len(shaped)} have another shape: {_abbreviate_names(told)}; are the arguments those it was trained with?"
        )
    return "".join(f"\n  {line}" for line in lines)


def _find_common_prefix(missing: list[str], unexpected: list[str]) -> str | None:
    """What stands before every missing name among the unexpected ones, if something does."""
    if not missing:
        return None
    for name in unexpected:
        prefix = name.removesuffix(missing[0])
        if prefix and name.endswith(f".{missing[0]}") and {prefix + m for m in missing} <= set(unexpected):
            return prefix
    return None


def _format_shape(tensor: Tensor) -> str:
    return " × ".join(map(str, tensor.shape)) or "a number"


def _abbreviate_names(names: list[str]) -> str:
    more = f" and {len(names) - MAX_REPORTED_NAMES} more" if len(names) > MAX_REPORTED_NAMES else ""
    return ", ".join(names[:MAX_REPORTED_NAMES]) + more


def _log_precision(own: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    cast = {found[name].dtype for name in found if own[name].dtype != found[name].dtype}
    if cast:
        log.info("weights of %s are brought to the network's precision", ", ".join(map(str, cast)))
    odd = [name for name, tensor in found.items() if not torch.isfinite(tensor).all()]
    if odd:
        log.warning("%d weights hold numbers that are not finite: %s", len(odd), _abbreviate_names(odd))
