"""Oxford-IIIT Pet: cats and dogs with trimaps (Parkhi, Vedaldi, Zisserman, Jawahar, CVPR 2012)."""

import logging
import shutil
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import ExifTags, Image, ImageOps

from convatlas import UserError
from convatlas.datasets import download
from convatlas.datasets.base import ImageDataset, read_splits
from convatlas.datasets.image_files import (
    Fault,
    ImageRecord,
    Size,
    check_no_class_emptied,
    check_source_outside,
    fault_from_error,
    hash_files,
    validate_images,
    write_metadata,
)
from convatlas.files import atomic_write

log = logging.getLogger(__name__)

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels

SUBFOLDERS = ("images", "annotations")
SPLIT_LISTS = {"train": "trainval", "test": "test"}
SPECIES = ["cat", "dog"]
EXPECTED_LAYOUT = "a directory that holds oxford-iiit-pet/, or images/ and annotations/ themselves"
PAPER = 'O. M. Parkhi, A. Vedaldi, A. Zisserman, C. V. Jawahar, "Cats and dogs", CVPR 2012'
SOURCE_DESCRIPTIONS = {
    "embedded": (
        "Drawn pets",
        "A stand-in for Oxford-IIIT Pet that needs no download: cats and dogs of made-up breeds, drawn by "
        "code in front of photographs and textures that scikit-image ships, with their trimaps. They are "
        "not photographs, and figures measured on them do not hold for Oxford-IIIT Pet.",
        "drawn by this project, MIT; what stands behind them is scikit-image's, in the public domain or CC0",
    ),
    "download": (
        "Oxford-IIIT Pet",
        f"Photographs of cats and dogs with their trimaps ({PAPER}), downloaded and verified by checksum.",
        f"{PAPER}; CC BY-SA 4.0",
    ),
    "directory": (
        "Cats and dogs from a directory",
        f"Photographs and trimaps laid out as Oxford-IIIT Pet is ({PAPER}), from a directory of the user's.",
        "as their owner states; the official photographs are CC BY-SA 4.0",
    ),
}


@dataclass(frozen=True, eq=False)
class OxfordPetDataset(ImageDataset):
    """Cats and dogs; trimaps and the boxes of heads besides."""

    annotations: Path

    def read_trimap(self, n: int) -> Image.Image:
        """Give a trimap, "L", upright as its photograph: 1 is the pet, 2 the background, 3 the border.

        Raises UserError where it cannot be read.
        """
        path = self.annotations / f"trimaps/{self.names[n]}.png"
        try:
            with Image.open(path) as image:  # of a palette the indices count, as for torchvision
                trimap = Image.fromarray(np.asarray(image).astype(np.uint8))
            return _orient_trimap(trimap, Path(str(self.paths[n])))
        except Exception as error:  # Pillow's readers raise many kinds for one damaged file
            raise UserError(f"cannot read the trimap {path}: {error}") from error

    def read_head_box(self, n: int) -> Box | None:
        """Give the box of the head in pixels of the upright photograph; None where it is not annotated.

        Raises UserError where it cannot be read.
        """
        path = self.annotations / f"xmls/{self.names[n]}.xml"
        if not path.exists():
            return None
        try:
            given = ElementTree.parse(path)
            box = given.find("object/bndbox")
            if box is None:
                return None
            left, top, right, bottom = (
                int(float(box.findtext(corner, ""))) for corner in ("xmin", "ymin", "xmax", "ymax")
            )
            width, height = (int(given.findtext(f"size/{side}", "0")) for side in ("width", "height"))
        except (ElementTree.ParseError, ValueError) as error:
            raise UserError(f"cannot read the head's box in {path}: {error}") from error
        return _orient_box((left, top, right, bottom), (width, height), Path(str(self.paths[n])))


@dataclass(frozen=True)
class AnnotationEntry:
    """A line of an annotation list."""

    name: str
    label: int  # of the breed, from 1
    species: int  # 1 is a cat, 2 a dog
    split: str


