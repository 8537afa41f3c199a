"""The lectures: for each network of images a full-screen path through its layers on one image."""

from collections.abc import Iterator

from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.lecture.slides import LectureBuilder
from convatlas.gallery.network_data import NetworkData


def format_page_name(network: str) -> str:
    """Return the name of the page of a network's lecture.

    Args:
        network: Name of the network.
    """
    return f"{network}-lecture.html"


def has_lecture(network: NetworkData) -> bool:
    """Return whether a network has a lecture: whether it takes images.

    Args:
        network: The network.
    """
    return network.takes_images


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the lecture of each network that takes images, and scripts with its slides on other images.

    Args:
        context: The run that the site shows.
    """
    for network in filter(has_lecture, context.networks):
        explorer = context.explorers.get(network.name)
        layers = set(explorer.slugs) if explorer else set()
        for number, image in enumerate(network.images):
            lecture = LectureBuilder(network, image, explorer).build()
            path = f"networks/{format_page_name(network.name)}"
            script = f"lecture/{network.name}/{image['name']}.js"
            values = {"network": network, "lecture": lecture, "explored_layers": layers, "root": "../"}
            yield SitePage(
                path if number == 0 else script,
                "lecture.html" if number == 0 else "lecture_image.js",
                f"{network.name}, lecture",
                values,
                generated_files=lecture.files,
            )
