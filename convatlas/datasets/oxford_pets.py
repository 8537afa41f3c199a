"""Oxford-IIIT Pet: cats and dogs with trimaps (Parkhi, Vedaldi, Zisserman, Jawahar, CVPR 2012)."""

import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from convatlas import UserError, download, image_io
from convatlas.datasets import trimaps
from convatlas.datasets.base import (
    IGNORE_INDEX,
    SegmentationDataset,
    SourceDescription,
    read_splits,
    remove_description,
)
from convatlas.datasets.image_files import (
    Fault,
    ImageRecord,
    Size,
    check_no_class_emptied,
    check_source_outside,
    hash_files,
    validate_images,
    write_metadata,
)
from convatlas.files import atomic_write
from convatlas.paths import expand_home
from convatlas.pipeline.config_types import DatasetConfig
from convatlas.records import SkippedFile
from convatlas.unpacking import unpack_tar

log = logging.getLogger(__name__)

TITLE = "Oxford-IIIT Pet"
LAYOUT = "Oxford-IIIT Pet layout: oxford-iiit-pet/{images,annotations}"
MASK_CLASSES: Sequence[str] = trimaps.MASK_CLASSES
CHANNELS = 3
INPUT_SIZE: int | None = None
IMAGE_COUNT = 7_349
SOURCE_PATTERNS: Sequence[str] = ("annotations/*.txt", "oxford-iiit-pet/annotations/*.txt")
OUTPUT_FILES: Sequence[str] = ("splits.csv",)
OUTPUT_FOLDERS: Sequence[str] = ("oxford-iiit-pet",)
THREADS = 2  # to draw the embedded pets, for which all networks trained on them wait
CODE_PATTERNS: Sequence[str] = ("datasets/synthetic_pets/*.py",)

SUBFOLDERS = ("images", "annotations")
SPLIT_LISTS = {"train": "trainval", "test": "test"}
SPECIES = ["cat", "dog"]
EXPECTED_LAYOUT = "a directory that holds oxford-iiit-pet/, or images/ and annotations/ themselves"
PAPER = 'O. M. Parkhi, A. Vedaldi, A. Zisserman, C. V. Jawahar, "Cats and dogs", CVPR 2012'
SOURCE_DESCRIPTIONS = {
    "embedded": SourceDescription(
        "Synthetic pets",
        "A stand-in for Oxford-IIIT Pet that needs no download: cats and dogs of synthetic breeds, drawn by "
        "code in front of photographs and textures that scikit-image ships, with their trimaps. They are "
        "not photographs, and results measured on them do not hold for Oxford-IIIT Pet.",
        "cats and dogs: this project, MIT; backgrounds: scikit-image, in the public domain or CC0",
    ),
    "download": SourceDescription(
        "Oxford-IIIT Pet",
        f"Photographs of cats and dogs with their trimaps ({PAPER}), downloaded and verified by checksum.",
        f"{PAPER}; CC BY-SA 4.0",
    ),
    "directory": SourceDescription(
        "Cats and dogs from a directory",
        f"Photographs and trimaps laid out as Oxford-IIIT Pet is ({PAPER}), from a directory of the user's.",
        "as their owner states; the official photographs are CC BY-SA 4.0",
    ),
}


@dataclass(frozen=True, eq=False)
class OxfordPetDataset(SegmentationDataset):
    """A split of cats and dogs, with trimaps and the bounding boxes of heads in the folder `annotations`."""

    annotations: Path

    @cached_property
    def subclasses(self) -> Sequence[str]:
        """The breed of each image."""
        return [get_breed(name) for name in self.names]

    @property
    def species(self) -> Sequence[str]:
        """The species of each image, as its annotation list has it."""
        root = self.annotations.parent
        entries = [entry for split in SPLIT_LISTS for entry in _read_entries(root, split, "datasets")]
        species = {entry.name: SPECIES[entry.species - 1] for entry in entries}
        return [species[name] for name in self.names]

    def read_trimap(self, index: int) -> Image.Image:
        """Return the trimap of an image, "L", upright as its photograph.

        Its values are `trimaps.PET`, BACKGROUND and BORDER.

        Args:
            index: The image's index in the split.

        Raises:
            UserError: The trimap cannot be read.
        """
        path = self.annotations / f"trimaps/{self.names[index]}.png"
        return trimaps.read_trimap(path, Path(str(self.paths[index])))

    def read_mask(self, index: int, size: image_io.Size, resize: int | str) -> np.ndarray:
        """Return the mask of an image at the network's input size; see `SegmentationDataset.read_mask`.

        Args:
            index: The image's index in the split.
            size: Height and width (H, W) of the result.
            resize: As in `image_io.resize_to`.

        Returns:
            Indices into MASK_CLASSES, the trimap's values less 1, or IGNORE_INDEX: (H, W) uint8.

        Raises:
            UserError: The trimap cannot be read.
        """
        trimap = image_io.resize_labels_to(self.read_trimap(index), size, resize)
        return np.where(trimap == 0, IGNORE_INDEX, trimap - 1).astype(np.uint8)

    def read_head_box(self, index: int) -> trimaps.Box | None:
        """Return the bounding box of the head in pixels of the upright photograph.

        Args:
            index: The image's index in the split.

        Returns:
            (left, top, right, bottom), or None where it is not annotated.

        Raises:
            UserError: The annotation cannot be read.
        """
        path = self.annotations / f"xmls/{self.names[index]}.xml"
        if not path.exists():
            return None
        try:
            annotation = ElementTree.parse(path)
            box = annotation.find("object/bndbox")
            if box is None:
                return None
            left, top, right, bottom = (
                int(float(box.findtext(corner, ""))) for corner in ("xmin", "ymin", "xmax", "ymax")
            )
            width, height = (int(annotation.findtext(f"size/{side}", "0")) for side in ("width", "height"))
        except (ElementTree.ParseError, ValueError) as error:
            raise UserError(f"cannot read the box of the head in {path}: {error}") from error
        photograph = Path(str(self.paths[index]))
        return trimaps.orient_box((left, top, right, bottom), (width, height), photograph)


