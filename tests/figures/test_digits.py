"""The digits: the plate with a row for each and a column for each unit, and the page that shows it."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser

from convatlas.figures import digits as digits_module
from convatlas.figures.context import FigureContext
from convatlas.files import read_json, write_json
from convatlas.gallery.context import GalleryContext
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.pages import digits
from convatlas.names import describe_classes
from convatlas.plotting.colormap import ColourScale
from convatlas.plotting.labelled_figure import figure_style, save_figure
from convatlas.plotting.montage import HAIRLINE
from tests.gallery.test_build import CONFIG, HOSTILE, TIMING, write
from tests.support.browser import needs_chromium
from tests.support.fake_results import CLASSES, PLANE, VIEWS, FakeResults, make_results

NAMES = {"first": "digit-2", "second": "digit-3"}


def of_digits(channels: int = 1) -> FakeResults:
    """The made-up results with their images chosen by class, as digits are."""
    results = make_results(channels)
    for part in ("pictures", "outputs", "projections", "classical"):
        setattr(results, part, {NAMES[name]: value for name, value in getattr(results, part).items()})
    for n, image in enumerate(results.images):
        image |= {"name": NAMES[image["name"]], "label": n + 2, "prediction": n + 2}
    return results


def drawn(folder: Path, results: FakeResults, **views: Any) -> list[tuple[dict[str, Any], np.ndarray]]:
    """Each plate of the digits, described, and its pixels."""
    results.write(folder / "own")
    found = []
    with figure_style():
        for plate in digits_module.draw_digit_figures(FigureContext(folder / "own", "own", VIEWS | views)):
            plate.figure.canvas.draw()
            found.append((plate.to_dict(False), np.asarray(plate.figure.canvas.buffer_rgba())[..., :3]))
    return found


def test_each_digit_is_a_row_and_each_unit_a_column_pixel_for_pixel(tmp_path: Path) -> None:
    results = of_digits()
    plates = drawn(tmp_path, results)
    assert [plate["file"] for plate, _ in plates] == ["digits.png", "digits+peak.png"]
    for (plate, pixels), select in zip(plates, ("", "@peak"), strict=True):
        cells = plate["cells"]
        assert plate["kind"] == "digits" and cells["images"] == ["digit-2", "digit-3"]
        assert [(g["layer"], g["units"]) for g in cells["groups"]] == [
            ("conv1", list(range(5))), ("pool", list(range(18)))
        ]  # fmt: skip
        factor = cells["edge"] // max(PLANE)
        for group in cells["groups"]:
            arrays = [results.projections[name][group["layer"] + select] for name in cells["images"]]
            scale = ColourScale.diverging(*arrays)  # one for all digits
            for array, name, top in zip(arrays, cells["images"], group["tops"], strict=True):
                dead = results.activations[name][group["layer"]].reshape(len(array), -1).max(1) <= 0
                for n, unit in enumerate(group["units"]):
                    left = group["left"] + n * cells["pitch"]
                    shown = pixels[top : top + PLANE[0] * factor, left : left + PLANE[1] * factor]
                    wanted = scale.to_rgb(array[unit, 0]).repeat(factor, 0).repeat(factor, 1)
                    assert np.array_equal(shown, wanted) != dead[unit]  # which is crossed
                    assert (pixels[top - 1, left - 1] == HAIRLINE).all()


def test_the_input_stands_first_in_each_row(tmp_path: Path) -> None:
    results = of_digits()
    plate, pixels = drawn(tmp_path, results)[0]
    cells = plate["cells"]
    factor = cells["edge"] // max(PLANE)
    for name, top in zip(cells["images"], cells["groups"][0]["tops"], strict=True):
        shown = pixels[top:, cells["input"] :][::factor, ::factor][: PLANE[0], : PLANE[1]]
        assert np.abs(shown[..., 0] - 255 * results.inputs[name][0]).max() <= 1


def test_the_caption_names_units_digits_selection_and_scale(tmp_path: Path) -> None:
    (whole, _), (peak, _) = drawn(tmp_path, of_digits())
    units = "the 23 units of conv1 (5) and pool (18)"
    for words in (units, "to cat and dog", "8 × 6 pixels", "Each layer has the scale under it"):
        assert words in whole["caption"] and words in peak["caption"]
    assert "each unit's whole map" in whole["caption"]
    assert "each unit's single strongest location" in peak["caption"]
    assert "Units dead on an image (3) are crossed" in whole["caption"]


@pytest.mark.parametrize(
    ("scale", "words"),
    [("per_tile", "Each tile has a scale of its own, so"), ("shared", "All layers have one scale")],
)
def test_other_scales_are_told(tmp_path: Path, scale: str, words: str) -> None:
    assert words in drawn(tmp_path, of_digits(), scale=scale)[0][0]["caption"]


def test_projections_in_colours(tmp_path: Path) -> None:
    plate, pixels = drawn(tmp_path, of_digits(3))[0]
    assert "grey is zero" in plate["caption"] and "One value in a hundred" in plate["caption"]
    group = plate["cells"]["groups"][1]
    tile = pixels[group["tops"][0] :, group["left"] :][: PLANE[0], : PLANE[1]]
    assert np.ptp(tile.astype(int), axis=2).max() > 20


def test_units_stand_under_one_another_where_others_are_projected_of_each_image(tmp_path: Path) -> None:
    results = of_digits()
    for name, units in (("digit-2", [4, 1]), ("digit-3", [0, 4])):
        found = results.projections[name]
        found |= {key: found[key][units] for key in ("conv1", "conv1@peak")}
        found["conv1@units"] = np.array(units, np.int32)
    plate, pixels = drawn(tmp_path, results)[0]
    group = plate["cells"]["groups"][0]
    assert group["units"] == [0, 1, 4]
    assert "A place is empty where" in plate["caption"]
    empty = {  # rows and columns of the plate where nothing stands
        (row, n)
        for row, top in enumerate(group["tops"])
        for n in range(3)
        if not (pixels[top - 1, group["left"] + n * plate["cells"]["pitch"]] == HAIRLINE).all()
    }
    assert empty == {(0, 0), (1, 1)}


def test_many_units_are_laid_in_bands_and_on_further_plates(tmp_path: Path) -> None:
    results = of_digits()
    rng = np.random.default_rng(0)
    for name in results.activations:
        results.projections[name] = {"pool": rng.normal(size=(130, 1, *PLANE)).astype(np.float32)}
        results.activations[name]["pool"] = rng.random((130, 4, 3)).astype(np.float32)
    plates = drawn(tmp_path, results)
    assert [plate["file"] for plate, _ in plates] == ["digits.png", "digits+2.png"]
    groups = [group for plate, _ in plates for group in plate["cells"]["groups"]]
    assert [len(group["units"]) for group in groups] == [24, 24, 24, 24, 24, 10]
    assert [unit for group in groups for unit in group["units"]] == list(range(130))
    tops = [group["tops"][0] for group in plates[0][0]["cells"]["groups"]]
    assert tops == sorted(set(tops))


def test_no_plate_without_digits_or_projections(tmp_path: Path) -> None:
    assert drawn(tmp_path, make_results(1)) == []
    results = of_digits()
    results.projections = {name: {} for name in results.projections}
    assert drawn(tmp_path, results) == []


@pytest.mark.parametrize(
    ("classes", "labels", "words"),
    [
        (list("0123456789"), [0, 1, 5, 8], "the digits 0, 1, 5 and 8"),
        (list("0123456789"), [7], "the digit 7"),
        (CLASSES, [2, 3], "cat and dog"),
    ],
)
def test_images_are_called_by_their_classes(classes: list[str], labels: list[int], words: str) -> None:
    assert describe_classes([{"label": label} for label in labels], {"dataset_classes": classes}) == words


# The page


def atlas_of(folder: Path, results: FakeResults) -> GalleryContext:
    write(folder, "own", results)
    own = folder / "results/own"
    write_json(own / "timing.json", TIMING)
    with figure_style():
        plates = list(digits_module.draw_digit_figures(FigureContext(own, "own", VIEWS)))
        for plate in plates:
            save_figure(plate.figure, own / "figures" / plate.file, pdf=False)
    described = [plate.to_dict(False) for plate in plates]
    write_json(own / "figures/figures.json", read_json(own / "figures/figures.json") + described)
    page = NetworkData.read(folder / "results", folder / "data", "own", False)
    return GalleryContext(folder / "results", folder / "data", CONFIG, [page], {})


def test_a_plate_is_taken_apart_into_the_tiles_of_each_digit(tmp_path: Path) -> None:
    atlas = atlas_of(tmp_path, of_digits())
    (sheet,) = digits.make_pages(atlas)
    plate = sheet.context["networks"][0]["plates"][0]
    pixels = drawn(tmp_path, of_digits())[0][1]
    assert [part["image"] for part in plate["parts"]] == ["digit-2", "digit-3"]
    for row, part in enumerate(plate["parts"]):
        for group, cells in zip(part["groups"], plate["cells"]["groups"], strict=True):
            assert [unit for line in group["lines"] for unit in line["units"]] == cells["units"]
            assert all(len(line["units"]) <= 4 for line in group["lines"])
            for line in group["lines"]:
                assert line["y"] == cells["tops"][row]
                for n, _ in enumerate(line["units"]):
                    left = line["x"] + n * plate["cells"]["pitch"]
                    assert (pixels[line["y"] - 1, left - 1] == HAIRLINE).all()
            x, y, width, height = group["bar"]
            assert 0 <= x < x + width <= plate["width"] and 0 <= y < y + height <= plate["height"]


def test_the_page_says_which_units_answer_most(tmp_path: Path) -> None:
    results = of_digits()
    for outputs in results.activations.values():
        outputs["pool"][7] = 99
    atlas = atlas_of(tmp_path, results)
    answers = digits.find_most_active_units(atlas, atlas.networks[0])
    assert answers["layers"] == ["conv1", "pool"]
    for row in answers["rows"]:
        outputs = results.activations[row["image"]["name"]]
        for layer, (unit, value) in zip(answers["layers"], row["strongest"], strict=True):
            flat = outputs[layer].reshape(len(outputs[layer]), -1)
            assert value == flat.max() == flat[unit].max()
        assert row["dead"] == sum((outputs[k].max((1, 2)) <= 0).sum() for k in ("conv1", "pool"))
    assert answers["all_alike"]["pool"] == 7


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data


def rendered(atlas: GalleryContext) -> Tags:
    from tests.gallery.test_primer import page_of  # noqa: PLC0415  which renders a sheet alone

    return Tags(page_of(atlas, next(digits.make_pages(atlas))))


def test_the_page_shows_the_picture_whole_and_cut(tmp_path: Path) -> None:
    page = rendered(atlas_of(tmp_path, of_digits()))
    images = [given for tag, given in page.tags if tag == "img"]
    assert [image["src"] for image in images] == ["plates/own/digits.png", "plates/own/digits+peak.png"]
    assert all(image["alt"] for image in images)
    cuts = [given["href"] for tag, given in page.tags if tag == "image"]
    # Of each digit on each plate the input, 2 + 5 lines of units and 2 scales.
    assert len(cuts) == 2 * 2 * (1 + 7 + 2)
    assert set(cuts) == {image["src"] for image in images}
    assert "Cat and dog" in page.text


@needs_chromium
def test_where_there_is_room_the_picture_is_whole_on_a_phone_it_is_cut(
    tmp_path: Path, browser: Browser
) -> None:
    rendered(atlas_of(tmp_path, of_digits()))
    for width, is_whole in ((360, False), (1023, False), (1024, True), (1280, True)):
        page = browser.new_context(viewport={"width": width, "height": 800}).new_page()
        page.goto((tmp_path / "site/digits.html").as_uri())
        assert page.locator("figure.plate").first.is_visible() is is_whole
        assert page.locator("figure.cut").first.is_visible() is not is_whole
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if not is_whole:  # all of the lines of a digit are tiles of one size
            tiles = page.locator(".cut .one").first.locator("svg svg:has(image)")
            heights = {round(tile.bounding_box()["height"]) for tile in tiles.all()[1:3]}
            assert len(heights) == 1 and min(heights) >= 44


def test_hostile_names_are_text(tmp_path: Path) -> None:
    results = of_digits()
    results.network["classes"] = results.network["dataset_classes"] = ["ant", "bee", HOSTILE, "dog"]
    page = rendered(atlas_of(tmp_path, results))
    assert HOSTILE in page.text
    assert not [given for _, given in page.tags if "onerror" in given]


def test_there_is_no_page_without_digits(tmp_path: Path) -> None:
    write(tmp_path, "own")
    page = NetworkData.read(tmp_path / "results", tmp_path / "data", "own", False)
    assert (
        list(digits.make_pages(GalleryContext(tmp_path / "results", tmp_path / "data", CONFIG, [page], {})))
        == []
    )
