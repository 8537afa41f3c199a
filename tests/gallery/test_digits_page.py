"""The page of the deconvnet projections by class, of a network with fake results."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser

from convatlas.figures.context import FigureContext
from convatlas.figures.digits import draw_digit_figures
from convatlas.files import read_json, write_json
from convatlas.gallery.context import GalleryContext
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.pages import digits
from convatlas.plotting.labelled_figure import figure_style, save_figure
from convatlas.plotting.montage import HAIRLINE_COLOUR
from convatlas.results import Results
from tests.support.browser import needs_chromium
from tests.support.fake_results import VIEWS, FakeResults, make_digit_results
from tests.support.site import CONFIG, HOSTILE_TEXT, TIMING, build_page, write_network


def build_context(folder: Path, results: FakeResults) -> GalleryContext:
    """Write the results of a network and its figures of digits, and read them as the gallery does."""
    write_network(folder, "own", results)
    own = folder / "results/own"
    write_json(own / "timing.json", TIMING)
    with figure_style():
        figures = list(draw_digit_figures(FigureContext(Results(own), VIEWS)))
        for figure in figures:
            save_figure(figure.figure, own / "figures" / figure.file, [])
    entries = [figure.to_dict([]) for figure in figures]
    write_json(own / "figures/figures.json", read_json(own / "figures/figures.json") + entries)
    network = NetworkData.read(folder / "results", folder / "data", "own", False)
    return GalleryContext(folder / "results", folder / "data", CONFIG, [network], {})


def test_a_figure_is_split_into_the_tiles_of_each_digit(tmp_path: Path) -> None:
    context = build_context(tmp_path, make_digit_results())
    (page,) = digits.make_pages(context)
    figure, parts = page.context["entries"][0].figures[0]
    with Image.open(tmp_path / "results/own/figures/digits.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert [part["image"] for part in parts] == ["digit-2", "digit-3"]
    for row, part in enumerate(parts):
        for group, cells in zip(part["groups"], figure["tile_layout"]["groups"], strict=True):
            assert [unit for line in group["lines"] for unit in line["units"]] == cells["units"]
            assert all(len(line["units"]) <= 4 for line in group["lines"])
            for line in group["lines"]:
                assert line["y"] == cells["tops"][row]
                for n, _ in enumerate(line["units"]):
                    left = line["x"] + n * figure["tile_layout"]["pitch"]
                    assert (pixels[line["y"] - 1, left - 1] == HAIRLINE_COLOUR).all()
            x, y, width, height = group["colour_bar"]
            assert 0 <= x < x + width <= figure["width"] and 0 <= y < y + height <= figure["height"]


def test_the_page_lists_the_most_active_units(tmp_path: Path) -> None:
    results = make_digit_results()
    for outputs in results.activations.values():
        outputs["pool"][7] = 99
    context = build_context(tmp_path, results)
    activity = digits.find_most_active_units(context.networks[0])
    assert activity.layers == ["conv1", "pool"]
    for row in activity.rows:
        outputs = results.activations[row["image"]["name"]]
        for layer, (unit, value) in zip(activity.layers, row["most_active"], strict=True):
            flat = outputs[layer].reshape(len(outputs[layer]), -1)
            assert value == flat.max() == flat[unit].max()
        assert row["inactive"] == sum((outputs[k].max((1, 2)) <= 0).sum() for k in ("conv1", "pool"))
    assert activity.same_for_all["pool"] == 7


class Tags(HTMLParser):
    """The start tags of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data


def render_page(context: GalleryContext) -> Tags:
    return Tags(build_page(context, next(digits.make_pages(context))))


def test_the_page_has_the_complete_figures_and_their_tiles(tmp_path: Path) -> None:
    page = render_page(build_context(tmp_path, make_digit_results()))
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [image["src"] for image in images] == ["figures/own/digits.png", "figures/own/digits+peak.png"]
    assert all(image["alt"] for image in images)
    tile_files = [attributes["href"] for tag, attributes in page.tags if tag == "image"]
    # For each digit of each figure: the input, 2 + 5 lines of units and 2 colour bars.
    assert len(tile_files) == 2 * 2 * (1 + 7 + 2)
    assert set(tile_files) == {image["src"] for image in images}
    assert "Cat and dog" in page.text


@needs_chromium
def test_a_narrow_screen_shows_tiles_instead_of_figures(tmp_path: Path, browser: Browser) -> None:
    render_page(build_context(tmp_path, make_digit_results()))
    for width, is_wide in ((360, False), (1023, False), (1024, True), (1280, True)):
        page = browser.new_context(viewport={"width": width, "height": 800}).new_page()
        page.goto((tmp_path / "site/digits.html").as_uri())
        assert page.locator("figure.figure").first.is_visible() is is_wide
        assert page.locator("figure.figure-tiles").first.is_visible() is not is_wide
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if not is_wide:  # the tiles of a digit have one size
            tiles = page.locator(".figure-tiles .image-column").first.locator("svg svg:has(image)")
            heights = {round(tile.bounding_box()["height"]) for tile in tiles.all()[1:3]}
            assert len(heights) == 1 and min(heights) >= 44


def test_hostile_names_are_text(tmp_path: Path) -> None:
    results = make_digit_results()
    results.network["classes"] = results.network["dataset_classes"] = ["ant", "bee", HOSTILE_TEXT, "dog"]
    page = render_page(build_context(tmp_path, results))
    assert HOSTILE_TEXT in page.text
    assert not [attributes for _, attributes in page.tags if "onerror" in attributes]


def test_there_is_no_page_without_digits(tmp_path: Path) -> None:
    write_network(tmp_path, "own")
    network = NetworkData.read(tmp_path / "results", tmp_path / "data", "own", False)
    context = GalleryContext(tmp_path / "results", tmp_path / "data", CONFIG, [network], {})
    assert list(digits.make_pages(context)) == []
