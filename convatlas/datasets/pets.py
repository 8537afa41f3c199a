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
from PIL import Image

from convatlas import UserError
from convatlas.datasets import download
from convatlas.datasets.examples import Examples, read_splits
from convatlas.datasets.photographs import Photograph, contents, finish, refuse_own, sizes
from convatlas.files import whole

log = logging.getLogger(__name__)

PARTS = ("images", "annotations")
LISTS = {"train": "trainval", "test": "test"}
SPECIES = ["cat", "dog"]
LAYOUT = "a directory that holds oxford-iiit-pet/, or images/ and annotations/ themselves"
PAPER = 'O. M. Parkhi, A. Vedaldi, A. Zisserman, C. V. Jawahar, "Cats and dogs", CVPR 2012'
TITLES = {
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
class Pets(Examples):
    """Cats and dogs; trimaps and the boxes of heads besides."""

    annotations: Path

    def trimap(self, n: int) -> Image.Image:
        """Give a trimap, "L": 1 is the pet, 2 the background, 3 the border between."""
        path = self.annotations / f"trimaps/{self.names[n]}.png"
        try:
            with Image.open(path) as image:
                return Image.fromarray(np.asarray(image).astype(np.uint8))
        except Exception as error:  # Pillow's readers raise many kinds for one damaged file
            raise UserError(f"cannot read the trimap {path}: {error}") from error

    def head_box(self, n: int) -> tuple[int, int, int, int] | None:
        """Give the box of the head, (left, top, right, bottom) in pixels; None where it is not annotated."""
        path = self.annotations / f"xmls/{self.names[n]}.xml"
        if not path.exists():
            return None
        try:
            box = ElementTree.parse(path).find("object/bndbox")
            corners = [] if box is None else [box.findtext(c, "") for c in ("xmin", "ymin", "xmax", "ymax")]
            return tuple(int(float(corner)) for corner in corners) or None
        except (ElementTree.ParseError, ValueError) as error:
            raise UserError(f"cannot read the head's box in {path}: {error}") from error


@dataclass(frozen=True)
class Entry:
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
    target, skip = settings["target"], settings["skip_unreadable"]
    given = None if source in ("embedded", "download") else _layout(folder, source, f"{key}.source")
    archives = _download(folder, settings["mirrors"], f"{key}.source") if source == "download" else None
    with whole(made) as aside:
        aside.mkdir()
        if given:
            for part in PARTS:
                (aside / part).symlink_to((given / part).resolve())
        elif archives:
            for archive in archives:
                _unpack(archive, aside)
        else:
            from convatlas.datasets.drawn import draw_pets  # noqa: PLC0415  a second to import, here only

            draw_pets(aside)
        photographs, classes = _photographs(given or aside, target, skip, key)
        (folder / "dataset.json").unlink(missing_ok=True)  # it marks a whole data set: written last
    kind = "directory" if given else source
    title, text, licence = TITLES[kind]
    about = {"format": "oxford-iiit-pet", "source": kind, "title": title, "description": text}
    finish(folder, photographs, about | {"licence": licence, "classes": classes, "target": target})
    if archives:
        shutil.rmtree(archives[0].parent, ignore_errors=True)


def load(folder: Path, split: str) -> Pets:
    """Give a split, in the order of its official list."""
    labels, paths = read_splits(folder, split)
    return Pets(labels, [Path(path).stem for path in paths], paths, folder / "oxford-iiit-pet/annotations")


def _layout(folder: Path, source: str, key: str) -> Path:
    """Give the directory that holds images/ and annotations/."""
    given = Path(source).expanduser()
    if not given.is_dir():
        raise UserError(f"{key}: no directory {source!r}; give embedded, download or {LAYOUT}")
    for base in (given / "oxford-iiit-pet", given):
        if all((base / part).is_dir() for part in PARTS):
            for part in PARTS:
                refuse_own(base / part, folder, key)
            return base
    raise UserError(f"{key}: {source} does not hold images/ and annotations/; give {LAYOUT}")


def _photographs(base: Path, target: str, skip: bool, key: str) -> tuple[list[Photograph], list[str]]:
    """Check all that the lists name, and give the photographs with their labels, and the classes' names."""
    entries = [entry for split in LISTS for entry in _entries(base, split, key)]
    images = {entry.name: base / f"images/{entry.name}.jpg" for entry in entries}
    trimaps = {entry.name: base / f"annotations/trimaps/{entry.name}.png" for entry in entries}
    if len(images) < len(entries):
        twice, _ = Counter(entry.name for entry in entries).most_common(1)[0]
        raise UserError(f"{key}.source: trainval.txt and test.txt name {twice} twice")
    missing = [path for path in [*images.values(), *trimaps.values()] if not path.is_file()]
    if missing:
        raise UserError(
            f"{key}.source: {len(missing)} of the {2 * len(entries)} images and trimaps that trainval.txt "
            f"and test.txt name are missing, the first is {missing[0]}; complete them or shorten the lists"
        )
    others = len({*(base / "images").iterdir()}.difference(images.values()))
    log.info("%d photographs are listed; %d other files in images/ are passed over", len(entries), others)
    found = sizes(list(images.values()), skip, key)
    entries = [entry for entry in entries if images[entry.name] in found]
    classes, labels = _classes(entries, target, key)
    photographs = [
        Photograph(
            entry.split,
            label,
            f"oxford-iiit-pet/images/{entry.name}.jpg",
            *found[images[entry.name]],
            contents(images[entry.name], trimaps[entry.name]),
        )
        for entry, label in zip(entries, labels, strict=True)
    ]
    return photographs, classes


def _entries(base: Path, split: str, key: str) -> Iterator[Entry]:
    """Read a list: a name, the breed's number, the species' and one more on a line."""
    path = base / f"annotations/{LISTS[split]}.txt"
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{key}.source: cannot read {path} ({error}); give {LAYOUT}") from error
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
        yield Entry(name, int(numbers[0]), int(numbers[1]), split)
    if not count:
        raise UserError(f"{key}.source: {path} names no image")


def _classes(entries: list[Entry], target: str, key: str) -> tuple[list[str], list[int]]:
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
    return download.fetch(folder, files, mirrors, key, f"give {LAYOUT}")


def _unpack(archive: Path, aside: Path) -> None:
    log.info("unpacking %s", archive.name)
    try:
        with tarfile.open(archive) as packed:
            packed.extractall(aside, filter="data")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(f"{archive} is truncated or altered ({error}); delete it and run again") from error
