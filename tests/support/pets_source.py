"""A small data set in the layout of Oxford-IIIT Pet: its files, and how it is prepared."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convatlas.datasets import formats
from convatlas.records import DatasetDescription

KEY = "datasets.d"
SETTINGS = {"format": "oxford-iiit-pet", "mirrors": [], "target": "breed", "on_bad_image": "error"}
TRAINVAL = [("Some_Cat_1", 5, 1), ("shaggy_dog_2", 9, 2), ("Some_Cat_10", 5, 1), ("old_hound_1", 12, 2)]
TEST = [("shaggy_dog_1", 9, 2), ("Some_Cat_2", 5, 1)]
BOX = "<annotation><object><name>cat</name><bndbox>{}</bndbox></object></annotation>"


def draw_noise(name: str) -> np.ndarray:
    """Return an image, 20 to 40 pixels high and wide, that differs from that of every other name."""
    rng = np.random.default_rng(list(name.encode()))
    return rng.integers(0, 256, (*rng.integers(20, 41, 2), 3), np.uint8)


def write_pets_source(folder: Path) -> Path:
    """Write a small set in the official layout into images/ and annotations/ of a folder."""
    for subfolder in ("images", "annotations/trimaps", "annotations/xmls"):
        (folder / subfolder).mkdir(parents=True)
    for split, lines in {"trainval": TRAINVAL, "test": TEST}.items():
        text = "".join(f"{name} {label} {species} 1\n" for name, label, species in lines)
        (folder / f"annotations/{split}.txt").write_text("#Image CLASS-ID SPECIES BREED-ID\n\n" + text)
        for name, *_ in lines:
            Image.fromarray(draw_noise(name)).save(folder / f"images/{name}.jpg")
            trimap = draw_noise(name)[:, :, 0] % 3 + 1
            Image.fromarray(trimap).save(folder / f"annotations/trimaps/{name}.png")
    return folder


def prepare_pets(folder: Path, source: Path | str, **settings: Any) -> DatasetDescription:
    """Prepare a data set named d and return its description."""
    formats.prepare(folder, SETTINGS | {"source": str(source)} | settings, KEY)
    return formats.describe(folder)
