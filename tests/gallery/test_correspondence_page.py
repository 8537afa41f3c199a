"""The page of a network's correspondence: the table, the chart, the occluded images, and the finding."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

from convatlas.files import write_json, write_npz
from convatlas.gallery import build
from convatlas.gallery.pages import analyses, correspondence
from tests.support.browser import needs_chromium
from tests.support.fake_results import VIEWS, make_results
from tests.support.site import CONFIG, PageParser, build_site, open_page, write_network

if TYPE_CHECKING:
    from playwright.sync_api import Browser

DATASETS = {"pets": {"format": "oxford-iiit-pet"}}
SECTION = {"views": VIEWS | {"correspondence": {}}, "dataset": "pets", "input": {}}
ANALYSED: dict[str, Any] = CONFIG | {"networks": {"own": SECTION, "other": SECTION}}


def write_correspondence(folder: Path, p_value: float, **changes: Any) -> dict[str, np.ndarray]:
    """Write correspondence/ of a network, and return its arrays."""
    random = np.random.default_rng(0)
    image = make_results().images[0]
    arrays: dict[str, np.ndarray] = {"images": random.integers(0, 256, (3, 2, 3, 8, 6)).astype(np.uint8)}
    for layer in ("conv1", "fc"):
        arrays[f"{layer}@part"] = random.uniform(0.1, 0.2, 3).astype(np.float32)
        arrays[f"{layer}@random"] = random.uniform(0.3, 0.4, (3, 19)).astype(np.float32)
        arrays[f"{layer}@moved"] = random.uniform(0.3, 0.4, (3, 19)).astype(np.float32)
        arrays[f"{layer}@moved"][1] = np.nan
    changed = {"part": 0.25, "random": 0.2, "moved": 0.2}
    layers = [
        {"name": name, "shape": [4], "changed": changed, "p_value": p, "moved_p_value": 0.05}
        for name, p in (("conv1", 0.4), ("fc", p_value))
    ]
    entry = {"image": image | {"name": "test-00003", "index": 3}, "box": [0, 0, 3, 3], "random": [4, 2, 3, 3]}
    analysis = {
        "undefined": None,
        "part": "head",
        "split": "test",
        "classes": [],
        "sets": [[entry, entry | {"image": image}]] * 3,
        "draws": 19,
        "area": 0.2,
        "moved_sets": 2,
        "layers": layers,
        "significance": 0.05,
        "non_finite": [],
    }
    write_json(folder / "correspondence/correspondence.json", analysis | changes)
    write_npz(folder / "correspondence/correspondence.npz", arrays)
    return arrays


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    for name in ("own", "other"):
        write_network(folder, name)
    write_correspondence(folder / "results/own", 0.05)
    write_correspondence(folder / "results/other", 0.06)
    config = ANALYSED | {"datasets": CONFIG["datasets"] | DATASETS}
    write_json(folder / "data/pets/dataset.json", {"title": "Pets", "format": "oxford-iiit-pet"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "PAGE_MAKERS", [analyses.make_pages, correspondence.make_pages])
        return build_site(folder, "own", "other", config=config)


def test_the_table_has_the_means_over_the_sets_and_the_finding_names_what_is_significant(site: Path) -> None:
    arrays = write_correspondence(site.parent / "results/own", 0.05)
    text = PageParser(site / "networks/own-correspondence.html").text
    for layer in ("conv1", "fc"):
        part, random = arrays[f"{layer}@part"].astype(float), arrays[f"{layer}@random"].astype(float)
        moved = arrays[f"{layer}@moved"].astype(float)
        low, high = np.quantile(random.mean(0), [0.025, 0.975])
        assert f"{part.mean():.3f} ± {part.std(ddof=1):.3f}" in text
        assert f"{random.mean():.3f}, {low:.3f}–{high:.3f}" in text
        assert f"{(moved[[0, 2]].mean(1) - part[[0, 2]]).mean():+.3f}" in text
    part, random = arrays["fc@part"].mean(dtype=float), arrays["fc@random"].mean(dtype=float)
    finding = (
        "In fc features change more similarly as the head is occluded than as other places are: most in the "
        f"layer fc, with a sign distance of {part:.3f} against {random:.3f}."
    )
    assert finding in " ".join(text.split())
    assert finding in " ".join(PageParser(site / "networks/own-analyses.html").text.split())
    assert (
        "In no layer do features change more similarly"
        in PageParser(site / "networks/other-correspondence.html").text
    )


@needs_chromium
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_is_readable_and_accessible(browser: "Browser", site: Path, width: int) -> None:
    page, errors = open_page(browser, site, "networks/own-correspondence.html", width)
    assert errors == []
    assert Axe().run(page).violations_count == 0
    main = page.locator("main").evaluate("main => main.scrollWidth")
    assert main <= width
