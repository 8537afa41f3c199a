"""Data sets, whatever their source, in their official on-disk layout, each described by a dataset.json."""

from pathlib import Path
from types import ModuleType
from typing import Any

from convatlas import UserError
from convatlas.datasets import image_folder, mnist, oxford_pets
from convatlas.datasets.base import ImageDataset
from convatlas.files import read_json

__all__ = [
    "FORMATS",
    "IGNORE_INDEX",
    "MASK_CLASSES",
    "ImageDataset",
    "describe",
    "has_masks",
    "load",
    "prepare",
]

FORMATS = {"mnist": mnist, "oxford-iiit-pet": oxford_pets, "images": image_folder}
MASK_CLASSES = ["pet", "background", "border"]  # of a trimap's pixels, 1 to 3 there, here from 0
IGNORE_INDEX = 255  # in a mask: a pixel of which nothing is known, which counts nowhere


def prepare(folder: str | Path, settings: dict[str, Any], key: str) -> None:
    """Make a data set in `folder`, data/<name>: its files or links to them, and last its dataset.json.

    `settings` is its section of the config, all keys filled, and `key` the place of that there,
    such as "datasets.pets", which is named where a UserError is raised. Everything is verified
    before it takes the place of what was there.
    """
    _get_format_module(settings["format"], f"{key}.format").prepare(Path(folder), settings, key)


def describe(folder: str | Path) -> dict[str, Any]:
    """Give what a made data set says of itself: format, title, classes, counts, sha256, ..."""
    return read_json(Path(folder) / "dataset.json")


def has_masks(description: dict[str, Any]) -> bool:
    """Whether each image of a data set so described has a class for each of its pixels: MASK_CLASSES."""
    return description["format"] == "oxford-iiit-pet"


def load(folder: str | Path, split: str) -> ImageDataset:
    """Give the examples of a split, "train" or "test", of a made data set."""
    path = Path(folder) / "dataset.json"
    return _get_format_module(describe(folder)["format"], f"{path}: format").load(Path(folder), split)


def _get_format_module(name: str, key: str) -> ModuleType:
    if name not in FORMATS:
        raise UserError(f"{key}: unknown {name!r}; there are: {', '.join(FORMATS)}")
    return FORMATS[name]
