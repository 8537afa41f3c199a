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
    write_segmentation,
)
from tests.support.site import CONFIG, DATASET, TIMING, PageParser, build_site


def site(folder: Path, *names: str, **views: Any) -> Path:
    """The gallery of networks that write_segmentation() has written under results/."""
    for name in names:
        own = folder / "results" / name
        chosen = {"show": "maps", "n_images": 1, "n_filters": 1} | views
        with figure_style():
            plates = [plate.to_dict(False) for plate in draw_figures(Results(own), VIEWS | chosen)]
        write_json(own / "figures/figures.json", plates)
        for plate in plates:
            Image.new("RGB", (6, 4)).save(own / "figures" / plate["file"])
        write_json(own / "timing.json", TIMING)
    networks = {name: {"views": VIEWS | views} for name in names}
    return build_site(folder, *names, config=CONFIG | {"networks": networks})


def ready(folder: Path, **dataset: Any) -> Path:
    write_segmentation(folder / "results/own")
    write_segmentation(folder / "results/other", is_segmentation=False)
    write_json(folder / "data/animals/dataset.json", DATASET | {"format": "oxford-iiit-pet"} | dataset)
    return folder


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gallery of two networks with masks, of which one segments; neither has a main road."""
    skipped = [{"path": f"images/cat_{n}.jpg", "reason": "it is no image"} for n in range(23)]
    folder = ready(tmp_path_factory.mktemp("site"), skipped=skipped)
    network = json.loads((folder / "results/own/network.json").read_text())
    write_json(folder / "results/own/network.json", network | {"source": "Some <Paper>, 2022"})
    return site(folder, "own", "other")


def test_the_page_of_a_network_that_segments(gallery: Path) -> None:
    page = PageParser(gallery / "networks/own.html")
    assert "mean IoU 0.67 over the pixels of 60 test images" in page.text
    for words in ("0.810", "0.940", "in no image", "87.33 %", "Where the mask appears"):
        assert words in page.text
    assert "predicted" not in page.text.partition("The images looked at")[2].partition("Where the mask")[0]
    table = (gallery / "networks/own.html").read_text().partition("All 12 convolutions")[2]
    assert table.partition("</table>")[0].count("<tr>") == 13
    card = PageParser(gallery / "index.html").text
    assert re.search(r"mean IoU\s*0.67", card) and re.search(r"test accuracy\s*75.00 %", card)


def test_the_page_that_sets_networks_side_by_side(gallery: Path) -> None:
    page = PageParser(gallery / "masks.html")
    assert [image["src"] for image in page.images] == ["figures/own/mask.png", "figures/other/mask.png"]
    assert page.text.count("Fine detail comes first") == 2
    assert "trained to segment" in page.text and "not trained on masks" in page.text
    assert "masks.html" in PageParser(gallery / "index.html").links
    assert "../masks.html" in PageParser(gallery / "networks/other.html").links
    for link in page.links:
        if not link.startswith("#"):
            assert (gallery / link.partition("#")[0]).is_file(), link


def test_without_masks_there_is_no_such_page(tmp_path: Path) -> None:
    make_segmentation_results().write(tmp_path / "results/own")
    write_json(tmp_path / "data/animals/dataset.json", DATASET | {"skipped": []})
    gallery = site(tmp_path, "own")
    assert not (gallery / "masks.html").exists()
    for name in ("index.html", "networks/own.html"):
        text = PageParser(gallery / name).text
        assert "Where the mask" not in text and "left out" not in text


def test_the_main_road_comes_first_and_the_rest_is_folded(tmp_path: Path) -> None:
    gallery = site(ready(tmp_path), "own", highlight=[1, 12])
    text = (gallery / "networks/own.html").read_text()
    section = text.partition('<h2 id="layers">')[2]
    found = re.findall(r'<h3 id="layer-([^"]+)"|(<details)', section)
    order = [name or "folded" for name, _ in found]
    assert order[:3] == [NAMES[0], "head", "folded"]
    assert [name for name in order[2:] if name != "folded"] == list(NAMES[1:-1])
    assert order.count("folded") > 1
    numbers = [int(n) for n in re.findall(r"Figure (\d+)\. own", section)]
    assert numbers == sorted(numbers)


def test_without_a_road_all_layers_are_open(gallery: Path) -> None:
    section = (gallery / "networks/own.html").read_text().partition('<h2 id="layers">')[2]
    assert re.findall(r'<h3 id="layer-([^"]+)"', section) == list(NAMES) and "<details" not in section


def test_where_a_network_was_published(gallery: Path) -> None:
    assert "After Some <Paper>, 2022." in PageParser(gallery / "networks/own.html").text
    assert "After" not in PageParser(gallery / "networks/other.html").text


def test_skipped_images_are_listed(gallery: Path) -> None:
    page = PageParser(gallery / "index.html").text
    assert "23 images were left out" in page and "and 3 more" in page
    assert page.count("it is no image") == 20 and "images/cat_19.jpg" in page


# What is said


def test_what_is_said_of_the_mask() -> None:
    masks = make_analysis()
    first = next(one for one in masks["layers"] if one["ordinal"] == masks["emergence"]["ordinal"])
    said = list_emergence_findings(masks)
    assert len(said) == 3
    assert said[0].startswith(f"{first['name']} ({first['ordinal']}) is the first of 12 convolutions")
    assert said[1].startswith("Fine detail comes first: the share of energy above 8 cycles per image is")
    assert "greatest in part.2.main (2) (0.50)" in said[1]
    assert said[2] == (
        "Unit 2 of head (12) sees heads: 43 % of its activation lies in their boxes, which take 11 % of the "
        "area. Unit 2 of head (12) separates pet from background best (AUC 0.85)."
    )


def test_what_does_not_hold_is_not_said() -> None:
    masks = make_analysis()
    for n, one in enumerate(masks["layers"]):
        one |= {"head": None, "selective_units": [{"unit": 0, "auc": 0.55}], "high_frequency_share": 0.01 * n}
    (said,) = list_emergence_findings(masks)
    assert "is the first of 12" in said
    for one in masks["layers"]:
        one["iou"] = one["chance_iou"] + 0.01
    assert list_emergence_findings(masks) == []
    assert list_emergence_findings(masks | {"layers": []}) == []


def test_a_network_that_loses_the_mask_is_said_to() -> None:
    masks = make_analysis(False)
    masks["layers"][-1]["iou"] = 0.33
    assert list_emergence_findings(masks)[0] == (
        "The last convolution does not make the mask: head (12) agrees with it by an IoU of 0.33, where "
        "chance gives 0.31; the best is part.11.main (11), by 0.82 where chance gives 0.31."
    )


def test_a_unit_that_is_lower_on_the_pet_is_said_to_be() -> None:
    masks = make_analysis()
    masks["layers"][2]["selective_units"] = [{"unit": 7, "auc": 0.05}]
    assert list_emergence_findings(masks)[2].endswith(
        "Unit 7 of part.3.attention (3) separates pet from background best (AUC 0.05, lower on the pet)."
    )


def test_the_commonest_mistake_among_pixels(tmp_path: Path) -> None:
    folder = write_segmentation(tmp_path / "own")
    results = make_segmentation_results()
    said = list_findings(Results(folder))
    assert said == [
        "Most frequent confusion: pet → background (34 % of the misclassified pixels on 60 test images)."
    ]
