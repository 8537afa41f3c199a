"""The page of a network's concepts, and the names of units in its tables and in the explorer."""

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

from convatlas.files import write_json, write_npz
from convatlas.gallery import build
from convatlas.gallery.concept_pictures import UNIT_COLOUR, enlarge, find_outline, render_example
from convatlas.gallery.explorer_sprites import draw_explorer
from convatlas.gallery.pages.concepts import summarise
from tests.support.browser import needs_chromium
from tests.support.explorer_site import SETTINGS, open_address
from tests.support.fake_results import VIEWS
from tests.support.fake_statistics import K, write_network_with_statistics
from tests.support.site import CONFIG, RUN, PageParser, open_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser

LAYER, N_UNITS = "conv1", 6
REGION, KIND = 2, 4  # units that are named by the pet and by both pet, low, and boxer


def make_concept(name: str, kind: str, group: str, units: int, **fields: Any) -> dict[str, Any]:
    entry = {"name": name, "type": kind, "group": group, "train": 20, "test": 20, "share": 0.3}
    return {**entry, "tested": True, "units": units, **fields}


def make_analysis(**changes: Any) -> dict[str, Any]:
    """Return concepts.json of six units of conv1."""
    image = {"index": 7, "name": "boxer_3", "label": "dog", "value": 1.5, "shows": True}
    return {
        "undefined": None,
        "images": {"train": 40, "test": 30},
        "grid": [8, 6],
        "image_value": "mean",
        "test": {
            "significance": 0.05, "min_auc_effect": 0.1, "confidence": 0.95, "permutations": 999,
            "resamples": 1000, "families": 2, "min_examples": 3,
        },
        "concepts": [
            make_concept("pet", "region", "mask", 2),
            make_concept("head", "region", "head", 0, test=0, share=None, tested=False),
            make_concept("boxer", "image", "breed", 1),
        ],
        "layers": [{"name": LAYER, "units": N_UNITS, "regions": 2, "kinds": 1, "excluded": [5]}],
        "examples": [
            {"layer": LAYER, "unit": REGION, "concept": 0, "images": [image]},
            {"layer": LAYER, "unit": KIND, "concept": 2, "images": [{**image, "shows": False}]},
        ],
        **changes,
    }  # fmt: skip


def make_arrays() -> dict[str, np.ndarray]:
    """Return concepts.npz: unit 2 is high on the pet, unit 4 low on it and higher on boxers."""
    arrays: dict[str, np.ndarray] = {}
    for prefix, named, concept, aucs in (
        ("region", [REGION, KIND], 0, {REGION: 0.91, KIND: 0.3}),
        ("image", [KIND], 2, {KIND: 0.95}),
    ):
        auc = np.array([aucs.get(unit, 0.52) for unit in range(N_UNITS)])
        is_named = np.isin(np.arange(N_UNITS), named)
        values = {
            "concept": np.full(N_UNITS, concept), "is_high": auc > 0.5, "is_named": is_named, "auc": auc,
            "low": auc - 0.02, "high": auc + 0.03, "p": np.where(is_named, 0.002, 0.8), "train_auc": auc,
            **{f"chance_{key}": np.full(N_UNITS, 0.5) for key in ("mean", "low", "high")},
            "iou": np.full(N_UNITS, 0.4), "iou_ceiling": np.full(N_UNITS, 0.8),
        }  # fmt: skip
        arrays |= {f"{LAYER}@{prefix}_{key}": value.astype(np.float32) for key, value in values.items()}
    return arrays


def write_concepts(folder: Path, analysis: dict[str, Any]) -> None:
    write_json(folder / "concepts/concepts.json", analysis)
    if analysis["undefined"]:
        return
    write_npz(folder / "concepts/concepts.npz", make_arrays())
    photograph = np.random.default_rng(0).integers(0, 256, (1, 8, 6, 3)).astype(np.uint8)
    mask = np.zeros((1, 8, 6), np.uint8)
    mask[:, 2:6, 1:4] = 1
    masks = {"0@active": mask, "0@regions": mask}
    write_npz(
        folder / "concepts/examples.npz", {"0@photographs": photograph, "1@photographs": photograph, **masks}
    )


def build_site(folder: Path, views: dict[str, Any], analysis: dict[str, Any]) -> Path:
    """Build the gallery of a network with statistics, an explorer and concepts."""
    network = write_network_with_statistics(folder)
    draw_explorer(network.network_folder, "own", SETTINGS | {"has_top_activations": True})
    write_concepts(network.network_folder, analysis)
    settings = {"dataset": "animals", "input": {}, "views": VIEWS | {"strongest": {"k": K}} | views}
    config = CONFIG | {"networks": {"own": settings}}
    build.build_gallery(folder / "site", folder / "results", folder / "data", ["own"], config, RUN)
    return folder / "site"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_site(tmp_path_factory.mktemp("concepts"), {"concepts": {}}, make_analysis())


def get_text(path: Path) -> str:
    return " ".join(PageParser(path).text.split())


