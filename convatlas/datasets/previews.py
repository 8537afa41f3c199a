"""A few images of each class and split of a data set, made small for its page, with trimap and head box."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convatlas.datasets import formats
from convatlas.datasets.formats import ImageDataset
from convatlas.datasets.oxford_pets import OxfordPetDataset

MAX_SIDE = 144  # pixels of a picture's longer side at most
LOSSLESS_MAX_SIDE = 64  # pixels up to which an image is kept whole, without loss
MAX_PREVIEWS = 96  # pictures of a data set, so that they stay well under 1 MB
PREVIEWS_PER_CLASS = 4  # pictures of a class and split
PREVIEWS_WITHOUT_CLASSES = 12  # pictures of a split without classes
TRIMAP_COLOURS = {
    1: (31, 106, 154, 72),
    3: (227, 167, 47, 215),
}  # of a trimap's pet and border, as in the plates


def write_previews(data: Path, folder: Path) -> dict[str, Any]:
    """Write the pictures of data/<name> into a folder that is there; give what examples.json says of them.

    "classes": the numbers of the classes shown, evenly drawn where there are too many; and for each
    split a list of objects, by class: its `class` (None without classes), its `name`, the picture's `file`
    and `size` (H, W), the `trimap`'s file and the `head`'s box (left, top, right, bottom, in shares of the
    image), each None where there is none.
    """
    classes = len(formats.describe(data)["classes"])
    shown = choose_evenly(range(classes), MAX_PREVIEWS // 2)
    each = (
        max(1, min(PREVIEWS_PER_CLASS, MAX_PREVIEWS // (2 * len(shown))))
        if shown
        else PREVIEWS_WITHOUT_CLASSES
    )
    found: dict[str, Any] = {"classes": shown}
    for split in ("train", "test"):
        examples = formats.load(data, split)
        found[split] = [
            _write_preview(examples, n, label if shown else None, folder, split)
            for label in shown or [-1]
            for n in choose_evenly(np.flatnonzero(examples.labels == label).tolist(), each)
        ]
    return found


def choose_evenly(items: range | list[int], count: int) -> list[int]:
    """Choose `count` items, the middles of as many equal parts of all; all where there are fewer."""
    if len(items) <= count:
        return list(items)
    return [items[(2 * n + 1) * len(items) // (2 * count)] for n in range(count)]


def _write_preview(
    examples: ImageDataset, n: int, label: int | None, folder: Path, split: str
) -> dict[str, Any]:
    """Write one picture and its trimap; give its entry."""
    image = examples.read_image(n, "RGB")
    size = _preview_size(*image.size)
    name = f"{split}-{n:05d}"
    trimap, head = None, None
    if isinstance(examples, OxfordPetDataset):
        trimap = f"{name}-trimap.png"
        _colour_trimap(examples.read_trimap(n).resize(size, Image.Resampling.NEAREST)).save(folder / trimap)
        head = _to_relative_box(examples.read_head_box(n), *image.size)
    if max(size) <= LOSSLESS_MAX_SIDE:
        file = f"{name}.png"
        grey = image.convert("L")
        is_grey = np.array_equal(np.asarray(image), np.asarray(grey.convert("RGB")))
        (grey if is_grey else image).save(folder / file)
    else:
        file = f"{name}.jpg"
        image.resize(size, Image.Resampling.LANCZOS).save(folder / file, quality=80, optimize=True)
    return {
        "class": label,
        "name": examples.names[n].encode(errors="surrogateescape").decode(errors="replace"),
        "file": file,
        "size": [size[1], size[0]],
        "trimap": trimap,
        "head": head,
    }


def _preview_size(width: int, height: int) -> tuple[int, int]:
    """The size (width, height) of the picture of an image, never enlarged."""
    share = min(1.0, MAX_SIDE / max(width, height))
    return max(1, round(share * width)), max(1, round(share * height))


def _colour_trimap(trimap: Image.Image) -> Image.Image:
    """A trimap ("L") as colours to lay over its photograph; the background is clear."""
    colours = np.zeros((256, 4), np.uint8)
    for value, tint in TRIMAP_COLOURS.items():
        colours[value] = tint
    tinted = Image.fromarray(np.asarray(trimap), "P")
    tinted.putpalette(colours[:, :3].tobytes())
    tinted.info["transparency"] = colours[:4, 3].tobytes()
    return tinted


def _to_relative_box(box: tuple[int, int, int, int] | None, width: int, height: int) -> list[float] | None:
    """A box within its image, as shares of the sides; None where none of it is in sight."""
    if box is None:
        return None
    left, right = (round(min(max(x / width, 0), 1), 4) for x in box[::2])
    top, bottom = (round(min(max(y / height, 0), 1), 4) for y in box[1::2])
    return [left, top, right, bottom] if left < right and top < bottom else None
