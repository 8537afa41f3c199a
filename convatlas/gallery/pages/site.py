"""The kinds of pages, a file each: from results/ to what a template shows. No torch here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convatlas.gallery.pages.network import NetworkData

FIGURE_KINDS = {
    "cover": "Frontispiece",
    "filters": "Filters",
    "maps": "Feature maps",
    "values": "Values",
    "pairs": "Filters beside their maps",
    "classical": "Classical features",
    "digits": "Digit by digit",
    "steps": "Step by step",
    "deconv": "What caused it",
    "strongest": "What excites a unit most",
    "curves": "Training curves",
    "confusion": "Confusion matrix",
    "segmentation": "Truth and prediction",
    "mask": "Where the mask appears",
}


@dataclass(frozen=True)
class GalleryContext:
    """A run as its pages show it: the config, every network, every data set."""

    results: Path
    data: Path
    config: dict[str, Any]
    networks: Sequence[NetworkData]
    datasets: dict[str, dict[str, Any]]  # name -> dataset.json


@dataclass(frozen=True)
class SitePage:
    """One page of the site: where it lies there, the template that makes it, and what of.

    `group` is the heading under which the navigation names it, by its `title`; None leaves it out.
    `files` are copied beside it: each place in the site, and the file or folder that goes there. `written`
    are texts and the bytes of pictures, by their places, written after them.
    """

    path: str
    template: str
    title: str
    context: dict[str, Any] = field(default_factory=dict)
    group: str | None = None
    files: dict[str, Path] = field(default_factory=dict)
    generated_files: dict[str, str | bytes] = field(default_factory=dict)

    @property
    def relative_root(self) -> str:
        """The way from the page to the site's top, so that every link is relative."""
        return "../" * self.path.count("/")
