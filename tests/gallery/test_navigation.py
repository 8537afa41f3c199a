"""Menus, tabs and search, from the pages of a site."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from convatlas.gallery.context import SitePage
from convatlas.gallery.navigation import NavigationLink, list_menus, list_tabs, render_search_index
from tests.support.browser import needs_chromium
from tests.support.site import HOSTILE_TEXT, build_site, write_network

if TYPE_CHECKING:
    from playwright.sync_api import Browser

INDEX = SitePage("index.html", "index.html", "Contents")
OWN = SitePage("networks/own.html", "network.html", "own", group="Networks", network="own", tab="Overview")
LAYERS = SitePage("networks/own-layers.html", "layers.html", "own: layers", network="own", tab="Layers")
FIGURES = SitePage("networks/own-layers-2.html", "figures.html", "own: 2", network="own", tab="Layers")
OTHER = SitePage(
    "networks/other.html", "network.html", "other", group="Networks", network="other", tab="Overview"
)
PRIMER = SitePage("primer.html", "primer.html", "Primer", group="Help")
PAGES = [INDEX, OWN, OTHER, LAYERS, FIGURES, PRIMER]


def test_menus_hold_the_listed_pages_and_mark_the_current_one() -> None:
    networks, help_menu = list_menus(PAGES, OWN)
    assert (networks.title, help_menu.title) == ("Networks", "Help")
    assert [(link.title, link.current) for link in networks.links] == [("own", "page"), ("other", "")]
    assert networks.has_current and not help_menu.has_current


def test_a_page_of_a_network_belongs_to_it() -> None:
    networks, _ = list_menus(PAGES, FIGURES)
    assert [link.current for link in networks.links] == ["true", ""]


def test_tabs_are_the_pages_of_the_network() -> None:
    assert list_tabs(PAGES, LAYERS) == [
        NavigationLink("Overview", "networks/own.html"),
        NavigationLink("Layers", "networks/own-layers.html", "page"),
    ]
    assert list_tabs(PAGES, FIGURES)[1].current == "true"
    assert list_tabs(PAGES, OTHER) == []  # a single page needs none
    assert list_tabs(PAGES, PRIMER) == []


def test_the_search_index_holds_pages_and_layers_as_data() -> None:
    explorers: Any = {"own": SimpleNamespace(slugs={"conv1": "conv1", HOSTILE_TEXT: "x"})}
    script = render_search_index(PAGES, explorers)
    assert "</script" not in script
    index = json.loads(script.removeprefix("window.convatlasSearchIndex = ").removesuffix(";\n"))
    assert ["own: layers", "networks/own-layers.html", "own"] in index["pages"]
    assert index["layers"] == {"own": ["conv1", HOSTILE_TEXT]}


@needs_chromium
def test_pages_and_layers_are_found_from_any_page(tmp_path: Path, browser: "Browser") -> None:
    write_network(tmp_path, "own")
    site = build_site(tmp_path, "own")
    page = browser.new_page()
    page.goto((site / "networks/own-layers.html").as_uri())
    page.keyboard.press("/")
    page.keyboard.type("provenance")
    page.get_by_role("option").first.wait_for()
    page.keyboard.press("Enter")
    page.wait_for_url("**/provenance.html")
    page.get_by_role("combobox", name="Find a page or layer").fill("nothing of this name")
    assert page.get_by_role("option").all_inner_texts() == ["Nothing found"]
    page.keyboard.press("Escape")
    assert not page.get_by_role("listbox").count()
    page.locator("summary", has_text="Networks").click()
    assert page.locator(".menu a:visible").all_inner_texts() == ["own"]
    page.keyboard.press("Escape")
    assert not page.locator(".menu a:visible").count()
    page.close()
