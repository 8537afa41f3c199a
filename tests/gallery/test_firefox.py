"""The pages in Debian's Firefox: the explorer's colours are exact there too, and nothing is amiss."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.gallery.test_build import write
from tests.gallery.test_explorer import LEVELS, OWN, assert_shows, built, ends, fitted, sprites
from tests.support.fake_results import make_results
from tests.support.firefox import Firefox, needs_firefox

pytestmark = needs_firefox

STILL = "!document.querySelector('[aria-busy]') && document.querySelector('.map[aria-label]')"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explored")
    write(folder, "own", fitted(make_results()))
    sprites(folder, "own")
    return built(folder, "own")


@pytest.fixture(scope="module")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    browser = Firefox(tmp_path_factory.mktemp("firefox") / "profile")
    yield browser
    browser.close()


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", [OWN, "networks/own-layers.html", "compare.html"])
def test_a_page_is_whole_and_fits(firefox: Firefox, site: Path, name: str, width: int) -> None:
    firefox.open((site / name).as_uri(), width)
    assert firefox.evaluate("document.documentElement.scrollWidth") <= width
    broken = "[...document.images].filter(i => i.src && i.complete && !i.naturalWidth).map(i => i.src)"
    assert firefox.evaluate(broken) == []
    assert firefox.faults == []


@pytest.mark.parametrize("layer", ["conv1", "relu"])
def test_a_pixel_has_the_colour_of_its_value(firefox: Firefox, site: Path, layer: str) -> None:
    outputs = make_results().activations
    address = f"{(site / OWN).as_uri()}#layer={layer}&unit=1&image=second&scale=layer"
    firefox.open("about:blank")
    firefox.open(address)
    firefox.wait_for(STILL)
    firefox.evaluate("document.querySelector('.map').scrollIntoView({block: 'center'})")
    where = firefox.evaluate("document.querySelector('.map').getBoundingClientRect().toJSON()")
    screen = firefox.screen()
    values = outputs["second"][layer][1]
    rows, columns = (
        np.round(where[start] + (np.arange(n) + 0.5) * where[size] / n - 0.5).astype(int)
        for start, size, n in (("y", "height", values.shape[0]), ("x", "width", values.shape[1]))
    )
    table = "diverging" if layer == "conv1" else "viridis"
    scale = ends(np.stack([o[layer] for o in outputs.values()]), table)
    step = float(np.ptp(values)) / (LEVELS - 1)
    assert_shows(screen[np.ix_(rows, columns)], values, scale, table, step)
    assert firefox.faults == []
