"""Folders of image files: test images without labels, or root/class/*, split by the hashes of the names."""

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from convatlas import UserError
from convatlas.datasets.base import (
    ImageDataset,
    SourceDescription,
    read_description,
    read_splits,
    remove_description,
)
from convatlas.datasets.image_files import (
    ImageRecord,
    check_no_class_emptied,
    check_source_outside,
    hash_files,
    is_plain,
    validate_images,
    write_metadata,
)
from convatlas.files import atomic_write
from convatlas.image_io import list_images
from convatlas.paths import expand_home
from convatlas.pipeline.config_types import DatasetConfig

log = logging.getLogger(__name__)

TITLE = "Image folder"
LAYOUT = "image files, one folder per class where there are classes"
MASK_CLASSES: Sequence[str] = ()
CHANNELS = 3
INPUT_SIZE: int | None = None
IMAGE_COUNT = 100_000
SOURCE_PATTERNS: Sequence[str] = ("*/",)  # the folders alone: there may be a million files
OUTPUT_FILES: Sequence[str] = ("splits.csv",)
OUTPUT_FOLDERS: Sequence[str] = ()  # images/ is a link to the source
THREADS = 1
CODE_PATTERNS: Sequence[str] = ("datasets/photographs.py",)

EXPECTED_LAYOUT = "a folder of image files, or one that holds a folder of them for each class"


def prepare(folder: Path, settings: DatasetConfig, key: str) -> None:
    """Write `folder`/images, splits.csv and dataset.json; see `formats.prepare`.

    `images` is a link to the source directory, or holds the crops of the embedded photographs.

    Args:
        folder: The data set's folder, data/<name>.
        settings: The data set's section of the config.
        key: The place of that section in the config, for error messages.

    Raises:
        UserError: The source is missing or holds no usable images, or an image cannot be read and
            `on_bad_image` is "error".
    """
    if settings["source"] == "embedded":
        from convatlas.datasets.photographs import prepare_photographs  # noqa: PLC0415

        prepare_photographs(folder, key)
        return
    source, share, on_bad_image = settings["source"], settings["test_share"], settings["on_bad_image"]
    root = _find_source(source, folder, f"{key}.source")
    classes, files = _scan_folder(root, f"{key}.source")
    with atomic_write(folder / "images") as temporary:
        paths = {file: f"images/{file.relative_to(root).as_posix()}" for file in files}
        facts, skipped = validate_images(paths, on_bad_image, key, "fix or remove the files")
        splits = _assign_splits({file: name for file, name in files.items() if file in facts}, root, share)
        if skipped:
            listed = _assign_splits(files, root, share)
            check_no_class_emptied(
                [(split, files[file]) for file, split in listed.items()],
                [(split, files[file]) for file, split in splits.items()],
                key,
            )
        _warn_about_single_images(Counter(files[file] for file in splits))
        labels = {name: label for label, name in enumerate(classes)}
        images = [
            ImageRecord(split, labels.get(files[file], -1), paths[file], facts[file], hash_files(file))
            for file, split in splits.items()
        ]
        temporary.symlink_to(root.resolve())
        remove_description(folder)
    texts = _describe_source(classes, share)
    write_metadata(folder, images, "images", "directory", texts, classes, target=None, skipped=skipped)


def list_classes(folder: Path, settings: DatasetConfig) -> list[str] | None:
    """Return the names of the folders of images; see `formats.DatasetFormat`.

    Args:
        folder: The data set's folder, data/<name>.
        settings: The data set's section of the config.

    Raises:
        UserError: The directory is missing.
    """
    if settings["source"] == "embedded":
        return []
    root = _find_source(settings["source"], folder, "source")
    folders = (path for path in sorted(root.iterdir()) if path.is_dir() and path.name[0] != ".")
    return [path.name for path in folders if list_images(path)[0]]


def load(folder: Path, split: str) -> ImageDataset:
    """Return a split; the images' names are their paths under the source.

    Args:
        folder: The data set's folder, data/<name>.
        split: "train" or "test".

    Raises:
        UserError: The data set's splits.csv is missing or damaged.
    """
    labels, paths = read_splits(folder, split)
    names = [Path(path).relative_to(folder / "images").as_posix() for path in paths]
    return ImageDataset(labels, names, paths, is_plain=is_plain(read_description(folder)))


def _find_source(source: str, folder: Path, key: str) -> Path:
    """Return the source directory; raise UserError where there is none."""
    if source == "download":
        raise UserError(
            f"{key}: download is not available for the format images; give embedded, or {EXPECTED_LAYOUT}"
        )
    root = expand_home(source)
    if not root.is_dir():
        raise UserError(f"{key}: no directory {source!r}; give {EXPECTED_LAYOUT}")
    check_source_outside(root, folder, key)
    return root


def _scan_folder(root: Path, key: str) -> tuple[list[str], dict[Path, str]]:
    """Return the names of the classes, and the image files with their class, "" without classes."""
    images, ignored_count = list_images(root)
    files = dict.fromkeys(images, "")
    classes: list[str] = []
    subfolders = sorted(path for path in root.iterdir() if path.is_dir())
    for subfolder in (path for path in subfolders if not path.name.startswith(".")):
        class_images, count = list_images(subfolder)
        ignored_count += count
        if class_images and not subfolder.name.isprintable():
            raise UserError(f"{key}: the folder {subfolder.name!r} cannot name a class; rename it")
        if class_images:
            classes.append(subfolder.name)
        else:
            log.warning("%s holds no image files itself and is ignored", subfolder)
        files |= dict.fromkeys(class_images, subfolder.name)
    if ignored_count:
        log.info("%d other and hidden files in %s are ignored", ignored_count, root)
    if not files:
        raise UserError(f"{key}: {root} holds no image files; give {EXPECTED_LAYOUT}")
    if images and classes:
        raise UserError(
            f"{key}: {root} holds both image files, such as {images[0].name}, and folders of them, such as "
            f"{classes[0]}/; give {EXPECTED_LAYOUT}"
        )
    return classes, files


def _assign_splits(files: dict[Path, str], root: Path, share: float) -> dict[Path, str]:
    """Return each file's split: of each class the first `share`, by the hashes of names, are test images.

    A class of two or more images keeps one training image; the only image of a class is a test image.
    """
    splits = dict.fromkeys(files, "train")
    classes: dict[str, list[Path]] = {}
    for file, name in files.items():
        classes.setdefault(name, []).append(file)
    for name, members in classes.items():
        members.sort(key=lambda file: _hash_path(file.relative_to(root)))
        # Rounded first, for in floating point 0.28 × 25 is above 7.
        test_count = math.ceil(round(share * len(members), 9))
        test_count = min(test_count, max(len(members) - 1, 1))
        splits |= dict.fromkeys(members[:test_count] if name else members, "test")
    return splits


def _warn_about_single_images(counts: Counter[str]) -> None:
    """Warn about classes that have a test image but no training image."""
    for name, count in counts.items():
        if name and count == 1:
            log.warning("class %s has 1 usable image, a test image: it has no training image", name)


def _describe_source(classes: list[str], share: float) -> SourceDescription:
    """Return the title, description and licence for the data set's page."""
    split_text = f"; {100 * share:g} % of each class are test images." if classes else ", all test images."
    return SourceDescription(
        f"Images of {len(classes)} classes" if classes else "Images without labels",
        f"Image files from a folder of the user's{split_text}",
        "as their owner states",
    )


def _hash_path(path: Path) -> bytes:
    """Hash a path, to order files independently of their names."""
    return hashlib.sha256(path.as_posix().encode(errors="surrogateescape")).digest()
