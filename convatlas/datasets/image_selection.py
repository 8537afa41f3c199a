"""Check that a data set has the test images that the config selects, before anything is computed."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from convatlas import UserError
from convatlas.pipeline.config_types import DatasetConfig
from convatlas.records import DatasetDescription

# Test images of the data sets whose content is known before they are prepared, by format and source.
KNOWN_IMAGE_COUNTS = {
    ("mnist", "embedded"): 360,
    ("mnist", "download"): 10_000,
    ("oxford-iiit-pet", "embedded"): 144,
    ("oxford-iiit-pet", "download"): 3_669,
    ("images", "embedded"): 430,
}


class SplitContent(NamedTuple):
    """What the test split of a data set holds.

    Attributes:
        image_count: The number of its images.
        class_count: The number of the data set's classes; 0 without labels.
        empty_classes: The names of the classes without a test image, by their indices.
    """

    image_count: int
    class_count: int
    empty_classes: Mapping[int, str]


def describe_test_split(description: DatasetDescription) -> SplitContent:
    """Return what the test split of a prepared data set holds.

    Args:
        description: Its dataset.json.
    """
    classes, counts = description["classes"], description["counts"]["test"]
    empty = {n: name for n, (name, count) in enumerate(zip(classes, counts, strict=False)) if not count}
    return SplitContent(sum(counts), len(classes), empty)


def predict_test_split(settings: DatasetConfig) -> SplitContent | None:
    """Return what the test split of a data set will hold when it is prepared; None if that is not known.

    Args:
        settings: The data set's section of the config.
    """
    name, source = settings["format"], settings["source"]
    if (name, source) not in KNOWN_IMAGE_COUNTS:
        return None
    breeds = 12 if source == "embedded" else 37
    classes = {"mnist": 10, "images": 0}.get(name, breeds if settings["target"] == "breed" else 2)
    return SplitContent(KNOWN_IMAGE_COUNTS[name, source], classes, {})


def find_selection_errors(selection: Mapping[str, Any], test: SplitContent, key: str) -> Iterator[str]:
    """Yield what is wrong with the test images that a network's `images` selects.

    Args:
        selection: The section `images` of the config.
        test: The test split of the network's data set.
        key: The place of the section in the config.
    """
    allowed = f"there are {test.image_count}, counted from 0" if test.image_count else "there are none"
    first, indices = selection.get("first", 0), selection.get("indices", [])
    if first > test.image_count:
        yield f"{key}.first: {first} test images are selected, and the data set has {test.image_count}"
    missing = [str(index) for index in indices if index >= test.image_count]
    if missing:
        yield f"{key}.indices: there is no test image {', '.join(missing)}; {allowed}"
    for digit in selection.get("digits", []):
        if not test.class_count:
            yield f"{key}.digits: the data set has no classes; select images by first or indices"
            return
        if digit >= test.class_count:
            yield (
                f"{key}.digits: there is no class {digit}; there are {test.class_count} classes, "
                "counted from 0"
            )
        elif digit in test.empty_classes:
            yield f"{key}.digits: no test image is of class {digit}, {test.empty_classes[digit]}"


def check_selection(selection: Mapping[str, Any], description: DatasetDescription, key: str) -> None:
    """Stop where a data set lacks test images that a network's `images` selects.

    Args:
        selection: The section `images` of the config.
        description: The dataset.json of the network's data set.
        key: The place of the section in the config.

    Raises:
        UserError: Lists all that is wrong.
    """
    errors = list(find_selection_errors(selection, describe_test_split(description), key))
    if errors:
        raise UserError("; ".join(errors))
