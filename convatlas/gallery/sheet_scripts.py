"""Sprite sheets as scripts: a page opened from a file may run a script, but not read an image's pixels."""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

SHEET_FOLDERS = ("maps", "filters", "deconv")  # of results/<network>/atlas/
# ASCII characters that a string of JavaScript, or a text, cannot hold as they are.
UNSAFE_CODES = b'\0\n\r"\\'


def list_sheets(folder: Path) -> list[Path]:
    """List the sprite sheets of a network that become scripts.

    Args:
        folder: The folder of the sprites, results/<network>/atlas.
    """
    return [
        path for name in SHEET_FOLDERS for path in sorted((folder / name).rglob("[!.]*")) if path.is_file()
    ]


def format_sheet_script(path: str, content: bytes) -> bytes:
    """Write the script that hands a sprite sheet to the pages.

    Args:
        path: The place of the image in the site, under which the pages ask for it.
        content: The image file.

    Returns:
        One call of `convatlas.registerSheet`, in UTF-8.
    """
    call = f"convatlas.registerSheet({json.dumps(path)}, ".encode()
    return b"".join([call, b'"', encode_text(content), b'");\n'])


def format_data_script(function: str, names: Sequence[str], value: Any) -> bytes:
    """Write the script that hands JSON to the pages, deflated.

    Args:
        function: The function of `convatlas` that the script calls.
        names: Its first arguments, by which the pages ask for the value.
        value: What `json.dumps` accepts.

    Returns:
        One call of the function, in UTF-8.

    Raises:
        ValueError: A number is NaN or infinite.
    """
    content = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    # Level 9 would take twice the time for 1 % less.
    texts = [json.dumps(name).replace("<", r"\u003c").replace(">", r"\u003e") for name in names]
    call = f"convatlas.{function}({', '.join(texts)}, ".encode()
    return b"".join([call, b'"', encode_text(zlib.compress(content, 6)), b'");\n'])


def encode_text(content: bytes) -> bytes:
    """Encode bytes as characters of seven bits each, a fifth larger; base64 is a third larger.

    Codes that a string of JavaScript cannot hold are 128 higher; those of the last character are padded
    with zeros.

    Args:
        content: The bytes.

    Returns:
        The characters in UTF-8.
    """
    bits = np.unpackbits(np.frombuffer(content, np.uint8))
    groups = np.append(bits, np.zeros(-len(bits) % 7, np.uint8)).reshape(-1, 7)
    text = (np.packbits(groups, axis=1)[:, 0] >> 1).tobytes()
    for code in UNSAFE_CODES:
        text = text.replace(bytes([code]), chr(code + 128).encode())
    return text
