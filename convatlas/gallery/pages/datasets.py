"""The page of a data set: its classes, images, examples, source and skipped files."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from convatlas.datasets.formats import FORMATS, has_masks
from convatlas.datasets.near_duplicates import DuplicateImage, NearDuplicate, NearDuplicates
from convatlas.files import read_json
from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.records import DatasetDescription, Preview, Previews
from convatlas.value_ranges import format_value

MAX_TABLE_CLASSES = 120  # with a row each; more are listed as text, as a table of thousands of cells is slow
MAX_SKIPPED_FILES = 200  # that are named
SPLIT_WORDS = {"train": "training", "test": "test"}

Example = dict[str, Any]  # an entry of examples.json, with its split in words


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the page of each data set on which a network was trained or tested.

    Args:
        context: The run that the site shows.
    """
    for name, dataset in context.datasets.items():
        folder = context.get_previews_folder(name)
        examples: Previews | None = None
        duplicates: NearDuplicates | None = None
        if folder.is_dir():
            examples = read_json(folder / "examples.json")
        if (folder / "near_duplicates.json").is_file():
            duplicates = read_json(folder / "near_duplicates.json")
        dataset_format = FORMATS[dataset["format"]]
        replaces_download = dataset["source"] == "embedded" and "credits" not in dataset
        values = {
            "name": name,
            "data": dataset,
            "dataset_networks": [n for n in context.networks if n.description["dataset"] == name],
            "replaced_dataset": dataset_format.TITLE if replaces_download else None,
            "layout": dataset_format.LAYOUT,
            "has_subclasses": examples is not None and examples.get("has_subclasses", False),
            "has_masks": has_masks(dataset),
            "rows": count_images(dataset),
            "is_long": len(dataset["classes"]) > MAX_TABLE_CLASSES,
            "max_count": max([*dataset["counts"]["train"], *dataset["counts"]["test"], 1]),
            "examples": examples and group_by_class(examples, dataset["classes"]),
            "has_trimaps": examples is not None and _has_trimaps(examples),
            "duplicates": duplicates,
            "shown_pairs": list_shown_pairs(duplicates) if duplicates else [],
            "skipped_files": dataset.get("skipped", []),
            "max_skipped_files": MAX_SKIPPED_FILES,
            "format_value": format_value,
        }
        files = {f"datasets/{name}": folder} if examples else {}
        yield SitePage(f"datasets/{name}.html", "dataset.html", name, values, "Data", files)


def list_shown_pairs(
    duplicates: NearDuplicates,
) -> list[tuple[NearDuplicate, DuplicateImage, DuplicateImage]]:
    """List the pairs with thumbnails: the pair, its test image and its training image.

    Args:
        duplicates: near_duplicates.json.
    """
    images = duplicates["images"]
    keys = [(pair, f"test-{pair['test']:05d}", f"train-{pair['train']:05d}") for pair in duplicates["pairs"]]
    return [(pair, images[test], images[train]) for pair, test, train in keys if {test, train} <= {*images}]


def count_images(dataset: DatasetDescription) -> list[tuple[str, int, int]]:
    """Count the images of each class.

    Args:
        dataset: dataset.json.

    Returns:
        Name, training images and test images of each class; nothing without labels.
    """
    if not dataset["classes"]:
        return []
    counts = dataset["counts"]
    return list(zip(dataset["classes"], counts["train"], counts["test"], strict=True))


def group_by_class(examples: Previews, classes: Sequence[str]) -> list[tuple[str, list[Example]]]:
    """Group examples by class.

    Args:
        examples: examples.json.
        classes: The names of the classes; none without labels.

    Returns:
        The name of each class ("" without labels) and its examples, training images first, each with its
        `split` in words.
    """
    splits: Mapping[str, list[Preview]] = {"train": examples["train"], "test": examples["test"]}
    rows = [
        {**example, "split": SPLIT_WORDS[split]}
        for split, split_examples in splits.items()
        for example in split_examples
    ]
    if not classes:
        return [("", rows)]
    return [
        (classes[number], [row for row in rows if row["class"] == number]) for number in examples["classes"]
    ]


def _has_trimaps(examples: Previews) -> bool:
    """Return whether an example has a trimap."""
    return any(example["trimap"] for example in examples["train"] + examples["test"])
