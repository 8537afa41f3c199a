"""What data sets of image files share: each file decoded once and checked, then splits.csv, dataset.json."""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from convatlas import UserError, image_io
from convatlas.datasets.base import PROGRESS_INTERVAL, write_splits
from convatlas.files import sha256, write_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageRecord:
    """An image file of a data set: its path under data/<name>/, its size in pixels, the hash of its files."""

    split: str
    label: int  # -1 where there are none
    path: str
    height: int
    width: int
    sha256: str


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file: "trimap missing", and what is found in the file where that tells more."""

    kind: str
    path: Path
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


Size = tuple[int, int]  # height and width in pixels, upright
Check = Callable[[Path, Size | None], list[Fault]]  # of an image file; its size is None where that is unknown


def validate_images(
    files: dict[Path, str], on_bad_image: str, key: str, mend: str, check: Check = lambda path, size: []
) -> tuple[dict[Path, Size], list[dict[str, str]]]:
    """Decode each image file once; give the sizes of the good ones, and what is left out: path and reason.

    `files` are image files with their paths under data/<name>/; `check` looks for more faults of an
    image, such as those of its trimap. Faulty images are left out and logged if `on_bad_image` is
    "skip". If it is "error" there is one UserError for them all, which says how to `mend` them and
    names `key`, the data set's place in the config; so there is where no image is left.
    """
    found: dict[Path, Size] = {}
    faulty: dict[Path, list[Fault]] = {}
    for n, path in enumerate(files, 1):
        size, faults = _decode_size(path)
        faults += check(path, size)
        if faults:
            faulty[path] = faults
        elif size:
            found[path] = size
        if n % PROGRESS_INTERVAL == 0:
            log.info("looked at %d of %d images", n, len(files))
    if faulty and on_bad_image == "error":
        raise UserError(
            f"{key}: {len(faulty)} of {len(files)} images cannot be used:\n{_format_faults(faulty.values())}\n"
            f"{mend}, or set {key}.on_bad_image: skip, which leaves these images out"
        )
    if not found:
        raise UserError(
            f"{key}.source: none of {len(files)} images can be used:\n{_format_faults(faulty.values())}"
        )
    skipped = [
        {"path": _make_printable(files[path]), "reason": "; ".join(map(str, faults))}
        for path, faults in faulty.items()
    ]
    for one in skipped:
        log.warning("left out: %s (%s)", one["path"], one["reason"])
    return found, skipped


def _decode_size(path: Path) -> tuple[Size | None, list[Fault]]:
    """Decode an image as it is read later on. What libjpeg only warns of is no fault.

    Two of the official photographs of pets, beagle_116 and chihuahua_121, have extraneous bytes
    that every reader gets over.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            plain = image.format == "JPEG" and image.getexif().get(ExifTags.Base.Orientation, 1) in (0, 1)
            if plain:  # nearly all are; reading every byte, but making few pixels, takes half the time
                image.draft(None, (1, 1))
                image.load()
        if not plain:
            width, height = image_io.read_image(path, "RGB").size
    except Exception as error:  # Pillow's readers raise many kinds for one damaged file
        return None, [fault_from_error("image", path, error.__cause__ or error)]
    return (height, width), []


def fault_from_error(what: str, path: Path, error: BaseException) -> Fault:
    """Say why a file cannot be read, in one line that does not name its folder."""
    if not path.is_file():
        return Fault(f"{what} missing", path)
    text = "" if isinstance(error, UnidentifiedImageError) else getattr(error, "strerror", None) or str(error)
    detail = " ".join(text.replace(str(path), path.name).split())
    return Fault(f"{what} that cannot be read", path, _make_printable(detail or "no image"))


def _format_faults(faulty: Iterable[list[Fault]]) -> str:
    """Count the faults of each kind, a line each, and name the first file."""
    kinds: dict[str, list[Fault]] = defaultdict(list)
    for fault in (fault for faults in faulty for fault in faults):
        kinds[fault.kind].append(fault)
    return "\n".join(
        f"  - {kind}: {len(faults)}, the first is {faults[0].path}"
        + (f" ({faults[0].detail})" if faults[0].detail else "")
        for kind, faults in kinds.items()
    )


def _make_printable(name: str) -> str:
    """Make a file's name fit for JSON: what is no text in it is shown as such."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def check_no_class_emptied(
    before: Iterable[tuple[str, str]], left: Iterable[tuple[str, str]], key: str
) -> None:
    """Refuse to leave out all the images of a split or of a class; both are given of each image."""

    def occupied(pairs: Iterable[tuple[str, str]]) -> set[str]:
        names = {
            name for split, label in pairs for name in (f"the split {split}", label and f"the class {label}")
        }
        return names - {""}

    if emptied := sorted(occupied(before) - occupied(left)):
        raise UserError(
            f"{key}.on_bad_image: skip leaves no image in {', '.join(emptied)}; the log names the files "
            "left out: mend some of them"
        )


def write_metadata(folder: Path, photographs: list[ImageRecord], about: dict[str, Any]) -> None:
    """Write splits.csv, then dataset.json: `about` completed with counts, sizes and the hash of the contents.

    `about` has format, source, title, description, licence, classes, target and skipped (the images
    left out: path and reason). Without classes the counts are one number a split.
    """
    write_splits(folder, [(one.split, one.label, one.path) for one in photographs])
    counts = {
        split: _count_labels([one.label for one in photographs if one.split == split], len(about["classes"]))
        for split in ("train", "test")
    }
    contents = "".join(f"{one.split},{one.label},{one.sha256}\n" for one in photographs)
    description = about | {
        "counts": counts,
        "image_shape": None,
        "image_sizes": _summarize_sizes((one.height, one.width) for one in photographs),
        "sha256": hashlib.sha256(contents.encode()).hexdigest(),
    }
    order = ["format", "source", "title", "description", "licence", "classes", "counts", "image_shape"]
    order += ["image_sizes", "target", "sha256", "skipped"]
    write_json(folder / "dataset.json", {name: description[name] for name in order})


def _count_labels(labels: list[int], classes: int) -> list[int]:
    return np.bincount(labels, minlength=classes).tolist() if classes else [len(labels)]


def _summarize_sizes(found: Iterable[tuple[int, int]]) -> dict[str, list[int]]:
    """The smallest, the median and the largest of the sizes (height, width), by their areas."""
    ordered = sorted(found, key=lambda size: (size[0] * size[1], size))
    places = {"smallest": 0, "median": (len(ordered) - 1) // 2, "largest": -1}
    return {name: list(ordered[place]) for name, place in places.items()}


def hash_files(*paths: Path) -> str:
    """Hash the files of one photograph. Raises UserError where one cannot be read."""
    try:
        return sha256(*paths)
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error


def check_source_outside(given: Path, folder: Path, key: str) -> None:
    """Refuse a source that lies in the folder that is made here, and would be lost with it."""
    if given.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{key}: {given} lies in {folder}, which is made here; move it and name the new place"
        )
