"""Folders of image files: all test images without labels, or root/class/*, split here."""

import hashlib
import logging
import math
from collections import Counter
from pathlib import Path
from typing import Any

from convatlas import UserError
from convatlas.datasets.base import Examples, read_splits
from convatlas.datasets.image_files import Photograph, contents, finish, refuse_empty, refuse_own, sort_out
from convatlas.files import whole
from convatlas.image_io import listing

log = logging.getLogger(__name__)

EXPECTED = "a folder of image files, or one that holds a folder of them for each class"


def prepare(folder: Path, settings: dict[str, Any], key: str) -> None:
    """Make `folder`/images, a link to the source, splits.csv and dataset.json."""
    source, share, on_bad_image = (settings[name] for name in ("source", "test_share", "on_bad_image"))
    if source in ("embedded", "download"):
        raise UserError(f"{key}.source: {source} is not to be had for the format images; give {EXPECTED}")
    given = Path(source).expanduser()
    if not given.is_dir():
        raise UserError(f"{key}.source: no directory {source!r}; give {EXPECTED}")
    refuse_own(given, folder, f"{key}.source")
    classes, files = _found(given, f"{key}.source")
    labels = {name: label for label, name in enumerate(classes)}
    split_here = f"; {100 * share:g} % of each class are test images." if classes else ", all test images."
    with whole(folder / "images") as aside:
        places = {path: f"images/{path.relative_to(given).as_posix()}" for path in files}
        found, skipped = sort_out(places, on_bad_image, key, "mend or remove the files")
        splits = _splits({path: name for path, name in files.items() if path in found}, given, share)
        if skipped:
            before = _splits(files, given, share)
            refuse_empty(*([(made[path], files[path]) for path in made] for made in (before, splits)), key)
        _warn_of_single(Counter(files[path] for path in splits))
        photographs = [
            Photograph(
                splits[path],
                labels.get(files[path], -1),
                places[path],
                *found[path],
                contents(path),
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
    finish(folder, photographs, about)


def load(folder: Path, split: str) -> Examples:
    """Give a split; its names are the paths under the source."""
    labels, paths = read_splits(folder, split)
    names = [Path(path).relative_to(folder / "images").as_posix() for path in paths]
    return Examples(labels, names, paths)


def _found(given: Path, key: str) -> tuple[list[str], dict[Path, str]]:
    """Give the classes' names, none where images lie right in the folder, and the files with their class."""
    images, others = listing(given)
    files = dict.fromkeys(images, "")
    classes: list[str] = []
    for inner in sorted(path for path in given.iterdir() if path.is_dir() and not path.name.startswith(".")):
        inside, more = listing(inner)
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
        raise UserError(f"{key}: {given} holds no image files; give {EXPECTED}")
    if images and classes:
        raise UserError(
            f"{key}: {given} holds both image files, such as {images[0].name}, and folders of them, such as "
            f"{classes[0]}/; give {EXPECTED}"
        )
    return classes, files


def _splits(files: dict[Path, str], given: Path, share: float) -> dict[Path, str]:
    """Give each file's split: of each class the first `share`, by the hashes of names, are test images.

    A class of two or more keeps one to train on; the only image of a class is a test image.
    """
    splits = dict.fromkeys(files, "train")
    classes: dict[str, list[Path]] = {}
    for path, name in files.items():
        classes.setdefault(name, []).append(path)
    for name, own in classes.items():
        own.sort(key=lambda path: _digest(path.relative_to(given)))
        count = min(math.ceil(round(share * len(own), 9)), max(len(own) - 1, 1))  # 0.1 × 30 is above 3
        splits |= dict.fromkeys(own[:count] if name else own, "test")
    return splits


def _warn_of_single(counts: Counter[str]) -> None:
    for name, count in counts.items():
        if name and count == 1:
            log.warning("class %s has 1 image that can be read, a test image: none to train on", name)


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.as_posix().encode(errors="surrogateescape")).digest()
