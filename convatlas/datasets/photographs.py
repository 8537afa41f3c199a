"""What data sets of image files share: every file looked at once, then splits.csv and dataset.json."""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convatlas import UserError, pictures
from convatlas.datasets.examples import EVERY, write_splits
from convatlas.files import sha256, write_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Photograph:
    """An image file of a data set: its path under data/<name>/, its size in pixels, the hash of its files."""

    split: str
    label: int  # -1 where there are none
    path: str
    height: int
    width: int
    sha256: str


def sizes(paths: Sequence[Path], skip_unreadable: bool, key: str) -> dict[Path, tuple[int, int]]:
    """Decode every image file; give its height and width, upright.

    Files that cannot be read are left out and named in the log if `skip_unreadable`, else there
    is a UserError, which names `key`, the data set's place in the config.
    """
    found: dict[Path, tuple[int, int]] = {}
    faults: list[str] = []
    for n, path in enumerate(paths, 1):
        try:
            width, height = pictures.read(path, "RGB").size
            found[path] = height, width
        except UserError as error:
            faults.append(str(error))
        if n % EVERY == 0:
            log.info("looked at %d of %d images", n, len(paths))
    if faults and not skip_unreadable:
        raise UserError(
            f"{key}: of {len(paths)} image files {len(faults)} cannot be read, the first: {faults[0]}; "
            f"mend or remove them, or set {key}.skip_unreadable: true, which leaves them out"
        )
    for fault in faults:
        log.warning("left out: %s", fault)
    if not found:
        raise UserError(f"{key}.source: none of {len(paths)} image files can be read")
    return found


def finish(folder: Path, photographs: list[Photograph], about: dict[str, Any]) -> None:
    """Write splits.csv, then dataset.json: `about` completed with counts, sizes and the hash of the contents.

    `about` has format, source, title, description, licence, classes and target. Without classes the
    counts are one number a split.
    """
    write_splits(folder, [(one.split, one.label, one.path) for one in photographs])
    counts = {
        split: _counts([one.label for one in photographs if one.split == split], len(about["classes"]))
        for split in ("train", "test")
    }
    contents = "".join(f"{one.split},{one.label},{one.sha256}\n" for one in photographs)
    description = about | {
        "counts": counts,
        "image_shape": None,
        "image_sizes": _extremes((one.height, one.width) for one in photographs),
        "target": about["target"],
        "sha256": hashlib.sha256(contents.encode()).hexdigest(),
    }
    order = ["format", "source", "title", "description", "licence", "classes", "counts", "image_shape"]
    order += ["image_sizes", "target", "sha256"]
    write_json(folder / "dataset.json", {name: description[name] for name in order})


def _counts(labels: list[int], classes: int) -> list[int]:
    return np.bincount(labels, minlength=classes).tolist() if classes else [len(labels)]


def _extremes(found: Iterable[tuple[int, int]]) -> dict[str, list[int]]:
    """The smallest, the median and the largest of the sizes (height, width), by their areas."""
    ordered = sorted(found, key=lambda size: (size[0] * size[1], size))
    places = {"smallest": 0, "median": (len(ordered) - 1) // 2, "largest": -1}
    return {name: list(ordered[place]) for name, place in places.items()}


def contents(*paths: Path) -> str:
    """Hash the files of one photograph. Raises UserError where one cannot be read."""
    try:
        return sha256(*paths)
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error


def refuse_own(given: Path, folder: Path, key: str) -> None:
    """Refuse a source that lies in the folder that is made here, and would be lost with it."""
    if given.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{key}: {given} lies in {folder}, which is made here; move it and name the new place"
        )
