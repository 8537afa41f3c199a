"""Whether a network takes the images of a data set: their channels, and the range of their values."""

from convatlas.pixels import PixelFormat, can_convert, channels_error
from convatlas.records import DatasetDescription, DatasetValues
from convatlas.value_ranges import PLAIN_VALUES, ValueSummary, check_values


def check_dataset_values(dataset: DatasetDescription, pixel_format: PixelFormat, name: str, key: str) -> None:
    """Check the images of a data set before they are read, and log the range of their values.

    Args:
        dataset: The data set's dataset.json.
        pixel_format: What the network takes.
        name: The data set's name.
        key: The place of the network's `input` in the config, for messages.

    Raises:
        UserError: Images have another number of channels than the network takes, or would be black.
    """
    subject = f"the images of datasets.{name}"
    if "values" not in dataset:  # grey or RGB of 8 bits
        if pixel_format.channels not in (1, 3):
            raise channels_error(subject, "have", 1 if dataset["format"] == "mnist" else 3, pixel_format)
        check_values(PLAIN_VALUES, pixel_format.value_range, key, subject)
        return
    for group in dataset["values"]:
        count = f"{group['images']} images of datasets.{name}"
        if not can_convert(group["channels"], group["has_alpha"], pixel_format.channels):
            raise channels_error(count, "have", group["channels"], pixel_format)
        check_values(summarize_group(group), pixel_format.value_range, key, count)


def summarize_group(group: DatasetValues) -> ValueSummary:
    """Return the values of images of one kind.

    Args:
        group: An entry of `values` in dataset.json.
    """
    low, high = group["range"]
    return ValueSummary(
        group["dtype"], group["min"], group["max"], low, high, group["source"], group["reduced_bits"]
    )
