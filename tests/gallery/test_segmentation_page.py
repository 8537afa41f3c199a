"""The pages of networks with a segmentation analysis, and the findings on them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convatlas.figures.build import draw_figures
from convatlas.files import write_json
from convatlas.gallery.findings import list_emergence_findings, list_findings
from convatlas.plotting.labelled_figure import figure_style
from convatlas.results import Results
from tests.support.fake_results import VIEWS
from tests.support.fake_segmentation import (
    NAMES,
    make_analysis,
    make_segmentation_results,
    make_selective_unit,
    write_segmentation,
)
from tests.support.site import CONFIG, DATASET, TIMING, PageParser, build_site


def build_segmentation_site(folder: Path, *names: str, **views: Any) -> Path:
    """Draw the figures of the networks under a folder, and build their gallery."""
    for name in names:
        network_folder = folder / "results" / name
        settings = {"show": "maps", "n_images": 1, "n_filters": 1} | views
        with figure_style():
            figures = [
                figure.to_dict([]) for figure in draw_figures(Results(network_folder), VIEWS | settings)
            ]
        write_json(network_folder / "figures/figures.json", figures)
        for figure in figures:
            Image.new("RGB", (6, 4)).save(network_folder / "figures" / figure["file"])
        write_json(network_folder / "timing.json", TIMING)
    networks = {name: {"views": VIEWS | views} for name in names}
    return build_site(folder, *names, config=CONFIG | {"networks": networks})


def write_networks(folder: Path, **dataset: Any) -> Path:
    write_segmentation(folder / "results/own")
    write_segmentation(folder / "results/other", is_segmentation=False)
    write_json(folder / "data/animals/dataset.json", DATASET | {"format": "oxford-iiit-pet"} | dataset)
    return folder


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gallery of two networks with masks, one of which segments; neither has highlighted layers."""
    skipped = [{"path": f"images/cat_{n}.jpg", "reason": "it is no image"} for n in range(23)]
    folder = write_networks(tmp_path_factory.mktemp("site"), skipped=skipped)
    network = json.loads((folder / "results/own/network.json").read_text())
    write_json(folder / "results/own/network.json", network | {"source": "Some <Paper>, 2022"})
    return build_segmentation_site(folder, "own", "other")


def test_the_page_of_a_segmentation_network(gallery: Path) -> None:
    page = PageParser(gallery / "networks/own.html")
    assert "test mean IoU 0.67 (60 images)" in page.text
    for text in ("0.810", "0.940", "no images", "87.33 %", "Where segmentation emerges"):
        assert text in page.text
    html = (gallery / "networks/own.html").read_text()
    images = html.partition('<h2 id="images">')[2].partition('<h2 id="segmentation-emergence">')[0]
    assert "<table>" in images and "predicted" not in images
    table = html.partition("Table of all 12 convolutions")[2]
    assert table.partition("</table>")[0].count("<tr>") == 13
    card = PageParser(gallery / "index.html").text
    assert re.search(r"mean IoU\s*0.67", card) and re.search(r"test accuracy\s*75.00 %", card)


def test_the_page_that_compares_networks(gallery: Path) -> None:
    page = PageParser(gallery / "masks.html")
    assert [image["src"] for image in page.images] == ["figures/own/mask.png", "figures/other/mask.png"]
    assert page.text.count("High-frequency content peaks earlier") == 2
    assert "segmentation network" in page.text and "not trained on masks" in page.text
    assert "masks.html" in PageParser(gallery / "index.html").links
    assert "../masks.html" in PageParser(gallery / "networks/other.html").links
    for link in page.links:
        if not link.startswith("#"):
            assert (gallery / link.partition("#")[0]).is_file(), link


def test_without_masks_there_is_no_such_page(tmp_path: Path) -> None:
    make_segmentation_results().write(tmp_path / "results/own")
    write_json(tmp_path / "data/animals/dataset.json", DATASET | {"skipped": []})
    gallery = build_segmentation_site(tmp_path, "own")
    assert not (gallery / "masks.html").exists()
    for name in ("index.html", "networks/own.html"):
        text = PageParser(gallery / name).text
        assert "Where segmentation emerges" not in text and "skipped" not in text.lower()


def test_highlighted_layers_come_first_and_the_rest_is_collapsed(tmp_path: Path) -> None:
    gallery = build_segmentation_site(write_networks(tmp_path), "own", highlight=[1, 12])
    text = (gallery / "networks/own.html").read_text()
    section = text.partition('<h2 id="layers">')[2]
    headings = re.findall(r'<h3 id="layer-([^"]+)"|(<details class="stage")', section)
    order = [name or "collapsed" for name, _ in headings]
    assert order[:3] == [NAMES[0], "head", "collapsed"]
    assert [name for name in order[2:] if name != "collapsed"] == list(NAMES[1:-1])
    assert order.count("collapsed") > 1
    numbers = [int(n) for n in re.findall(r"figure-number\">(\d+)<", section)]
    assert numbers == sorted(numbers)


def test_without_highlighted_layers_all_are_open(gallery: Path) -> None:
    section = (gallery / "networks/own.html").read_text().partition('<h2 id="layers">')[2]
    assert (
        re.findall(r'<h3 id="layer-([^"]+)"', section) == list(NAMES)
        and '<details class="stage"' not in section
    )


