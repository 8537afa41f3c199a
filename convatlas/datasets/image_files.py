"""What formats of image files share: each file is decoded once and checked, and then described."""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, UnidentifiedImageError

from convatlas import UserError
from convatlas.datasets.base import PROGRESS_INTERVAL, SourceDescription, write_description, write_splits
from convatlas.files import sha256
from convatlas.image_files import open_image
from convatlas.names import make_printable
from convatlas.records import DatasetDescription, DatasetValues, PhotographCredit, SkippedFile
from convatlas.stored_images import read_stored_image
from convatlas.value_ranges import PLAIN_VALUES, ValueSummary, summarize_values

log = logging.getLogger(__name__)

Size = tuple[int, int]  # height and width of the upright image in pixels


@dataclass(frozen=True)
class ImageFacts:
    """Size in pixels, number of channels, and values of an image file."""

    height: int
    width: int
    channels: int
    has_alpha: bool = False
    values: ValueSummary = PLAIN_VALUES

    @property
    def is_plain(self) -> bool:
        """Whether it is grey or RGB, of 8 bits."""
        return self.channels in (1, 3) and self.values.dtype == "uint8" and self.values.reduced_bits is None


@dataclass(frozen=True)
class ImageRecord:
    """An image file of a data set: its path under data/<name>/, what it holds, the hash of its files."""

    split: str
    label: int  # -1 without a label
    path: str
    facts: ImageFacts
    sha256: str


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file: its kind, such as "trimap missing", and details where they help."""

    kind: str
    path: Path
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


Check = Callable[[Path, Size | None], list[Fault]]  # of an image file; its size is None where that is unknown


def check_nothing(path: Path, size: Size | None) -> list[Fault]:
    """Accept an image that can be decoded: the `Check` of formats without further files.

    Args:
        path: The image file.
        size: Its height and width in pixels; None where unknown.

    Returns:
        No faults.
    """
    return []


def validate_images(
    files: dict[Path, str], on_bad_image: str, key: str, fix_hint: str, check: Check = check_nothing
) -> tuple[dict[Path, ImageFacts], list[SkippedFile]]:
    """Decode each image file once, and skip or refuse those with faults.

    Args:
        files: The image files with their paths under data/<name>/.
        on_bad_image: "error" raises one error for all faulty images; "skip" skips and logs them.
        key: The data set's place in the config, for error messages.
        fix_hint: How to fix the files, for error messages.
        check: Returns further faults of an image, such as those of its trimap.

    Returns:
        What the usable images hold, by their files, and the skipped images.

    Raises:
        UserError: Images have faults and `on_bad_image` is "error", or no image is usable.
    """
    usable: dict[Path, ImageFacts] = {}
    faulty: dict[Path, list[Fault]] = {}
    for n, path in enumerate(files, 1):
        facts, faults = _decode(path)
        faults += check(path, (facts.height, facts.width) if facts else None)
        if faults:
            faulty[path] = faults
        elif facts:
            usable[path] = facts
        if n % PROGRESS_INTERVAL == 0:
            log.info("checked %d of %d images", n, len(files))
    fault_list = _format_faults(faulty.values())
    if faulty and on_bad_image == "error":
        raise UserError(
            f"{key}: {len(faulty)} of {len(files)} images cannot be used:\n{fault_list}\n"
            f"{fix_hint}, or set {key}.on_bad_image: skip, which skips these images"
        )
    if not usable:
        raise UserError(f"{key}.source: none of {len(files)} images can be used:\n{fault_list}")
    skipped: list[SkippedFile] = [
        {"path": make_printable(files[path]), "reason": "; ".join(map(str, faults))}
        for path, faults in faulty.items()
    ]
    for file in skipped:
        log.warning("skipped: %s (%s)", file["path"], file["reason"])
    return usable, skipped


def _decode(path: Path) -> tuple[ImageFacts | None, list[Fault]]:
    """Decode an image as it is read later on, and return what it holds or the fault.

    What libjpeg only warns about is no fault: the official photographs beagle_116 and chihuahua_121 have
    extraneous bytes, which every reader ignores.
    """
    try:
        facts = _decode_upright_jpeg(path)
        if facts is None:
            stored = read_stored_image(path)
            height, width, channels = stored.values.shape
            facts = ImageFacts(height, width, channels, stored.has_alpha, summarize_values(stored))
        return facts, []
    except Exception as error:  # Pillow's readers raise many kinds for one damaged file
        return None, [fault_from_error("image", path, error.__cause__ or error)]


def _decode_upright_jpeg(path: Path) -> ImageFacts | None:
    """Read every byte of a JPEG file, but few pixels, in half the time; None for other files."""
    try:
        image = open_image(path)
    except UnidentifiedImageError:  # of NumPy, or of a TIFF that Pillow does not read
        return None
    with image:
        facts = ImageFacts(image.height, image.width, 1 if image.mode == "L" else 3)
        if image.format != "JPEG" or image.getexif().get(ExifTags.Base.Orientation, 1) not in (0, 1):
            return None
        image.draft(None, (1, 1))
        image.load()
        return facts


def fault_from_error(subject: str, path: Path, error: BaseException) -> Fault:
    """Return why a file cannot be read, in one line that does not name its folder.

    Args:
        subject: What the file holds: "image" or "trimap".
        path: The file.
        error: What was raised when it was read.
    """
    if not path.exists():
        return Fault(f"{subject} missing", path)
    text = "" if isinstance(error, UnidentifiedImageError) else getattr(error, "strerror", None) or str(error)
    detail = " ".join(text.replace(str(path), path.name).split())
    return Fault(f"{subject} that cannot be read", path, make_printable(detail or "no image"))


def _format_faults(faulty: Iterable[list[Fault]]) -> str:
    """Count the faults of each kind, one line per kind, with the first file."""
    kinds: dict[str, list[Fault]] = defaultdict(list)
    for fault in (fault for faults in faulty for fault in faults):
        kinds[fault.kind].append(fault)
    return "\n".join(
        f"  - {kind}: {len(faults)}, the first is {faults[0].path}"
        + (f" ({faults[0].detail})" if faults[0].detail else "")
        for kind, faults in kinds.items()
    )


def check_no_class_emptied(
    listed: Iterable[tuple[str, str]], usable: Iterable[tuple[str, str]], key: str
) -> None:
    """Refuse to skip all images of a split or of a class.

    Args:
        listed: Split and class of each image, "" without a class.
        usable: The same of the images that were not skipped.
        key: The data set's place in the config, for the error message.

    Raises:
        UserError: A split or class that has listed images has no usable ones.
    """
    if emptied := sorted(_name_groups(listed) - _name_groups(usable)):
        raise UserError(
            f"{key}.on_bad_image: skip leaves no image in {', '.join(emptied)}; the log names the skipped "
            "files: fix some of them"
        )


def _name_groups(images: Iterable[tuple[str, str]]) -> set[str]:
    """Name the splits and classes that images belong to."""
    pairs = set(images)
    return {f"the split {split}" for split, _ in pairs} | {f"the class {name}" for _, name in pairs if name}


def write_metadata(
    folder: Path,
    images: Sequence[ImageRecord],
    format_name: str,
    source: str,
    texts: SourceDescription,
    classes: list[str],
    target: str | None,
    skipped: list[SkippedFile],
    credits: list[PhotographCredit] | None = None,
) -> None:
    """Write splits.csv, then dataset.json with counts, sizes and the hash of the contents.

    Args:
        folder: The data set's folder, data/<name>.
        images: The usable images.
        format_name: The format's name in the config.
        source: "embedded", "download" or "directory".
        texts: Title, description and licence.
        classes: The names of the classes; without classes the counts are one number per split.
        target: What the classes are, where the format has a choice.
        skipped: The skipped images.
        credits: The origins of the photographs, where each has its own.
    """
    write_splits(folder, [(image.split, image.label, image.path) for image in images])
    contents = "".join(f"{image.split},{image.label},{image.sha256}\n" for image in images)
    description: DatasetDescription = {
        "format": format_name,
        "source": source,
        "title": texts.title,
        "description": texts.description,
        "licence": texts.licence,
        "classes": classes,
        "counts": {
            split: _count_labels([image.label for image in images if image.split == split], len(classes))
            for split in ("train", "test")
        },
        "image_shape": None,
        "image_sizes": _summarize_sizes((image.facts.height, image.facts.width) for image in images),
        "target": target,
        "sha256": hashlib.sha256(contents.encode()).hexdigest(),
        "skipped": skipped,
    }
    if not all(image.facts.is_plain for image in images):
        description["values"] = _group_values([image.facts for image in images])
    if credits:
        description["credits"] = credits
    write_description(folder, description)


def _group_values(images: Sequence[ImageFacts]) -> list[DatasetValues]:
    """Return data type, range, channels and extent of the values of images, of each kind together."""
    groups: dict[tuple[object, ...], list[ImageFacts]] = defaultdict(list)
    for facts in images:
        values = facts.values
        kind = values.dtype, values.low, values.high, values.source, values.reduced_bits
        groups[*kind, facts.channels, facts.has_alpha].append(facts)
    return [
        {
            "dtype": group[0].values.dtype,
            "min": min(facts.values.min for facts in group),
            "max": max(facts.values.max for facts in group),
            "range": [group[0].values.low, group[0].values.high],
            "source": group[0].values.source,
            "channels": group[0].channels,
            "has_alpha": group[0].has_alpha,
            "reduced_bits": group[0].values.reduced_bits,
            "images": len(group),
        }
        for group in groups.values()
    ]


def is_plain(description: DatasetDescription) -> bool:
    """Return whether all images of a data set have 8 bits.

    Args:
        description: The data set's dataset.json.
    """
    return all(group["dtype"] == "uint8" for group in description.get("values", []))


def _count_labels(labels: list[int], classes: int) -> list[int]:
    """Count the images of each class; all images without classes."""
    return np.bincount(labels, minlength=classes).tolist() if classes else [len(labels)]


def _summarize_sizes(sizes: Iterable[Size]) -> dict[str, list[int]]:
    """Return the smallest, the median and the largest of the sizes, by area."""
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    positions = {"smallest": 0, "median": (len(ordered) - 1) // 2, "largest": -1}
    return {name: list(ordered[position]) for name, position in positions.items()}


def hash_files(*paths: Path) -> str:
    """Return the SHA-256 of the files of one image, its own and that of its trimap.

    Raises:
        UserError: A file cannot be read.
    """
    try:
        return sha256(*paths)
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error


def check_source_outside(source: Path, folder: Path, key: str) -> None:
    """Refuse a source inside the output folder, which would be deleted with it.

    Args:
        source: The directory that the user names.
        folder: The output folder.
        key: The place of the source in the config, for the error message.

    Raises:
        UserError: The source lies in the folder.
    """
    if source.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{key}: {source} lies in {folder}, which is the output folder; move it and name the new place"
        )
