"""Read the user's files of trained weights, without running code from them."""

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from convatlas import UserError
from convatlas.paths import expand_home

KERAS_ADVICE = (
    ", not weights of PyTorch; load it with Keras, write each array under its name in the network with "
    "safetensors.torch.save_file (the kernel of a convolution transposed from (H, W, in, out) to "
    "(out, in, H, W), of a dense layer from (in, out) to (out, in)), and give that file"
)
PICKLE_LOAD_CODE = "torch.load({}, map_location='cpu', weights_only=False)"
PICKLE_MAGIC = (b"\x80", b"PK")  # first bytes of a pickle, and of the zip archive in which torch puts one
TORCHSCRIPT_LOAD_CODE = "torch.jit.load({}, map_location='cpu')"


def read_checkpoint(path: str | Path, key: str = "weights", checkpoint_key: str | None = None) -> Any:
    """Read a safetensors file or a PyTorch checkpoint, whose code is not run (`weights_only=True`).

    Args:
        path: The file.
        key: Place of the path in the config, for messages.
        checkpoint_key: Place of the weights in the checkpoint, for the advice in messages.

    Returns:
        The weights by name, or whatever else the checkpoint holds.

    Raises:
        UserError: The file cannot be read, is damaged, or holds more than tensors.
    """
    path = expand_home(path)
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise UserError(f"{key}: cannot read {path}: {error.strerror}") from error
    if fault := _describe_wrong_file(head) or _describe_other_format(path, head):
        raise UserError(f"{key}: {path} {fault}")
    try:
        if path.suffix == ".safetensors" or head[8:10] == b'{"':
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of odd files, which are reported below if refused
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises errors of many kinds for one damaged file
        refusal = None
        if isinstance(error, pickle.UnpicklingError | RuntimeError):
            refusal = _describe_refusal(str(error), head)
        if refusal is None:
            raise UserError(
                f"{key}: {path} is damaged, or not a checkpoint: {_format_first_line(error)}"
            ) from error
        load_code = TORCHSCRIPT_LOAD_CODE if "TorchScript" in refusal else PICKLE_LOAD_CODE
        advice = _format_conversion_advice(path, checkpoint_key, load_code)
        raise UserError(f"{key}: {path} {refusal}{advice}") from error


def _describe_wrong_file(head: bytes) -> str | None:
    """Return what a file is instead of weights, if its first bytes show it."""
    if not head:
        return "is empty; download or save it again"
    if head.lstrip()[:1] == b"<":
        return "is a web page, not weights (a login or a notice?); download the file itself"
    if head.startswith(b"version https://git-lfs"):
        return "is only Git LFS's pointer to the weights; run `git lfs pull` in its repository"
    return None


def _describe_other_format(path: Path, head: bytes) -> str | None:
    """Return what a file of another framework or an exported program is, with the way to convert it.

    Args:
        path: The file.
        head: Its first bytes, which decide where the format has a signature; the name alone does not.
    """
    name, target = repr(str(path)), repr(f"{path.stem}.safetensors")
    command = '\n  python -c "import torch, safetensors.torch as s; {}"'
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "is an HDF5 file, as Keras writes them" + KERAS_ADVICE
    members = _list_archive(path) if head.startswith(b"PK") else []
    if "config.json" in members and any(member.endswith(".weights.h5") for member in members):
        return "is a Keras model" + KERAS_ADVICE
    parts = {member.partition("/")[2] for member in members} | set(members)
    if "archive_format" in parts or "serialized_exported_program.json" in parts:
        code = f"w = torch.export.load({name}).state_dict; "
        code += f"s.save_file({{k: v.detach().clone().contiguous() for k, v in w.items()}}, {target})"
        return (
            "is an exported program (torch.export), not weights; if you trust it, convert its weights, and "
            "give the new file:" + command.format(code)
        )
    if path.suffix.lower() == ".onnx" and not head.startswith(PICKLE_MAGIC) and head[8:10] != b'{"':
        code = f"import onnx; w = onnx.load({name}).graph.initializer; s.save_file({{i.name: "
        code += f"torch.tensor(onnx.numpy_helper.to_array(i)) for i in w}}, {target})"
        return (
            "is an ONNX model, not weights of PyTorch; rather give the checkpoint that it was exported from. "
            "Or install onnx, convert its weights, and give the new file; weights whose names the export "
            "changed do not fit:" + command.format(code)
        )
    return None


def _list_archive(path: Path) -> list[str]:
    """Return the names in a zip archive; an empty list for a damaged one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return []


def _describe_refusal(text: str, head: bytes) -> str | None:
    """Return what torch refused to unpickle, by its error's text; None for errors of another kind."""
    if "TorchScript" in text:
        return "is a TorchScript program, which may run any code and is not opened"
    match = re.search(r"(?:GLOBAL|Unsupported (?:class|global):?)\s+(?:GLOBAL )?([\w.]+)", text)
    if match or ("Unsupported" in text and head.startswith(PICKLE_MAGIC)):
        class_name = f", {match.group(1)}," if match else ""
        return f"holds more than tensors{class_name} and is not opened, for it may run any code"
    return None


def _format_conversion_advice(path: Path, checkpoint_key: str | None, load_code: str) -> str:
    """Return how to convert a trusted file to safetensors where the classes in it are installed."""
    steps = "".join(f"[{part!r}]" for part in (checkpoint_key or "").split(".") if part)
    return (
        ".\n  If you trust it, convert it where it can be opened, and give the new file, without key:\n"
        f'  python -c "import torch, safetensors.torch as s; w = {load_code.format(repr(str(path)))}{steps}; '
        "w = w.state_dict() if hasattr(w, 'state_dict') else w; "
        f's.save_file({{k: v.clone().contiguous() for k, v in w.items()}}, {path.stem + ".safetensors"!r})"'
    )


def _format_first_line(error: BaseException) -> str:
    """Return an error's kind and the first line of its text."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
