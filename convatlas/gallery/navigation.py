"""The navigation: menus of the site's pages, tabs of a network's pages, and the index of the search field."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convatlas.gallery.context import SitePage
from convatlas.gallery.explorer_data import ExplorerData, dump_script_json


@dataclass(frozen=True)
class NavigationLink:
    """A link of the navigation.

    Attributes:
        title: Its text.
        path: The page, from the site's root.
        current: The value of aria-current: "page" for the page itself, "true" for what the page belongs to,
            "" otherwise.
    """

    title: str
    path: str
    current: str = ""


@dataclass(frozen=True)
class Menu:
    """A menu of the navigation: a group of pages."""

    title: str
    links: Sequence[NavigationLink]

    @property
    def has_current(self) -> bool:
        """Return whether the current page is one of the group."""
        return any(link.current for link in self.links)


def list_menus(pages: Sequence[SitePage], current: SitePage) -> list[Menu]:
    """List the groups of pages, in the order of their first pages.

    Args:
        pages: All pages of the site.
        current: The page on which they are shown.
    """
    listed = [page for page in pages if page.group]
    titles = list(dict.fromkeys(page.group for page in listed))
    return [
        Menu(title or "", [_make_link(page, page.title, current) for page in listed if page.group == title])
        for title in titles
    ]


def list_tabs(pages: Sequence[SitePage], current: SitePage) -> list[NavigationLink]:
    """List the pages of the network that a page belongs to; of pages that share a tab, the first.

    Args:
        pages: All pages of the site.
        current: The page on which they are shown.
    """
    if current.network is None:
        return []
    own = [page for page in pages if page.network == current.network and page.tab]
    tabs = []
    for title in dict.fromkeys(page.tab for page in own):
        members = [page for page in own if page.tab == title]
        is_current = any(page.path == current.path for page in members)
        state = "" if not is_current else "page" if members[0].path == current.path else "true"
        tabs.append(NavigationLink(title or "", members[0].path, state))
    return tabs if len(tabs) > 1 else []


def list_subtabs(pages: Sequence[SitePage], current: SitePage) -> list[NavigationLink]:
    """List the pages of the tab that a page belongs to, where they have titles in it.

    Args:
        pages: All pages of the site.
        current: The page on which they are shown.
    """
    if current.subtab is None:
        return []
    return [
        NavigationLink(page.subtab, page.path, "page" if page.path == current.path else "")
        for page in pages
        if page.network == current.network and page.tab == current.tab and page.subtab is not None
    ]


def _make_link(page: SitePage, title: str, current: SitePage) -> NavigationLink:
    belongs = page.network is not None and page.network == current.network
    return NavigationLink(
        title, page.path, "page" if page.path == current.path else "true" if belongs else ""
    )


def render_search_index(pages: Sequence[SitePage], explorers: Mapping[str, ExplorerData]) -> str:
    """Render the script with what the search field finds: pages, and the layers of the explorers.

    Args:
        pages: All pages of the site.
        explorers: The data of each network's explorer, by the network's name.
    """
    index = {
        "pages": [
            [page.title, page.path, page.group or page.network or ""]
            for page in pages
            if page.path.endswith(".html")
        ],
        "layers": {name: list(explorer.slugs) for name, explorer in explorers.items()},
    }
    return f"window.convatlasSearchIndex = {dump_script_json(index)};\n"
