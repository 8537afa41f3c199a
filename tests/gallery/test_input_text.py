"""What the pages say of a network's input."""

from typing import Any

from convatlas.gallery.input_text import MAX_NAMED_FILES, describe_input

GREY: Any = {"size": 8, "mean": [0.5], "std": [0.25]}
VALUES = {"dtype": "uint16", "min": 12.0, "max": 4080.0, "range": [0, 65535], "source": "data type"}


def make_images(count: int) -> Any:
    """Return entries of images.json, of a plain image and others of 16 bits."""
    return [{"name": "plain"}, *({"name": f"deep-{n}", "values": VALUES} for n in range(count))]


def test_plain_images_need_no_more_than_the_normalisation() -> None:
    assert describe_input(GREY, make_images(0), None) == [
        "Normalisation: pixels in 0 to 1, minus 0.5, divided by 0.25."
    ]


def test_the_range_of_values_is_named() -> None:
    text = "uint16 values from 12 to 4080: 0 to 65535 (data type) became 0 to 1"
    assert describe_input(GREY, make_images(1), None)[1:] == [f"Of deep-0, {text}."]
    many = describe_input(GREY, make_images(MAX_NAMED_FILES + 2), None)[1]
    assert many.count(text) == MAX_NAMED_FILES
    assert many.endswith("; and 2 more files, listed in images.json.")
    dataset: Any = {"values": [{**VALUES, "images": 1200, "channels": 1}]}
    assert describe_input(GREY, make_images(0), dataset)[1:] == [f"Of 1,200 images of the data set, {text}."]
    configured = describe_input({**GREY, "range": [0, 4095.5]}, make_images(3), dataset)
    assert configured[1:] == ["Values of 0 to 4095.5 in the files became 0 to 1; values beyond were clipped."]


def test_the_channels_shown_are_named() -> None:
    five: Any = {"size": 8, "mean": [0.1, 0.2, 0.3, 0.4, 0.5], "std": [0.5] * 5, "display": [3, 2, 1]}
    assert describe_input(five, make_images(0), None) == [
        "Normalisation: pixels in 0 to 1, minus 0.1, 0.2, 0.3, 0.4 and 0.5, divided by 0.5.",
        "Of the 5 channels, 3, 2 and 1 are shown as red, green and blue.",
    ]
    bgr: Any = {"size": 8, "mean": [0.4, 0.5, 0.6], "std": [1.0] * 3, "channels": "bgr"}
    normalisation, display = describe_input(bgr, make_images(0), None)
    assert (
        normalisation
        == "Normalisation: pixels in 0 to 1, minus 0.4, 0.5 and 0.6, divided by 1 (blue, green, red)."
    )
    assert "true colours" in display
    eleven: Any = {"size": 8, "mean": [n / 10 for n in range(11)], "std": [1.0] * 11}
    assert "11 channels in network.json" in describe_input(eleven, make_images(0), None)[0]
