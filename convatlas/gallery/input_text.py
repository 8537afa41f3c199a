"""What the pages say of a network's input: normalisation, range of values, and the channels shown."""

from collections.abc import Sequence

from convatlas.image_io import as_size, describe_display, is_image_input
from convatlas.names import format_shape, join_names
from convatlas.records import DatasetDescription, ImageValues, Preprocessing, SampleImage
from convatlas.value_ranges import format_value

MAX_NAMED_FILES = 4
MAX_LISTED_CHANNELS = 6


def describe_input(
    preprocessing: Preprocessing, images: Sequence[SampleImage], dataset: DatasetDescription | None
) -> list[str]:
    """Return sentences on how the values of image files become a network's input.

    Args:
        preprocessing: Of network.json.
        images: images.json.
        dataset: dataset.json of its data set, if it has one.
    """
    if not is_image_input(preprocessing):
        return _describe_array_input(preprocessing)
    sentences = [_describe_normalization(preprocessing)]
    if "range" in preprocessing:
        low, high = map(format_value, preprocessing["range"])
        sentences.append(f"Values of {low} to {high} in the files became 0 to 1; values beyond were clipped.")
    else:
        if dataset:
            sentences += [
                f"Of {group['images']:,} images of the data set, {_describe_values(group)}."
                for group in dataset.get("values", [])
            ]
        files = [
            f"of {image['name']}, {_describe_values(image['values'])}"
            for image in images
            if "values" in image
        ]
        if files:
            named = files[:MAX_NAMED_FILES]
            rest = len(files) - len(named)
            more = f"; and {rest} more files, listed in images.json" if rest else ""
            text = "; ".join(named)
            sentences.append(f"{text[0].upper()}{text[1:]}{more}.")
    return [*sentences, *filter(None, [describe_channels(preprocessing)])]


def describe_channels(preprocessing: Preprocessing) -> str:
    """Return a sentence on the channels that the pages show; "" where that goes without saying.

    Args:
        preprocessing: Of network.json.
    """
    text = describe_display(preprocessing)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _describe_array_input(preprocessing: Preprocessing) -> list[str]:
    """Return sentences on an input that is no image, and on what the pages draw of it."""
    size, mean, std = as_size(preprocessing["size"]), preprocessing["mean"], preprocessing["std"]
    channels = f"{len(mean)} channel{'s' if len(mean) > 1 else ''}"
    normalization = "as they are" if {*mean} == {0} and {*std} == {1} else "normalised by mean and std"
    drawn = "rows, one per unit" if len(size) == 1 else "the central slices along the depth"
    return [
        f"The inputs are no images, but arrays of {channels} × {format_shape(size)} values from NumPy files, "
        f"{normalization}.",
        f"Of feature maps {drawn} are drawn. Projections, classical features and statistics over a data set "
        "are computed for images only; the numbers of all layers are in activations/.",
    ]


def _describe_normalization(preprocessing: Preprocessing) -> str:
    """Return a sentence on the mean and standard deviation of the channels."""
    mean, std = preprocessing["mean"], preprocessing["std"]
    order = " (blue, green, red)" if preprocessing.get("channels") == "bgr" else ""
    if len(mean) > MAX_LISTED_CHANNELS and not len({*mean}) == len({*std}) == 1:
        return (
            f"Pixels in 0 to 1 were normalised by the mean and std of {len(mean)} channels in network.json."
        )
    means, stds = (join_names([f"{value:g}" for value in _merge(values)]) for values in (mean, std))
    return f"Normalisation: pixels in 0 to 1, minus {means}, divided by {stds}{order}."


def _merge(values: Sequence[float]) -> Sequence[float]:
    """Return one value for channels that all have the same."""
    return values[:1] if len({*values}) == 1 else values


def _describe_values(values: ImageValues) -> str:
    """Return which values of files of one kind became 0 and 1."""
    low, high = map(format_value, values["range"])
    extent = f"{format_value(values['min'])} to {format_value(values['max'])}"
    return f"{values['dtype']} values from {extent}: {low} to {high} ({values['source']}) became 0 to 1"