@dataclass(frozen=True)
class AnnotationEntry:
    """A line of an annotation list."""

    name: str
    label: int  # number of the breed, from 1
    species: int  # 1: cat, 2: dog
    split: str


def prepare(folder: Path, settings: DatasetConfig, key: str) -> None:
    """Write `folder`/oxford-iiit-pet/, splits.csv and dataset.json; see `formats.prepare`.

    A directory source, in the official layout, is linked.

    Args:
        folder: The data set's folder, data/<name>.
        settings: The data set's section of the config.
        key: The place of that section in the config, for error messages.

    Raises:
        UserError: The source is missing, incomplete or damaged, or cannot be downloaded.
    """
    source, target, on_bad_image = settings["source"], settings["target"], settings["on_bad_image"]
    kind = source if source in SOURCE_DESCRIPTIONS else "directory"
    root = _find_layout_root(folder, source, f"{key}.source") if kind == "directory" else None
    archives = _download(folder, settings["mirrors"], f"{key}.source") if kind == "download" else []
    if kind == "download":
        # Nobody can fix the official files, so faults never stop a download. None of the 695 listed
        # photographs that were available for a test has one; any others would be listed in dataset.json.
        on_bad_image = "skip"
    with atomic_write(folder / "oxford-iiit-pet") as temporary:
        temporary.mkdir()
        if root:
            for name in SUBFOLDERS:
                (temporary / name).symlink_to((root / name).resolve())
        elif kind == "download":
            for archive in archives:
                log.info("unpacking %s", archive.name)
                unpack_tar(archive, temporary)
        else:
            _draw_pets(temporary)
        images, classes, skipped = _validate_listed_images(root or temporary, target, on_bad_image, key)
        remove_description(folder)
    texts = SOURCE_DESCRIPTIONS[kind]
    write_metadata(folder, images, "oxford-iiit-pet", kind, texts, classes, target, skipped)
    if archives:
        shutil.rmtree(archives[0].parent, ignore_errors=True)


def list_classes(folder: Path, settings: DatasetConfig) -> list[str] | None:
    """Return the species, or the breeds, except of a download; see `formats.DatasetFormat`.

    Args:
        folder: The data set's folder, data/<name>.
        settings: The data set's section of the config.

    Raises:
        UserError: The directory is missing, or its lists cannot be read.
    """
    if settings["target"] == "species":
        return SPECIES
    if settings["source"] == "download":
        return None
    if settings["source"] == "embedded":
        from convatlas.datasets.synthetic_pets.breeds import BREEDS  # noqa: PLC0415  as `_draw_pets`

        return [get_breed(f"{name}_1") for name in sorted(BREEDS, key=str.lower)]
    root = _find_layout_root(folder, settings["source"], "source")
    entries = [entry for split in SPLIT_LISTS for entry in _read_entries(root, split, "source")]
    return _assign_classes(entries, settings["target"], "source")[0]


def load(folder: Path, split: str) -> OxfordPetDataset:
    """Return a split, in the order of its official list.

    Args:
        folder: The data set's folder, data/<name>.
        split: "train" or "test".

    Raises:
        UserError: The data set's splits.csv is missing or damaged.
    """
    labels, paths = read_splits(folder, split)
    names = [Path(path).stem for path in paths]
    return OxfordPetDataset(labels, names, paths, folder / "oxford-iiit-pet/annotations")


def _find_layout_root(folder: Path, source: str, key: str) -> Path:
    """Return the directory that holds images/ and annotations/; raise UserError where there is none."""
    directory = expand_home(source)
    if not directory.is_dir():
        raise UserError(f"{key}: no directory {source!r}; give embedded, download or {EXPECTED_LAYOUT}")
    for root in (directory / "oxford-iiit-pet", directory):
        if all((root / name).is_dir() for name in SUBFOLDERS):
            for name in SUBFOLDERS:
                check_source_outside(root / name, folder, key)
            return root
    raise UserError(f"{key}: {source} does not hold images/ and annotations/; give {EXPECTED_LAYOUT}")


