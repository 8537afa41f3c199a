"""A page for each data set: what it holds, examples, where it comes from, what was left out."""

from collections.abc import Iterator
from typing import Any

from convatlas.files import read_json
from convatlas.gallery.pages.site import GalleryContext, SitePage

MAX_TABLE_CLASSES = (
    120  # classes that have a row each; more are listed as text, for a page of thousands of cells is slow
)
MAX_SKIPPED_FILES = 200  # files left out that are named
REPLACED_DATASETS = {
    "mnist": "MNIST",
    "oxford-iiit-pet": "Oxford-IIIT Pet",
}  # what embedded data stand in for


def make_pages(atlas: GalleryContext) -> Iterator[SitePage]:
    """Yield the page of each data set that a network was trained or tested on."""
    for name, data in atlas.datasets.items():
        folder = atlas.results / "_datasets" / name
        examples = read_json(folder / "examples.json") if folder.is_dir() else None
        values = {
            "name": name,
            "data": data,
            "used_by": [page for page in atlas.networks if page.network["dataset"] == name],
            "stands_in_for": REPLACED_DATASETS.get(data["format"]) if data["source"] == "embedded" else None,
            "rows": count_images(data),
            "listed": len(data["classes"]) > MAX_TABLE_CLASSES,
            "most": max([*data["counts"]["train"], *data["counts"]["test"], 1]),
            "examples": examples and group_by_class(examples, data["classes"]),
            "has_trimaps": bool(examples) and any(e["trimap"] for e in examples["train"] + examples["test"]),
            "left_out": data.get("skipped", []),
            "at_most": MAX_SKIPPED_FILES,
        }
        files = {f"datasets/{name}": folder} if examples else {}
        yield SitePage(f"datasets/{name}.html", "dataset.html", name, values, "Data", files)


def count_images(data: dict[str, Any]) -> list[tuple[str, int, int]]:
    """The name of each class with its training and test images; none for images without labels."""
    if not data["classes"]:
        return []
    return list(zip(data["classes"], data["counts"]["train"], data["counts"]["test"], strict=True))


def group_by_class(examples: dict[str, Any], classes: list[str]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The examples of each class shown, training images first, each with its `split` in words."""
    told = [
        example | {"split": words}
        for split, words in (("train", "training"), ("test", "test"))
        for example in examples[split]
    ]
    if not classes:
        return [("", told)]
    return [(classes[n], [one for one in told if one["class"] == n]) for n in examples["classes"]]
