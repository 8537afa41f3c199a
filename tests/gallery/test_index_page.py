"""The first page: the table of networks, which stands for the cards of many."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from convatlas.gallery.pages.index import MAX_CARDS
from convatlas.gallery.selective_units import list_activation_statistics
from tests.support.browser import needs_chromium
from tests.support.fake_results import VIEWS
from tests.support.site import CONFIG, build_site, open_page, write_network

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = [f"network{n}" for n in range(MAX_CARDS + 1)]


def test_dead_units_are_those_of_activation_layers() -> None:
    """A pooling layer repeats those of the activation before it."""
    dead = {"relu1": [0], "pool1": [0], "relu2": []}
    units = {"relu1": 2, "pool1": 2, "relu2": 3}
    summary: Any = {"layers": [{"name": n, "units": units[n], "dead": dead[n]} for n in dead]}
    kinds = {"relu1": "activation", "pool1": "pool", "relu2": "activation"}
    layers: Any = [{"name": name, "kind": kind} for name, kind in kinds.items()]
    activations = list_activation_statistics(layers, summary)
    assert [layer["name"] for layer in activations] == ["relu1", "relu2"]
    assert sum(len(layer["dead"]) for layer in activations) == 1
    assert sum(layer["units"] for layer in activations) == 5


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    for name in NAMES:
        write_network(folder, name)
    networks = {name: {"views": VIEWS} for name in NAMES}
    return build_site(folder, *NAMES, config=CONFIG | {"networks": networks})


@needs_chromium
def test_many_networks_are_a_table_from_which_two_are_compared(site: Path, browser: "Browser") -> None:
    page, errors = open_page(browser, site, "index.html", 360)
    assert page.locator(".card").count() == 0
    assert page.locator("tbody th").all_inner_texts() == NAMES
    page.get_by_role("columnheader", name="network").get_by_role("button").click()
    page.get_by_role("columnheader", name="network").get_by_role("button").click()
    assert page.locator("tbody th").all_inner_texts() == NAMES[::-1]
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert errors == []
    page.context.close()