def _validate_listed_images(
    root: Path, target: str, on_bad_image: str, key: str
) -> tuple[list[ImageRecord], list[str], list[SkippedFile]]:
    """Check all images that the lists name; return the usable ones, the classes and the skipped ones."""
    entries = [entry for split in SPLIT_LISTS for entry in _read_entries(root, split, key)]
    entries_by_file = {root / f"images/{entry.name}.jpg": entry for entry in entries}
    if len(entries_by_file) < len(entries):
        repeated, _ = Counter(entry.name for entry in entries).most_common(1)[0]
        raise UserError(f"{key}.source: trainval.txt and test.txt name {repeated} twice")
    classes, labels = _assign_classes(entries, target, key)
    other_count = len({*(root / "images").iterdir()}.difference(entries_by_file))
    log.info("%d photographs are listed; %d other files in images/ are ignored", len(entries), other_count)
    paths = {file: f"oxford-iiit-pet/images/{entry.name}.jpg" for file, entry in entries_by_file.items()}
    fix_hint = "fix the files, or shorten trainval.txt and test.txt"
    facts, skipped = validate_images(paths, on_bad_image, key, fix_hint, _find_trimap_faults)
    images = [
        ImageRecord(entry.split, label, paths[file], facts[file], hash_files(file, _trimap_path(file)))
        for (file, entry), label in zip(entries_by_file.items(), labels, strict=True)
        if file in facts
    ]
    listed = [(entry.split, classes[label]) for entry, label in zip(entries, labels, strict=True)]
    check_no_class_emptied(listed, [(image.split, classes[image.label]) for image in images], key)
    return images, classes, skipped


def _trimap_path(photograph: Path) -> Path:
    """Return the path of a photograph's trimap."""
    return photograph.parent.parent / f"annotations/trimaps/{photograph.stem}.png"


def _find_trimap_faults(photograph: Path, size: Size | None) -> list[Fault]:
    """Return everything that is wrong with a photograph's trimap."""
    return trimaps.find_trimap_faults(_trimap_path(photograph), photograph, size)


def _read_entries(root: Path, split: str, key: str) -> Iterator[AnnotationEntry]:
    """Read a list; each line has a name, the breed's number, the species' and one more."""
    path = root / f"annotations/{SPLIT_LISTS[split]}.txt"
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{key}.source: cannot read {path} ({error}); give {EXPECTED_LAYOUT}") from error
    count = 0
    for line_number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, *numbers = line.split()
        if len(numbers) < 2 or not all(n.isdecimal() for n in numbers) or numbers[1] not in ("1", "2"):
            raise UserError(
                f"{key}.source: line {line_number} of {path} is {line!r}; expected a name, the breed's "
                "number and that of the species, 1 or 2"
            )
        count += 1
        yield AnnotationEntry(name, int(numbers[0]), int(numbers[1]), split)
    if not count:
        raise UserError(f"{key}.source: {path} names no image")


def _assign_classes(entries: list[AnnotationEntry], target: str, key: str) -> tuple[list[str], list[int]]:
    """Return the names of the classes and the class of each entry; breeds in the order of their numbers."""
    if target == "species":
        return SPECIES, [entry.species - 1 for entry in entries]
    names: dict[int, str] = {}
    for entry in entries:
        name = get_breed(entry.name)
        if names.setdefault(entry.label, name) != name:
            raise UserError(
                f"{key}.source: the lists give the number {entry.label} to two breeds, {names[entry.label]} "
                f"and {name}"
            )
    numbers = sorted(names)
    classes = [names[number] for number in numbers]
    if len(set(classes)) < len(classes):
        repeated = next(name for name in classes if classes.count(name) > 1)
        raise UserError(f"{key}.source: the lists give two numbers to one breed, {repeated}")
    return classes, [numbers.index(entry.label) for entry in entries]


def get_breed(name: str) -> str:
    """Return the breed in an image's name, such as "Great Pyrenees" in "great_pyrenees_12".

    Args:
        name: The name of the image's file, without its suffix.
    """
    return " ".join(word.title() for word in name.rsplit("_", 1)[0].split("_"))


def _draw_pets(folder: Path) -> None:
    """Draw the embedded pets."""
    from convatlas.datasets.synthetic_pets import generate  # noqa: PLC0415  a second to import, here only

    generate.draw_pets(folder)


def _download(folder: Path, mirrors: list[str], key: str) -> list[Path]:
    """Download the official archives from the mirrors, then from torchvision's address."""
    from torchvision.datasets import OxfordIIITPet  # noqa: PLC0415  seconds to import, for downloads only

    resources = [(*url.rsplit("/", 1), md5) for url, md5 in OxfordIIITPet._RESOURCES]
    files = {name: md5 for _, name, md5 in resources}
    addresses = mirrors + [address for address, _, _ in resources]
    return download.fetch(folder, files, addresses, key, f"give {EXPECTED_LAYOUT}")