def list_rows(path: Path) -> list[str]:
    """Return the rows of the units of conv1 in the table of all units."""
    rows = [line.strip() for line in path.read_text("utf-8").splitlines()]
    return [row for row in rows if row.startswith(f"<tr><td>{LAYER}</td>")]


def test_units_are_grouped_by_concept(site: Path) -> None:
    text = get_text(site / "networks/own-concepts.html")
    assert "Of 6 units, 2 separate a region of the images and 1 a kind of image, better than chance" in text
    assert "conv1, unit 2: AUC 0.91 [0.89, 0.94], chance 0.50 [0.50, 0.50], IoU 0.40 of at most 0.80" in text
    assert "conv1, unit 4: AUC 0.95 [0.93, 0.98], chance 0.50 [0.50, 0.50]" in text
    assert "not boxer" in text
    assert "Not tested: head, as no test image has a head box" in text
    assert "1 of 6 units of conv1" in text


def test_units_at_chance_have_no_concept(site: Path) -> None:
    rows = list_rows(site / "networks/own-concepts.html")
    assert len(rows) == N_UNITS
    for unit, row in enumerate(rows):
        assert row.count("<td>none</td>") == {REGION: 1, KIND: 0}.get(unit, 2)
        assert ("<td>pet</td>" in row) == (unit in (REGION, KIND))
        assert "0.52" not in row


def test_the_tables_of_units_name_them_by_the_concept_that_they_separate_best(site: Path) -> None:
    rows = list_rows(site / "networks/own-unit-table.html")
    assert "<td>pet</td>" in rows[REGION]
    assert "<td>boxer</td>" in rows[KIND]
    assert "pet" not in rows[0]
    units = get_text(site / "networks/own-units.html")
    assert "2 units separate a concept better than chance" in units


def test_names_are_left_out_where_the_analysis_is_off(tmp_path: Path) -> None:
    site = build_site(tmp_path, {"concepts": None}, make_analysis())
    assert not (site / "networks/own-concepts.html").exists()
    assert "separates" not in (site / "networks/own-unit-table.html").read_text()
    assert "Named units" not in (site / "networks/own-units.html").read_text()


def test_a_network_without_concepts_says_why(tmp_path: Path) -> None:
    reason = "its data set has neither masks nor several classes: set another `dataset`"
    site = build_site(tmp_path, {"concepts": {}}, make_analysis(undefined=reason))
    assert f"No units are named: {reason}." in get_text(site / "networks/own-concepts.html")


# The pictures


def test_the_outline_of_a_mask_lies_inside_it() -> None:
    mask = np.zeros((12, 12), bool)
    mask[3:11, 2:10] = True
    inner = np.zeros_like(mask)
    inner[5:9, 4:8] = True
    np.testing.assert_array_equal(find_outline(mask), mask & ~inner)
    assert not find_outline(np.ones((5, 5), bool)).any()


def test_masks_are_enlarged_by_nearest_neighbour() -> None:
    mask = np.array([[True, False]])
    np.testing.assert_array_equal(enlarge(mask, (2, 4)), [[True, True, False, False]] * 2)


def test_a_picture_keeps_the_shape_of_its_image() -> None:
    photograph = np.full((40, 20, 3), 90, np.uint8)
    _, size = render_example(photograph, np.zeros((4, 2), bool), np.zeros((4, 2), bool))
    assert size == (80, 160)
    assert max(UNIT_COLOUR) == 255


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible(browser: "Browser", site: Path, scheme: str) -> None:
    page, errors = open_page(browser, site, "networks/own-concepts.html", 360, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert not errors
    assert Axe().run(page).violations_count == 0


@needs_chromium
def test_the_panel_of_a_unit_says_what_it_separates(browser: "Browser", site: Path) -> None:
    texts = {
        REGION: "Separates: pet, AUC 0.91 [0.89, 0.94].",
        KIND: "Separates: images: boxer, AUC 0.95 [0.93, 0.98]; low on pet, AUC 0.30 [0.28, 0.33].",
        0: "No concept separated.",
    }
    for unit, text in texts.items():
        page, errors = open_address(browser, site, f"networks/own.html#layer={LAYER}&unit={unit}")
        assert text in page.locator("body").inner_text()
        assert not errors


@needs_chromium
def test_the_units_of_a_concept_link_to_the_table_of_all_units(browser: "Browser", site: Path) -> None:
    page, _ = open_page(browser, site, "networks/own-concepts.html")
    page.get_by_role("link", name="2 units").click()
    page.wait_for_timeout(100)
    rows = page.locator("table[data-source] tbody tr")
    assert rows.count() == 2
    assert all("pet" in text for text in rows.all_inner_texts())


def test_a_summary_names_the_types_that_were_tested() -> None:
    analysis = make_analysis(concepts=[make_concept("3", "image", "class", 1)])
    network: Any = SimpleNamespace(results=SimpleNamespace(concepts=analysis))
    assert (
        summarise(network) == "Of 6 units, 1 separates a kind of image, better than chance on 30 test images."
    )
