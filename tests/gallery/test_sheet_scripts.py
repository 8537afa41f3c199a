"""Sprite sheets as scripts: the text holds every byte, and is valid in a string of JavaScript."""

import numpy as np
import pytest

from convatlas.gallery.sheet_scripts import encode_text, format_sheet_script


@pytest.mark.parametrize("size", [0, 1, 6, 7, 8, 1001])
def test_the_text_holds_every_byte(size: int) -> None:
    content = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()
    text = encode_text(content).decode()
    assert not set('\0\n\r"\\\u2028\u2029') & set(text)
    bits = "".join(f"{ord(character) % 128:07b}" for character in text)
    assert bytes(int(bits[8 * n : 8 * n + 8], 2) for n in range(size)) == content
    assert len(text) == -(-8 * size // 7)


def test_a_script_names_its_sheet() -> None:
    script = format_sheet_script('explorer/a"b/maps/c/d.png', bytes([0xFF] * 7))
    text = "\x7f" * 8
    assert script.decode() == f'convatlas.registerSheet("explorer/a\\"b/maps/c/d.png", "{text}");\n'
