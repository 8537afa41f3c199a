"""The lectures: for each network of images a full-screen path through its layers on one image."""

from collections.abc import Iterator

from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.lecture.slides import LectureBuilder


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the lecture of each network that takes images, and scripts with its slides on other images.

    Args:
        context: The run that the site shows.
    """
    for network in context.networks:
        if not network.takes_images:
            continue
        explorer = context.explorers.get(network.name)
        layers = set(explorer.slugs) if explorer else set()
        for number, image in enumerate(network.images):
            lecture = LectureBuilder(network, image, explorer).build()
            path = f"networks/{network.name}-lecture.html"
            script = f"lecture/{network.name}/{image['name']}.js"
            values = {"network": network, "lecture": lecture, "explored_layers": layers, "root": "../"}
            yield SitePage(
                path if number == 0 else script,
                "lecture.html" if number == 0 else "lecture_image.js",
                f"{network.name}: lecture",
                values,
                generated_files=lecture.files,
                network=network.name,
                tab="Lecture" if number == 0 else None,
            )
