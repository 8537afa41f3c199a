"""The first page: the table of networks, which stands for the cards of many."""

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from convatlas.gallery.pages.index import MAX_CARDS, count_dead_units
from tests.support.browser import needs_chromium
from tests.support.fake_results import VIEWS
from tests.support.site import CONFIG, build_site, open_page, write_network

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = [f"network{n}" for n in range(MAX_CARDS + 1)]


def test_dead_units_are_those_of_activation_layers() -> None:
    """A pooling layer repeats those of the activation before it."""
    masks = {"relu1": [True, False], "pool1": [True, False], "relu2": [False] * 3}
    network: Any = SimpleNamespace(
        layers=[
            {"name": "relu1", "kind": "activation"},
            {"name": "pool1", "kind": "pool"},
            {"name": "relu2", "kind": "activation"},
        ],
        results=SimpleNamespace(
            statistics={f"{name}@dead": np.array(mask) for name, mask in masks.items()} | {"relu1@max": 1}
        ),
    )
    assert count_dead_units(network) == (1, 5)


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
