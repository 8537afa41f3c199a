"""What all pages share: the run that they show, and the record of one page of the site."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from convatlas.analysis import registry
from convatlas.gallery.diagram_maps import DiagramMaps
from convatlas.gallery.explorer_data import ExplorerData
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.run_info import RunInfo
from convatlas.gallery.top_images import TopImages
from convatlas.pipeline.config_types import Config
from convatlas.records import DatasetDescription

NO_RUN_INFO = RunInfo(date="", commit="", machine="", durations=[])


@dataclass(frozen=True)
class GalleryContext:
    """A run as its pages show it.

    Attributes:
        results: The folder of the networks' folders.
        data: The folder of the data sets.
        config: The resolved config.
        networks: Every network, in the order of the config.
        datasets: dataset.json of each data set, by its name in the config.
        explorers: The data of each network's explorer, by the network's name; only of networks with sprites.
        top_images: The top-activating images of each network with statistics, by the network's name.
        diagram_maps: The maps in each network's diagrams, by the network's name; None without any.
        run: When, where and from which commit the gallery is built.
    """

    results: Path
    data: Path
    config: Mapping[str, Any]
    networks: Sequence[NetworkData]
    datasets: Mapping[str, DatasetDescription]
    explorers: Mapping[str, ExplorerData] = field(default_factory=dict)
    top_images: Mapping[str, TopImages] = field(default_factory=dict)
    diagram_maps: Mapping[str, DiagramMaps | None] = field(default_factory=dict)
    run: RunInfo = field(default_factory=lambda: NO_RUN_INFO)

    def get_previews_folder(self, dataset: str) -> Path:
        """Return the folder of a data set's previews, results/_datasets/<name>.

        Args:
            dataset: The data set's name in the config.
        """
        return self.results / "_datasets" / dataset

    def list_analysed(self, analysis: str) -> list[NetworkData]:
        """Return the networks of which the run computes an analysis: it is turned on, and lacks nothing.

        Args:
            analysis: Name of an entry of the registry.
        """
        config = cast(Config, self.config)
        entry = registry.BY_NAME[analysis]
        return [network for network in self.networks if registry.is_computed(config, network.name, entry)]

    @property
    def networks_with_masks(self) -> list[NetworkData]:
        """Return the networks whose segmentation was analysed."""
        return [network for network in self.networks if network.masks]


@dataclass(frozen=True)
class SitePage:
    """One page of the site.

    Attributes:
        path: Its place in the site.
        template: The template that renders it, without the suffix .j2.
        title: Its title in the navigation.
        context: The variables of the template.
        group: The menu that lists it; None for a page that no menu lists.
        network: The network that it shows; None for a page of several.
        tab: Its title among the pages of its network; several pages may share one.
        subtab: Its title among the pages of its tab; None where those need no navigation of their own.
        files: Files and folders to copy, by their places in the site.
        sheets: Sprite sheets to write as scripts, by their places in the site.
        generated_files: Texts and image bytes to write, by their places in the site; written after `files`.
    """

    path: str
    template: str
    title: str
    context: Mapping[str, Any] = field(default_factory=dict)
    group: str | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    sheets: Mapping[str, Path] = field(default_factory=dict)
    generated_files: Mapping[str, str | bytes] = field(default_factory=dict)
    network: str | None = None
    tab: str | None = None
    subtab: str | None = None

    @property
    def relative_root(self) -> str:
        """Return the relative path from the page's folder to the site's root."""
        return "../" * self.path.count("/")