def prepare(folder: Path, settings: dict[str, Any], key: str) -> None:
    """Make `folder`/oxford-iiit-pet/{images,annotations}, splits.csv and dataset.json.

    A directory source, in the official layout, is linked.
    """
    source, made = settings["source"], folder / "oxford-iiit-pet"
    target, on_bad_image = settings["target"], settings["on_bad_image"]
    given = None if source in ("embedded", "download") else _find_layout_root(folder, source, f"{key}.source")
    archives = _download(folder, settings["mirrors"], f"{key}.source") if source == "download" else None
    if archives:
        # The official bytes, by checksum: nobody can mend them, so they never stop a run. Of the 695 listed
        # photographs at hand none has a fault; were there one among the others, dataset.json would list it.
        on_bad_image = "skip"
    with atomic_write(made) as aside:
        aside.mkdir()
        if given:
            for part in SUBFOLDERS:
                (aside / part).symlink_to((given / part).resolve())
        elif archives:
            for archive in archives:
                _unpack(archive, aside)
        else:
            from convatlas.datasets.synthetic_pets.generate import draw_pets  # noqa: PLC0415  a second to import, here only

            draw_pets(aside)
        photographs, classes, skipped = _validate_listed_images(given or aside, target, on_bad_image, key)
        (folder / "dataset.json").unlink(missing_ok=True)  # it marks a whole data set: written last
    kind = "directory" if given else source
    title, text, licence = SOURCE_DESCRIPTIONS[kind]
    about = {"format": "oxford-iiit-pet", "source": kind, "title": title, "description": text}
    about |= {"licence": licence, "classes": classes, "target": target, "skipped": skipped}
    write_metadata(folder, photographs, about)
    if archives:
        shutil.rmtree(archives[0].parent, ignore_errors=True)


def load(folder: Path, split: str) -> OxfordPetDataset:
    """Give a split, in the order of its official list."""
    labels, paths = read_splits(folder, split)
    return OxfordPetDataset(
        labels, [Path(path).stem for path in paths], paths, folder / "oxford-iiit-pet/annotations"
    )


def _find_layout_root(folder: Path, source: str, key: str) -> Path:
    """Give the directory that holds images/ and annotations/."""
    given = Path(source).expanduser()
    if not given.is_dir():
        raise UserError(f"{key}: no directory {source!r}; give embedded, download or {EXPECTED_LAYOUT}")
    for base in (given / "oxford-iiit-pet", given):
        if all((base / part).is_dir() for part in SUBFOLDERS):
            for part in SUBFOLDERS:
                check_source_outside(base / part, folder, key)
            return base
    raise UserError(f"{key}: {source} does not hold images/ and annotations/; give {EXPECTED_LAYOUT}")


def _validate_listed_images(
    base: Path, target: str, on_bad_image: str, key: str
) -> tuple[list[ImageRecord], list[str], list[dict[str, str]]]:
    """Check all that the lists name; give the photographs, the classes, and what is left out."""
    entries = [entry for split in SPLIT_LISTS for entry in _read_entries(base, split, key)]
    images = {base / f"images/{entry.name}.jpg": entry for entry in entries}
    if len(images) < len(entries):
        twice, _ = Counter(entry.name for entry in entries).most_common(1)[0]
        raise UserError(f"{key}.source: trainval.txt and test.txt name {twice} twice")
    classes, labels = _assign_classes(entries, target, key)
    others = len({*(base / "images").iterdir()}.difference(images))
    log.info("%d photographs are listed; %d other files in images/ are passed over", len(entries), others)
    places = {path: f"oxford-iiit-pet/images/{entry.name}.jpg" for path, entry in images.items()}
    mend = "mend the files, or shorten trainval.txt and test.txt"
    found, skipped = validate_images(places, on_bad_image, key, mend, _find_trimap_faults)
    photographs = [
        ImageRecord(entry.split, label, places[path], *found[path], hash_files(path, _trimap_path(path)))
        for (path, entry), label in zip(images.items(), labels, strict=True)
        if path in found
    ]
    listed = [(entry.split, classes[label]) for entry, label in zip(entries, labels, strict=True)]
    check_no_class_emptied(listed, [(one.split, classes[one.label]) for one in photographs], key)
    return photographs, classes, skipped


def _trimap_path(photograph: Path) -> Path:
    """Where the trimap of a photograph lies."""
    return photograph.parent.parent / f"annotations/trimaps/{photograph.stem}.png"


def _find_trimap_faults(photograph: Path, size: Size | None) -> list[Fault]:
    """Decode the trimap of a photograph and find all that is wrong with it."""
    path = _trimap_path(photograph)
    try:
        with Image.open(path) as image:
            image.load()
            faults = [
                _check_trimap_values(image, path),
                size and _check_trimap_size(image, path, photograph, size),
            ]
    except Exception as error:  # Pillow's readers raise many kinds for one damaged file
        return [fault_from_error("trimap", path, error)]
    return [fault for fault in faults if fault]


def _check_trimap_values(image: Image.Image, path: Path) -> Fault | None:
    if len(image.getbands()) > 1:
        return Fault("trimap of more than one channel", path, f"it is {image.mode}")
    if image.mode in ("L", "P"):  # several times faster than sorting the pixels, for thousands of files
        values = {n for n, count in enumerate(image.histogram()) if count}
    else:
        values = {*np.unique(np.asarray(image).astype(float)).tolist()}
    if odd := sorted(values - {1, 2, 3}):
        more = f" and {len(odd) - 5} more" if len(odd) > 5 else ""
        return Fault("trimap with values outside 1-3", path, ", ".join(f"{n:g}" for n in odd[:5]) + more)
    return None if 1 in values else Fault("trimap without a pixel of the pet", path)