def test_the_source_of_a_network(gallery: Path) -> None:
    assert "Based on Some <Paper>, 2022." in PageParser(gallery / "networks/own.html").text
    assert "Based on" not in PageParser(gallery / "networks/other.html").text


def test_skipped_images_are_listed(gallery: Path) -> None:
    page = PageParser(gallery / "index.html").text
    assert "23 images skipped" in page and "and 3 more" in page
    assert page.count("it is no image") == 20 and "images/cat_19.jpg" in page


def test_the_findings_of_a_segmentation_network() -> None:
    analysis = make_analysis()
    first = next(
        layer for layer in analysis["layers"] if layer["ordinal"] == analysis["emergence"]["ordinal"]
    )
    findings = list_emergence_findings(analysis)
    assert len(findings) == 3
    assert findings[0].startswith(f"{first['name']} ({first['ordinal']}) is the first of 12 convolutions")
    assert findings[1].startswith(
        "High-frequency content peaks earlier: the fraction of spectral energy above 8 cycles per image is"
    )
    assert (
        "highest in part.2.main (2), 0.50; the IoU with the mask in part.11.main (11), 0.82." in findings[1]
    )
    assert findings[2] == (
        "Unit 2 of head (12) responds to heads: 43 % of its activation lies inside the head boxes (95 % "
        "interval: 32 to 50 %), which cover 11 % of the image and 30 % of the pet; inside the boxes of other "
        "images lies 20 %. Unit 2 of head (12) discriminates pet from background best (AUC 0.85; 95 % "
        "interval: 0.82 to 0.88; by chance 0.50)."
    )


def set_at_chance(layer: dict[str, Any]) -> None:
    """Let nothing of a layer be above chance."""
    layer["above_chance"] = False
    layer["selective_units"] = [unit | {"above_chance": False} for unit in layer["selective_units"]]
    layer["head"] = layer["head"] and layer["head"] | {"above_chance": False}


def test_what_is_at_chance_is_said_to_be() -> None:
    analysis = make_analysis() | {"emergence": None}
    for layer in analysis["layers"]:
        set_at_chance(layer)
    assert list_emergence_findings(analysis) == [
        "No layer segments the pet better than chance on these 60 test images.",
        "No unit responds to heads more than by chance and more than to the rest of the pet. No unit "
        "discriminates pet from background better than chance.",
    ]
    assert list_emergence_findings(analysis | {"layers": []}) == []


def test_an_order_of_layers_that_depends_on_few_images_is_not_reported() -> None:
    findings = list_emergence_findings(make_analysis() | {"detail_first": 0.9})
    assert len(findings) == 2 and "High-frequency" not in " ".join(findings)


def test_maps_that_are_too_small_for_high_frequencies_are_not_compared() -> None:
    analysis = make_analysis()
    for layer in analysis["layers"][9:]:
        layer["shape"] = [8, 16, 16]
    assert "High-frequency" not in " ".join(list_emergence_findings(analysis))


def test_too_few_images_distinguish_nothing_from_chance() -> None:
    (finding,) = list_emergence_findings(make_analysis() | {"images": {"train": 9, "test": 3}})
    assert "3 test images are too few" in finding and "views.masks.test" in finding


def test_a_network_whose_last_layer_does_not_segment() -> None:
    analysis = make_analysis(False) | {"emergence": None}
    analysis["layers"][-1] |= {"iou": 0.33, "above_chance": False}
    best = "10 of 12 convolutions segment the pet better than chance; the best is part.11.main (11), IoU 0.82"
    assert list_emergence_findings(analysis)[0] == (
        f"{best} (chance: 0.26 to 0.34). The last, head (12), does not: IoU 0.33 (chance: 0.26 to 0.34)."
    )
    unmeasured = analysis | {"final": None, "layers": analysis["layers"][:-1]}
    assert list_emergence_findings(unmeasured)[0].endswith("The last convolution is not measured.")


def test_a_unit_that_is_lower_on_the_pet() -> None:
    analysis = make_analysis()
    analysis["layers"][2]["selective_units"] = [make_selective_unit(7, 0.05)]
    assert (
        "Unit 7 of part.3.attention (3) discriminates pet from background best (AUC 0.05, lower on the pet;"
        in (list_emergence_findings(analysis)[2])
    )


def test_what_is_left_out_is_on_the_page(tmp_path: Path) -> None:
    layers = make_analysis()["layers"]
    layers[3]["excluded"] = {"units": [2, 5], "train": 1, "test": 0}
    changes = {"layers": layers[:-1], "unmeasured": [{"name": "head", "ordinal": 12}], "final": None}
    write_segmentation(tmp_path / "results/own", **changes, emergence=None)
    write_json(tmp_path / "data/animals/dataset.json", DATASET | {"format": "oxford-iiit-pet"})
    page = PageParser(build_segmentation_site(tmp_path, "own") / "masks.html").text
    assert "Not measured, because too many values are NaN or infinite: head." in page
    assert "Values that are NaN or infinite are left out in 1 of 11 layers" in page
    assert "part.4.main: 2 of 8 units, 1 training images, 0 test images" in page


def test_the_most_frequent_confusion_of_pixels(tmp_path: Path) -> None:
    folder = write_segmentation(tmp_path / "own")
    assert list_findings(Results(folder)) == [
        "Most frequent confusion: pet → background (34 % of the misclassified pixels on 60 test images)."
    ]
