"""The pages of a network's attribution maps, and the page that compares two maps of a method."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from convatlas.gallery.attribution_data import (
    AttributionReader,
    ImageMaps,
    MapTile,
    TargetMaps,
    choose_method,
)
from convatlas.gallery.attribution_specificity import describe_low_specificity, list_specificity
from convatlas.gallery.attribution_text import link_papers
from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.explorer_data import dump_script_json
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.value_grid import RDBU, VIRIDIS

MAX_TILES_PER_PAGE = 60  # with some 40 elements each, half of the elements that a page may have
RAMPS = {"diverging": RDBU, "viridis": VIRIDIS}


@dataclass(frozen=True)
class AttributionPage:
    """A page for some of a network's sample images: its file in networks/, and the images.

    An image with many maps is divided between pages by its target classes.
    """

    file: str
    images: Sequence[ImageMaps]

    @property
    def title(self) -> str:
        """Return the first and the last image, with their first and last classes."""
        first, last = self.images[0], self.images[-1]
        names = [f"{first.name}, {first.targets[0].name}" if first.targets else first.name]
        names += [f"{last.name}, {last.targets[-1].name}" if last.targets else last.name]
        return " to ".join(dict.fromkeys(names))


@dataclass(frozen=True)
class NetworkMaps:
    """The maps of a network, and its pages."""

    network: NetworkData
    reader: AttributionReader
    pages: Sequence[AttributionPage]

    @property
    def first_image(self) -> ImageMaps | None:
        """Return the first image that has maps."""
        return next((image for page in self.pages for image in page.images if image.n_tiles), None)


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the pages of each network with attribution maps, and the page that compares them.

    Args:
        context: The run that the site shows.
    """
    entries = [read_maps(network) for network in context.networks if has_attribution(context, network)]
    for entry in entries:
        name = entry.network.name
        titles = {method["name"]: method["title"] for method in entry.reader.analysis["methods"]}
        specificity = list_specificity(entry.reader.analysis["specificity"], titles)
        values = {
            "network": entry.network,
            "reader": entry.reader,
            "methods": entry.reader.describe_methods(),
            "specificity": specificity,
            "low_specificity": describe_low_specificity(specificity),
            "attribution_pages": entry.pages,
            "ramps": RAMPS,
            "link_papers": link_papers,
        }
        for number, page in enumerate(entry.pages):
            pictures: Mapping[str, bytes] = {} if number else entry.reader.pictures
            title = f"{name}: attribution"
            page_values = {**values, "attribution_page": page}
            path = f"networks/{page.file}"
            yield SitePage(
                path,
                "attribution.html",
                title,
                page_values,
                generated_files=pictures,
                network=name,
                tab="Attribution",
            )
    shown = [entry for entry in entries if entry.first_image]
    if shown:
        values = {"entries": shown, "ramps": RAMPS, "page_json": dump_script_json(describe_maps(shown))}
        yield SitePage("attribution.html", "compare_attribution.html", "Attribution", values, "Analyses")


def has_attribution(context: GalleryContext, network: NetworkData) -> bool:
    """Return whether the config asks for attribution maps of a network, and there are some.

    Args:
        context: The run that the site shows.
        network: A network of the run.
    """
    views = context.config["networks"][network.name]["views"]
    return views.get("attribution") is not None and network.results.attribution is not None


def read_maps(network: NetworkData) -> NetworkMaps:
    """Read the maps of a network, and divide its images between pages.

    Args:
        network: A network with attribution maps.
    """
    analysis = network.results.attribution
    assert analysis is not None
    reader = AttributionReader(network, analysis)
    images = [
        part
        for image in network.images
        if image["name"] in analysis["images"]
        for part in _split_image(reader.read_image(image))
    ]
    groups: list[list[ImageMaps]] = [[]]
    for image in images:
        if groups[-1] and sum(other.n_tiles for other in groups[-1]) + image.n_tiles > MAX_TILES_PER_PAGE:
            groups.append([])
        groups[-1].append(image)
    pages = [
        AttributionPage(format_page_name(network.name, number), group)
        for number, group in enumerate(groups, 1)
    ]
    return NetworkMaps(network, reader, pages)


def _split_image(image: ImageMaps) -> list[ImageMaps]:
    """Divide an image with more maps than a page may have by its target classes."""
    parts: list[list[TargetMaps]] = [[]]
    for target in image.targets:
        n_tiles = sum(len(other.tiles) for other in parts[-1])
        if parts[-1] and n_tiles + len(target.tiles) > MAX_TILES_PER_PAGE:
            parts.append([])
        parts[-1].append(target)
    return [replace(image, targets=targets) for targets in parts]


def format_page_name(network: str, number: int = 1) -> str:
    """Return the file in networks/ of a network's page of attribution maps.

    Args:
        network: Name of the network.
        number: The page's number, from 1.
    """
    return f"{network}-attribution{f'-{number}' if number > 1 else ''}.html"


# The comparison


def describe_maps(entries: Sequence[NetworkMaps]) -> dict[str, Any]:
    """Describe every map for the script of the comparison.

    Args:
        entries: The networks with maps.

    Returns:
        The methods by key, with title; the key of the one that is shown first; and the networks with their
        images, targets and maps by method.
    """
    first_method = choose_method(entries[0].reader.analysis)
    first_tiles = entries[0].first_image.targets[0].tiles if entries[0].first_image else []
    methods = {
        tile.key: " ".join([tile.method["title"], *tile.key.partition(":")[2:]]).strip()
        for entry in entries
        for page in entry.pages
        for image in page.images
        for target in image.targets
        for tile in target.tiles
    }
    keys = [tile.key for tile in first_tiles if tile.method is first_method] or list(methods)
    return {
        "methods": methods,
        "method": keys[0],
        "networks": [_describe_network(entry) for entry in entries],
    }


def _describe_network(entry: NetworkMaps) -> dict[str, Any]:
    """Describe a network's maps for the script of the comparison."""
    images: dict[str, dict[str, Any]] = {}
    for page in entry.pages:
        for image in page.images:
            if not image.n_tiles:
                continue
            fields = {key: getattr(image, key) for key in ("name", "title", "label", "file", "size")}
            description = images.setdefault(image.name, {**fields, "targets": []})
            description["targets"] += [
                {
                    "number": target.number,
                    "name": target.name,
                    "score": target.score,
                    "page": f"networks/{page.file}",
                    "anchor": f"image-{image.name}",
                    "maps": {tile.key: _describe_tile(tile) for tile in target.tiles},
                }
                for target in image.targets
                if target.tiles
            ]
    return {"name": entry.network.name, "images": list(images.values())}


def _describe_tile(tile: MapTile) -> dict[str, Any]:
    """Describe a map for the script of the comparison."""
    areas = [
        f"{area.label} AUC {area.auc:.3f}"
        + (f" (random order {area.random_auc:.3f})" if area.random_auc is not None else "")
        for area in tile.areas
    ]
    return {
        "file": tile.file,
        "size": tile.size,
        "alt": tile.alt,
        "ramp": "diverging" if tile.scale.is_signed else "viridis",
        "end": tile.scale.colours.high,
        "ticks": tile.scale.ticks,
        "facts": [*tile.facts, *areas],
        "layer": tile.layer,
    }
