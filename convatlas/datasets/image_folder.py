"""Folders of image files: all test images without labels, or root/class/*, split here."""

import hashlib
import logging
import math
from collections import Counter
from pathlib import Path
from typing import Any

from convatlas import UserError
from convatlas.datasets.base import ImageDataset, read_splits
from convatlas.datasets.image_files import (
    ImageRecord,
    check_no_class_emptied,
    check_source_outside,
    hash_files,
    validate_images,
    write_metadata,
)
from convatlas.files import atomic_write
from convatlas.image_io import list_images

log = logging.getLogger(__name__)

EXPECTED_LAYOUT = "a folder of image files, or one that holds a folder of them for each class"


def prepare(folder: Path, settings: dict[str, Any], key: str) -> None:
    """Make `folder`/images, a link to the source, splits.csv and dataset.json."""
    source, share, on_bad_image = (settings[name] for name in ("source", "test_share", "on_bad_image"))
    if source in ("embedded", "download"):
        raise UserError(
            f"{key}.source: {source} is not to be had for the format images; give {EXPECTED_LAYOUT}"
        )
    given = Path(source).expanduser()
    if not given.is_dir():
        raise UserError(f"{key}.source: no directory {source!r}; give {EXPECTED_LAYOUT}")
    check_source_outside(given, folder, f"{key}.source")
    classes, files = _scan_folder(given, f"{key}.source")
    labels = {name: label for label, name in enumerate(classes)}
    split_here = f"; {100 * share:g} % of each class are test images." if classes else ", all test images."
    with atomic_write(folder / "images") as aside:
        places = {path: f"images/{path.relative_to(given).as_posix()}" for path in files}
        found, skipped = validate_images(places, on_bad_image, key, "mend or remove the files")
        splits = _assign_splits({path: name for path, name in files.items() if path in found}, given, share)
        if skipped:
            before = _assign_splits(files, given, share)
            check_no_class_emptied(
                *([(made[path], files[path]) for path in made] for made in (before, splits)), key
            )
        _warn_about_single_images(Counter(files[path] for path in splits))
        photographs = [
            ImageRecord(
                splits[path],
                labels.get(files[path], -1),
                places[path],
                *found[path],
                hash_files(path),
            )
            for path in splits
        ]
        aside.symlink_to(given.resolve())
        (folder / "dataset.json").unlink(missing_ok=True)  # it marks a whole data set: written last
    about = {
        "format": "images",
        "source": "directory",
        "title": f"Images of {len(classes)} classes" if classes else "Images without labels",
        "description": f"Image files from a folder of the user's{split_here}",
        "licence": "as their owner states",
        "classes": classes,
        "target": None,
        "skipped": skipped,
    }
    write_metadata(folder, photographs, about)


def load(folder: Path, split: str) -> ImageDataset:
    """Give a split; its names are the paths under the source."""
    labels, paths = read_splits(folder, split)
    names = [Path(path).relative_to(folder / "images").as_posix() for path in paths]
    return ImageDataset(labels, names, paths)


def _scan_folder(given: Path, key: str) -> tuple[list[str], dict[Path, str]]:
    """Give the classes' names, none where images lie right in the folder, and the files with their class."""
    images, others = list_images(given)
    files = dict.fromkeys(images, "")
    classes: list[str] = []
    for inner in sorted(path for path in given.iterdir() if path.is_dir() and not path.name.startswith(".")):
        inside, more = list_images(inner)
        others += more
        if inside and not inner.name.isprintable():
            raise UserError(f"{key}: the folder {inner.name!r} cannot name a class; rename it")
        if inside:
            classes.append(inner.name)
        else:
            log.warning("%s holds no image files right in it and is passed over", inner)
        files |= dict.fromkeys(inside, inner.name)
    if others:
        log.info("%d other and hidden files in %s are passed over", others, given)
    if not files:
        raise UserError(f"{key}: {given} holds no image files; give {EXPECTED_LAYOUT}")
    if images and classes:
        raise UserError(
            f"{key}: {given} holds both image files, such as {images[0].name}, and folders of them, such as "
            f"{classes[0]}/; give {EXPECTED_LAYOUT}"
        )
    return classes, files


def _assign_splits(files: dict[Path, str], given: Path, share: float) -> dict[Path, str]:
    """Give each file's split: of each class the first `share`, by the hashes of names, are test images.

    A class of two or more keeps one to train on; the only image of a class is a test image.
    """
    splits = dict.fromkeys(files, "train")
    classes: dict[str, list[Path]] = {}
    for path, name in files.items():
        classes.setdefault(name, []).append(path)
    for name, own in classes.items():
        own.sort(key=lambda path: _hash_path(path.relative_to(given)))
        count = min(math.ceil(round(share * len(own), 9)), max(len(own) - 1, 1))  # 0.1 × 30 is above 3
        splits |= dict.fromkeys(own[:count] if name else own, "test")
    return splits


def _warn_about_single_images(counts: Counter[str]) -> None:
    for name, count in counts.items():
        if name and count == 1:
            log.warning("class %s has 1 image that can be read, a test image: none to train on", name)


def _hash_path(path: Path) -> bytes:
    return hashlib.sha256(path.as_posix().encode(errors="surrogateescape")).digest()