def _check_trimap_size(image: Image.Image, path: Path, photograph: Path, size: Size) -> Fault | None:
    """A trimap is as large as its photograph, be it upright or as stored."""
    height, width = size
    if image.size == (width, height) or (
        image.size == (height, width) and _read_size_and_orientation(photograph)[0] == image.size
    ):
        return None
    detail = f"{image.width} × {image.height} pixels, the image {width} × {height}"
    return Fault("trimap of another size than its image", path, detail)


def _read_size_and_orientation(photograph: Path) -> tuple[tuple[int, int], int]:
    """Give the size (width, height) at which a photograph is stored, and its orientation by EXIF."""
    with Image.open(photograph) as image:
        return image.size, image.getexif().get(ExifTags.Base.Orientation, 1)


def _orient_trimap(trimap: Image.Image, photograph: Path) -> Image.Image:
    """Turn a trimap as pictures.read turns its photograph.

    A trimap is taken to be drawn on the pixels as they are stored, as torchvision pairs them, unless
    only the upright photograph has its size.
    """
    size, orientation = _read_size_and_orientation(photograph)
    if size != trimap.size:
        return trimap
    trimap.getexif()[ExifTags.Base.Orientation] = orientation
    return ImageOps.exif_transpose(trimap)


def _orient_box(box: Box, size: tuple[int, int], photograph: Path) -> Box:
    """Turn a box as `_turned` turns a trimap of this size (width, height)."""
    stored, orientation = _read_size_and_orientation(photograph)
    if size == stored[::-1] != stored:  # drawn on the upright photograph
        return box
    left, top, right, bottom = box
    width, height = stored
    if orientation in (5, 6, 7, 8):  # mirrored in the diagonal first
        left, top, right, bottom, width, height = top, left, bottom, right, height, width
    if orientation in (2, 3, 6, 7):
        left, right = width - right, width - left
    if orientation in (3, 4, 7, 8):
        top, bottom = height - bottom, height - top
    return left, top, right, bottom


def _read_entries(base: Path, split: str, key: str) -> Iterator[AnnotationEntry]:
    """Read a list: a name, the breed's number, the species' and one more on a line."""
    path = base / f"annotations/{SPLIT_LISTS[split]}.txt"
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{key}.source: cannot read {path} ({error}); give {EXPECTED_LAYOUT}") from error
    count = 0
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, *numbers = line.split()
        if len(numbers) < 2 or not all(n.isdecimal() for n in numbers) or numbers[1] not in ("1", "2"):
            raise UserError(
                f"{key}.source: line {number} of {path} is {line!r}; expected a name, the breed's number "
                "and that of the species, 1 or 2"
            )
        count += 1
        yield AnnotationEntry(name, int(numbers[0]), int(numbers[1]), split)
    if not count:
        raise UserError(f"{key}.source: {path} names no image")


def _assign_classes(entries: list[AnnotationEntry], target: str, key: str) -> tuple[list[str], list[int]]:
    """Give the classes' names and each entry's class; breeds in the order of their official numbers."""
    if target == "species":
        return SPECIES, [entry.species - 1 for entry in entries]
    names: dict[int, str] = {}
    for entry in entries:
        name = " ".join(word.title() for word in entry.name.rsplit("_", 1)[0].split("_"))
        if names.setdefault(entry.label, name) != name:
            raise UserError(
                f"{key}.source: the lists give the number {entry.label} to two breeds, {names[entry.label]} "
                f"and {name}"
            )
    numbers = sorted(names)
    classes = [names[number] for number in numbers]
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise UserError(f"{key}.source: the lists give two numbers to one breed, {twice}")
    return classes, [numbers.index(entry.label) for entry in entries]


def _download(folder: Path, mirrors: list[str], key: str) -> list[Path]:
    """Fetch the official archives from the mirrors and from torchvision's address."""
    from torchvision.datasets import OxfordIIITPet  # noqa: PLC0415  seconds to import, for downloads only

    resources = [(*url.rsplit("/", 1), md5) for url, md5 in OxfordIIITPet._RESOURCES]
    files = {name: md5 for _, name, md5 in resources}
    mirrors = mirrors + [place for place, _, _ in resources]
    return download.fetch(folder, files, mirrors, key, f"give {EXPECTED_LAYOUT}")


def _unpack(archive: Path, aside: Path) -> None:
    log.info("unpacking %s", archive.name)
    try:
        with tarfile.open(archive) as packed:
            packed.extractall(aside, filter="data")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(f"{archive} is truncated or altered ({error}); delete it and run again") from error
