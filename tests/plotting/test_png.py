"""PNG with a palette: Pillow reads the colours back, and repeated rows take little."""

import io

import numpy as np
import pytest
from PIL import Image

from convatlas.plotting.png import encode_indexed_png


@pytest.mark.parametrize("colours", [2, 256])
def test_a_picture_with_repeated_rows_is_read_back(colours: int) -> None:
    rng = np.random.default_rng(colours)
    pixels = rng.integers(0, colours, (40, 700), np.uint8).repeat(5, 0)
    palette = rng.integers(0, 256, (colours, 3), np.uint8)
    content = encode_indexed_png(pixels, palette, 200)
    with Image.open(io.BytesIO(content)) as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), palette[pixels])
        assert image.info["dpi"] == pytest.approx((200, 200), abs=0.01)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    assert len(content) < len(buffer.getvalue()) + 3 * colours  # of the palette
