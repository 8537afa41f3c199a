"""Sprite sheets as a page reads them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def read_pixels(path: Path) -> np.ndarray:
    """Return the greys (H, W) or colours (H, W, 3) of an image file, without its palette."""
    image = Image.open(path)
    return np.asarray(image if image.mode == "RGB" else image.convert("L"))


def cut_tiles(path: Path, sheets: Mapping[str, Any], count: int) -> np.ndarray:
    """Cut tiles out of sheets, by their numbers.

    Args:
        path: The first sheet, without a suffix.
        sheets: The layout of the sheets, as in atlas.json.
        count: The number of tiles.
    """
    height, width = sheets["tile_size"]
    tiles = []
    for n in range(count):
        number, place = divmod(n, sheets["columns"] * sheets["rows"])
        name = path.name if number == 0 else f"{path.name}.{number + 1}"
        pixels = read_pixels(path.with_name(f"{name}.{sheets['suffix']}"))
        row, column = divmod(place, sheets["columns"])
        tiles.append(pixels[row * height : (row + 1) * height, column * width : (column + 1) * width])
    return np.stack(tiles)
