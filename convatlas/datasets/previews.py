"""Small previews of a few images of each class and split, for the data set's page."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from convatlas.datasets import formats, trimaps
from convatlas.datasets.base import ImageDataset
from convatlas.datasets.oxford_pets import OxfordPetDataset
from convatlas.datasets.thumbnails import LOSSLESS_MAX_SIDE, encode_lossless, fit_size, read_display_image
from convatlas.names import make_printable
from convatlas.records import DatasetDescription, Preview, Previews, Split

MAX_SIDE = 144  # pixels of a preview's longer side
MAX_PREVIEWS = 96  # of a data set, so that they take well under 1 MB
PREVIEWS_PER_CLASS = 4  # of a class and split
SEED = 0  # of the choice of images
PREVIEWS_WITHOUT_CLASSES = 12  # of a split without classes
TRIMAP_COLOURS = {  # RGBA, as in the figures; the background is transparent
    trimaps.PET: (31, 106, 154, 72),
    trimaps.BORDER: (227, 167, 47, 215),
}


def write_previews(data: Path, folder: Path) -> Previews:
    """Write previews of a data set.

    Args:
        data: The data set's folder, data/<name>.
        folder: The existing folder to write the pictures into.

    Returns:
        The content of examples.json: the indices of the classes shown, evenly chosen where there are too
        many, and the previews of each split, ordered by class.

    Raises:
        UserError: The data set is not prepared, or an image cannot be read.
    """
    classes = choose_evenly(range(len(formats.describe(data)["classes"])), MAX_PREVIEWS // 2)
    return {
        "classes": classes,
        "has_subclasses": bool(classes) and formats.load(data, "train").subclasses is not None,
        "train": _write_split_previews(data, "train", classes, folder),
        "test": _write_split_previews(data, "test", classes, folder),
    }


def _write_split_previews(data: Path, split: Split, classes: list[int], folder: Path) -> list[Preview]:
    """Write the previews of a split, ordered by class."""
    dataset, description = formats.load(data, split), formats.describe(data)
    if not classes:
        images = np.flatnonzero(dataset.labels == -1).tolist()
        chosen = choose_at_random(images, PREVIEWS_WITHOUT_CLASSES)
        return [_write_preview(dataset, index, None, folder, split, description) for index in chosen]
    count = max(1, min(PREVIEWS_PER_CLASS, MAX_PREVIEWS // (2 * len(classes))))
    return [
        _write_preview(dataset, index, label, folder, split, description)
        for label in classes
        for index in choose_at_random(
            np.flatnonzero(dataset.labels == label).tolist(), count, dataset.subclasses
        )
    ]


def choose_evenly(items: Sequence[int], count: int) -> list[int]:
    """Return the middle items of `count` equal parts; all items where there are fewer.

    Args:
        items: The items.
        count: How many to choose.
    """
    if len(items) <= count:
        return list(items)
    return [items[(2 * n + 1) * len(items) // (2 * count)] for n in range(count)]


def choose_at_random(items: Sequence[int], count: int, subclasses: Sequence[str] | None = None) -> list[int]:
    """Choose some images at random, of as many subclasses as there are; the same at each call.

    Args:
        items: Indices of images.
        count: How many to choose.
        subclasses: The subclass of each image of the split, which are chosen from in turn; None without any.

    Returns:
        The chosen indices, ascending.
    """
    shuffled = np.random.default_rng(SEED).permutation(np.array(items, dtype=np.int64)).tolist()
    ranks: Counter[str] = Counter()  # the number of images before it of the same subclass
    turns: list[tuple[int, int]] = []
    for place, index in enumerate(shuffled):
        subclass = subclasses[index] if subclasses else ""
        turns.append((ranks[subclass], place))
        ranks[subclass] += 1
    return sorted(shuffled[place] for _, place in sorted(turns)[:count])


def _write_preview(
    dataset: ImageDataset,
    index: int,
    label: int | None,
    folder: Path,
    split: Split,
    description: DatasetDescription,
) -> Preview:
    """Write the preview of an image and of its trimap."""
    image = read_display_image(dataset, index, description)
    size = fit_size(*image.size, MAX_SIDE)
    name = f"{split}-{index:05d}"
    trimap_file, head_box = None, None
    if isinstance(dataset, OxfordPetDataset):
        trimap_file = f"{name}-trimap.png"
        trimap = dataset.read_trimap(index).resize(size, Image.Resampling.NEAREST)
        _colour_trimap(trimap).save(folder / trimap_file)
        head_box = _to_relative_box(dataset.read_head_box(index), *image.size)
    if max(size) <= LOSSLESS_MAX_SIDE:
        file = f"{name}.png"
        (folder / file).write_bytes(encode_lossless(image))
    else:
        file = f"{name}.jpg"
        image.resize(size, Image.Resampling.LANCZOS).save(folder / file, quality=80, optimize=True)
    return {
        "class": label,
        "name": make_printable(dataset.names[index]),
        "file": file,
        "size": [size[1], size[0]],
        "trimap": trimap_file,
        "head_box": head_box,
    }


def _colour_trimap(trimap: Image.Image) -> Image.Image:
    """Return a trimap ("L") as colours to lay over its photograph; the background is transparent."""
    colours = np.zeros((256, 4), np.uint8)
    for value, colour in TRIMAP_COLOURS.items():
        colours[value] = colour
    coloured = Image.fromarray(np.asarray(trimap), "P")
    coloured.putpalette(colours[:, :3].tobytes())
    coloured.info["transparency"] = colours[:4, 3].tobytes()
    return coloured


def _to_relative_box(box: trimaps.Box | None, width: int, height: int) -> list[float] | None:
    """Return a box clipped to its image, as shares of the sides; None where nothing of it is in the image."""
    if box is None:
        return None
    left, right = (round(min(max(x / width, 0), 1), 4) for x in box[::2])
    top, bottom = (round(min(max(y / height, 0), 1), 4) for y in box[1::2])
    return [left, top, right, bottom] if left < right and top < bottom else None
