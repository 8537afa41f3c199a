"""Names and short texts: of sample images, in messages, in captions and in file names."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path, PurePath
from typing import Any

from anyascii import anyascii

from convatlas.paths import expand_home
from convatlas.records import Layer, NetworkDescription, NonFiniteLayer, OutputKind, SampleImage

PREDICTED_PROBABILITY = 0.5  # of a class of a multi-label network, above which it is predicted
MULTI_LABEL_KINDS: tuple[OutputKind, ...] = ("multi-label", "independent-probabilities")
MAX_NAMED_CLASSES = 3  # that a multi-label network predicts for an image, in a caption
MAX_LISTED_NAMES = 24  # names that a message lists at most
MAX_FILE_NAME_LENGTH = 150  # characters, for a file system allows 255 bytes
# Names of devices on Windows, where no file can have them, whatever its suffix.
RESERVED_NAMES = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))]
)


def suggest_nearest(name: object, names: Sequence[str]) -> str:
    """Return the end of an error message: the nearest of `names`, if one is near, and a list of them.

    Of many names only the nearest and the first are listed.

    Args:
        name: The name that does not exist.
        names: The names that do.
    """
    close = get_close_matches(str(name), names, n=MAX_LISTED_NAMES)
    hint = f"did you mean {close[0]!r}? " if close else ""
    if len(names) <= MAX_LISTED_NAMES:
        return f"{hint}there are: {', '.join(names) or 'none'}"
    listed = list(dict.fromkeys([*close, *names]))[:MAX_LISTED_NAMES]
    return f"{hint}there are: {', '.join(listed)} and {len(names) - MAX_LISTED_NAMES} more"


def describe_missing_file(path: str) -> str:
    """Return the error's text for a file that does not exist: where it was looked for, and what is near.

    Args:
        path: Its path as given, relative to the working directory.
    """
    expanded = expand_home(path)
    folder = expanded.parent
    text = f"there is no file {path!r}"
    if str(expanded).startswith("~"):
        return f"{text}: no home folder is known for {Path(path).parts[0]}; write the full path"
    if not expanded.is_absolute():
        text += f", relative to {Path.cwd()}"
    if not folder.is_dir():
        return f"{text}; there is no folder {str(folder)!r} either"
    files = sorted(file.name for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    close = get_close_matches(Path(path).name, files, n=1, cutoff=0.7)
    return f"{text}; did you mean {str(folder / close[0])!r}?" if close else text


def slugify(text: str) -> str:
    """Return a name that is safe in files and addresses: `[A-Za-z0-9][A-Za-z0-9_-]*`.

    Args:
        text: Any text. Other scripts are transliterated, "日本" as "RiBen"; "image" stands for a text of
            which nothing is left. A name that Windows reserves gets an underscore.
    """
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", transliterate(text)).strip("-_")[:MAX_FILE_NAME_LENGTH] or "image"
    return f"{slug}_" if slug.lower() in RESERVED_NAMES else slug


def make_file_name(text: str) -> str:
    """Return a part of a file's name that is safe on all file systems and in addresses, and resembles a text.

    Args:
        text: Any text, such as the name of a layer, in which "/" becomes "+" and ":" becomes "~".
    """
    text = transliterate(text.replace("/", "+").replace(":", "~"))
    return re.sub(r"[^A-Za-z0-9_.+~-]+", "-", text)[:MAX_FILE_NAME_LENGTH]


def make_unique_name(name: str, used: set[str]) -> str:
    """Return a name, with "-2", "-3", ... if it is taken, even by one that differs in capitals alone.

    Args:
        name: A name in ASCII.
        used: The names that are taken, in lower case; the result is added.
    """
    unique, copies = name, 1
    while unique.lower() in used:
        copies += 1
        unique = f"{name}-{copies}"
    used.add(unique.lower())
    return unique


def transliterate(text: str) -> str:
    """Return a text in ASCII.

    Args:
        text: Any text. A letter with an accent is that letter, whether it is one character or two.
    """
    return anyascii(unicodedata.normalize("NFKC", text))


def make_printable(text: str) -> str:
    """Return a file's name with bytes that are not text (surrogate escapes) replaced, for UTF-8.

    Args:
        text: The name, as Python decodes it from the file system.
    """
    return text.encode(errors="surrogateescape").decode(errors="replace")


def join_names(names: Sequence[str]) -> str:
    """Join names as in a sentence: "a, b and c"; "none" if there are none.

    Args:
        names: The names, in order.
    """
    if len(names) < 2:
        return names[0] if names else "none"
    return f"{', '.join(names[:-1])} and {names[-1]}"


def format_shape(shape: Sequence[int]) -> str:
    """Return a shape as text, such as "28 × 28".

    Args:
        shape: The length of each axis.
    """
    return " × ".join(map(str, shape))


def format_number(value: float, spec: str = ".3g") -> str:
    """Return a number as text, with a minus sign instead of a hyphen; NaN and ∞ as such.

    Args:
        value: The number.
        spec: Its format, after Python's format specification.
    """
    return f"{value:{spec}}".replace("-", "−").replace("nan", "NaN").replace("inf", "∞")


def name_images(images: Mapping[str, Any]) -> list[str]:
    """Return the names of the sample images, in order.

    A test image chosen by class is named `digit-<class>`, one chosen by index `test-<index, 5 digits>`, a
    photograph by its own name, and a file by the slug of its stem. Names that collide, even where capitals
    are ignored, get `-2`, `-3`.

    Args:
        images: `images` of the network's config, folders in `files` expanded.
    """
    names = [f"digit-{digit}" for digit in images.get("digits", [])]
    names += [f"test-{index:05d}" for index in list_test_indices(images)]
    names += images.get("photographs", [])
    used = {name.lower() for name in names}
    return [*names, *(make_unique_name(slugify(Path(path).stem), used) for path in images.get("files", []))]


def list_test_indices(images: Mapping[str, Any]) -> list[int]:
    """Return the test images that `images` of the config selects by number, without repeats.

    Args:
        images: `images` of a network's config; `first` and `indices` count, both optional.

    Returns:
        Indices in the test split: the first ones, then those of `indices` in their order.
    """
    return list(dict.fromkeys([*range(images.get("first", 0)), *images.get("indices", [])]))


def format_image_title(image: SampleImage, network: NetworkDescription) -> str:
    """Return what an image is called on pages and figures, such as "dog, test image 47".

    Args:
        image: An entry of images.json.
        network: network.json.

    Returns:
        The class of a labelled image, then its number in its split, or the name of its file or photograph.
    """
    classes = network["dataset_classes"]  # which need not be the network's
    parts = []
    if image["label"] is not None and classes is not None:
        name = classes[image["label"]]
        parts.append(f"digit {name}" if name.isdigit() and all(map(str.isdigit, classes)) else name)
    if image["index"] is not None:
        parts.append(f"{image['split']} image {image['index']}")
    elif image["path"] and not image["path"].startswith("scikit-image"):
        parts.append(PurePath(image["path"]).name)
    else:
        parts.append(f"photograph {image['name']}")
    return ", ".join(parts)


def number_label(image: SampleImage, network: NetworkDescription) -> int | None:
    """Return the number of an image's label among the network's classes; None where it is none of them.

    Args:
        image: An entry of images.json, whose label is one of the data set's classes.
        network: network.json.
    """
    names = network["dataset_classes"]
    if image["label"] is None or not names or len(network["output"]["shape"]) == 3:
        return None
    if names == network["classes"]:
        return image["label"]
    name = names[image["label"]]
    return network["classes"].index(name) if network["classes"].count(name) == 1 else None


def title_images(images: Sequence[SampleImage], network: NetworkDescription) -> dict[str, str]:
    """Return the title of each sample image by its name; images of the same title have their name behind it.

    Args:
        images: images.json.
        network: network.json.
    """
    titles = {image["name"]: format_image_title(image, network) for image in images}
    counts = Counter(titles.values())
    return {name: title if counts[title] == 1 else f"{title} ({name})" for name, title in titles.items()}


def describe_image(image: SampleImage, network: NetworkDescription, separator: str) -> str:
    """Return an image's title, which has its class, and the network's prediction, joined by `separator`.

    Args:
        image: An entry of images.json.
        network: network.json.
        separator: What stands between the parts, such as ", " or a newline.
    """
    parts = [format_image_title(image, network)]
    prediction = describe_prediction(image, network)
    return separator.join([*parts, prediction] if prediction else parts)


def describe_prediction(
    image: SampleImage, network: NetworkDescription, max_classes: int = MAX_NAMED_CLASSES
) -> str:
    """Return what the network predicts for an image, as "predicted dog (87.5 %)"; "" without class scores.

    Args:
        image: An entry of images.json.
        network: network.json.
        max_classes: How many of the predicted classes of a multi-label network are named.
    """
    if image["prediction"] is None or image["probability"] is None:
        return ""
    classes = network["classes"]

    def describe(number: int, probability: float) -> str:
        return f"{classes[number]} ({100 * probability:.1f} %)"

    most_probable = describe(image["prediction"], image["probability"])
    if is_multi_label(network):
        predicted = image.get("predictions", [])
        if not predicted:
            return f"no class above {100 * PREDICTED_PROBABILITY:g} %, most probable {most_probable}"
        names = [describe(entry["class"], entry["probability"]) for entry in predicted[:max_classes]]
        n_more = len(predicted) - len(names)
        return f"predicted {', '.join(names)}{f' and {n_more} more' if n_more else ''}"
    if len(classes) > 1:
        return f"predicted {most_probable}"
    # A single class has a probability, and is not chosen among several.
    return f"probability of {classes[0]} {100 * image['probability']:.1f} %"


def list_predicted_classes(image: SampleImage) -> list[int]:
    """Return the numbers of the classes that a network predicts for an image, the most probable first.

    Args:
        image: An entry of images.json.

    Returns:
        One class; of a multi-label network those above PREDICTED_PROBABILITY; none without class scores.
    """
    if "predictions" in image:
        return [entry["class"] for entry in image["predictions"]]
    return [] if image["prediction"] is None else [image["prediction"]]


def describe_non_finite(layers: Sequence[NonFiniteLayer]) -> str:
    """Return where NaN or infinite values first appear on an image, and how many layers hold some.

    Args:
        layers: `non_finite` of an entry of images.json, at least one.
    """
    first, later = layers[0], len(layers) - 1
    counts = [f"{first['nan']:,} NaN"] if first["nan"] else []
    counts += [f"{first['infinite']:,} infinite"] if first["infinite"] else []
    place = (
        "the input" if first["layer"] == "input" else f"{first['layer']}, the first layer with such values"
    )
    text = f"{' and '.join(counts)} of {first['values']:,} values in {place}"
    return (
        f"{text}; {later} later layer{'s have' if later > 1 else ' has'} such values too" if later else text
    )


def list_precisions(layers: Sequence[Layer]) -> list[str]:
    """Return, for each precision other than float32, how many layers compute in it: one sentence each.

    Args:
        layers: layers.json.
    """
    counts = Counter(layer["computed_in"] for layer in layers if "computed_in" in layer)
    return [
        f"{count:,} of {len(layers):,} layers compute in {precision}; figures show their outputs in float32"
        for precision, count in counts.items()
    ]


def is_multi_label(network: NetworkDescription) -> bool:
    """Return whether several classes of a network may be right at once.

    Args:
        network: network.json.
    """
    output = network["output"]
    return output["kind"] in MULTI_LABEL_KINDS and output["shape"][0] > 1


OUTPUT_TEXTS: dict[OutputKind, str] = {
    "softmax": "softmax of logits",
    "sigmoid": "sigmoid of one logit",
    "multi-label": "sigmoid, multi-label",
    "log-softmax": "log-softmax",
    "probabilities": "probabilities",
    "independent-probabilities": "sigmoid, multi-label",
    "none": "no class scores",
}


def describe_output(network: NetworkDescription) -> str:
    """Return what the output of a network means, such as "softmax of logits, 10 classes".

    Args:
        network: network.json.
    """
    output, text = network["output"], OUTPUT_TEXTS[network["output"]["kind"]]
    if output["kind"] == "none":
        return text
    count = len(network["classes"])
    if output["kind"] == "independent-probabilities" and output["shape"][0] == 1:
        text = "sigmoid, one probability"
    text += f", {count} class{'es' if count > 1 else ''}"
    if len(output["shape"]) == 3:
        text = f"per-pixel scores of {format_shape(output['shape'][1:])} pixels: {text}"
    return f"{text}, in {output['path']!r}" if output["path"] else text


def describe_classes(images: Sequence[SampleImage], network: NetworkDescription) -> str:
    """Return the classes of images as in a sentence: "the digits 0, 1 and 5", or "cat and dog".

    Args:
        images: Labelled images of the network's data set.
        network: The network's description.
    """
    dataset_classes = network["dataset_classes"] or []
    classes = [dataset_classes[image["label"]] for image in images if image["label"] is not None]
    names = join_names(classes)
    if not all(name.isdigit() for name in classes):
        return names
    return f"the digit {names}" if len(classes) == 1 else f"the digits {names}"
