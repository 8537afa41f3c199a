"""Names: of images and layers, and of what a user meant."""

import re
import unicodedata
from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from convatlas import UserError

MAX_LISTED_NAMES = 24  # names that a message lists at most


def suggest_nearest(name: object, names: Sequence[str]) -> str:
    """Say which of `names` was meant, if one is near, and list them: the nearest, where they are many."""
    close = get_close_matches(str(name), names, n=MAX_LISTED_NAMES)
    hint = f"did you mean {close[0]!r}? " if close else ""
    if len(names) <= MAX_LISTED_NAMES:
        return f"{hint}there are: {', '.join(names) or 'none'}"
    first = list(dict.fromkeys([*close, *names]))[:MAX_LISTED_NAMES]
    return f"{hint}there are: {', '.join(first)} and {len(names) - MAX_LISTED_NAMES} more"


def slugify(text: str) -> str:
    """Make a name that is safe in files and addresses: `[A-Za-z0-9][A-Za-z0-9_-]*`."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_-]+", "-", ascii_text).strip("-_") or "image"


def make_printable(text: str) -> str:
    """Replace what is no text in a file's name (surrogate escapes), so that it can be written as UTF-8."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


def name_images(images: dict[str, Any]) -> list[str]:
    """Name the images looked at, in order: `digit-<d>`, `test-<index>`, a photograph's, a slug of a stem.

    `images` is the section of the config; names that collide get `-2`, `-3`.
    """
    names = [f"digit-{digit}" for digit in images.get("digits", [])]
    names += [f"test-{index:05d}" for index in list_test_indices(images)]
    names += images.get("photographs", [])
    for path in images.get("files", []):
        stem = slugify(Path(path).stem)
        name, copies = stem, 1
        while name in names:
            copies += 1
            name = f"{stem}-{copies}"
        names.append(name)
    return names


def describe_image(image: dict[str, Any], network: dict[str, Any], between: str) -> str:
    """An image's name, its class and the network's prediction, from images.json and network.json."""
    parts = [image["name"]]
    if image["label"] is not None:  # of the data set, whose classes need not be the network's
        parts.append(f"true {network['dataset_classes'][image['label']]}")
    if image["prediction"] is not None:
        predicted = network["classes"][image["prediction"]]
        parts.append(f"predicted {predicted} ({100 * image['probability']:.1f} %)")
    return between.join(parts)


def describe_classes(images: Sequence[dict[str, Any]], network: dict[str, Any]) -> str:
    """What images are called together, by their classes: "the digits 0, 1 and 5", or "cat and dog"."""
    classes = [network["dataset_classes"][image["label"]] for image in images]
    digits = "the digit " if len(classes) == 1 else "the digits "
    return (digits if all(name.isdigit() for name in classes) else "") + join_names(classes)


def join_names(names: Sequence[str]) -> str:
    """Join names as in a sentence."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:]))) or "none"


def list_test_indices(images: dict[str, Any]) -> list[int]:
    """Give the test images asked for by number, `first` and `indices`, each once."""
    return list(dict.fromkeys([*range(images.get("first", 0)), *images.get("indices", [])]))


def choose_layers(
    layers: list[dict[str, Any]], wanted: str | list[str | int], key: str, extra_names: Sequence[str] = ()
) -> list[str]:
    """Give the names of the called layers that `wanted` asks for, in execution order.

    `layers` is layers.json; `wanted` is "all", or names, globs, and ordinals of convolutions,
    from 1. Raises UserError, which names `key`, the place in the config, where one matches nothing, and
    what there is: layers, and `also` what can be asked for besides.
    """
    called = [layer for layer in layers if layer["called"]]
    names = [layer["name"] for layer in called]
    if wanted == "all":
        return names
    chosen: set[str] = set()
    for item in wanted:
        if isinstance(item, int):
            found = [layer["name"] for layer in called if layer["ordinal"] == item]
            allowed = (
                f"there are {sum(layer['kind'] == 'conv' for layer in called)} convolutions, counted from 1"
            )
        else:
            found = [name for name in names if fnmatchcase(name, item)]
            allowed = suggest_nearest(item, [*names, *extra_names])
        if not found:
            raise UserError(f"{key}: no layer {item!r}; {allowed}")
        chosen.update(found)
    return [name for name in names if name in chosen]


def format_shape(shape: Sequence[int]) -> str:
    """Return a shape as text, such as "28 × 28"."""
    return " × ".join(map(str, shape))


def format_number(value: float, spec: str = ".3g") -> str:
    """Return a number as text, with a minus sign instead of a hyphen.

    Args:
        value: The number.
        spec: Its format, after Python's format specification.

    """
    return f"{value:{spec}}".replace("-", "−")
