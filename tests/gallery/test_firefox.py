"""The pages in Debian's Firefox: the explorer's colours are exact there too, and nothing is amiss."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.explorer_site import (
    LEVELS,
    assert_colours,
    build_explorer_site,
    complete_layers,
    draw_sprites,
    scale_limits,
)
from tests.support.fake_results import make_results
from tests.support.firefox import Firefox, needs_firefox
from tests.support.site import write_network

pytestmark = needs_firefox

STILL = "!document.querySelector('[aria-busy]') && document.querySelector('.map[aria-label]')"

OWN = "networks/own.html"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explored")
    write_network(folder, "own", complete_layers(make_results()))
    draw_sprites(folder, "own")
    return build_explorer_site(folder, "own")


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
    scale = scale_limits(np.stack([o[layer] for o in outputs.values()]), table)
    step = float(np.ptp(values)) / (LEVELS - 1)
    assert_colours(screen[np.ix_(rows, columns)], values, scale, table, step)
    assert firefox.faults == []
