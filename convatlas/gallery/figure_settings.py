"""What made a figure: the part of the config that matters for it, and the code that loads its arrays."""

import json
from collections.abc import Mapping
from typing import Any, TypedDict

import yaml

from convatlas.gallery.local_paths import hide_local_paths
from convatlas.gallery.network_data import NetworkData
from convatlas.records import Figure


class AttributionMap(TypedDict):
    """An attribution map of a page, as a figure."""

    kind: str  # "attribution"
    subject: str  # the image
    member: str  # of the image's arrays


AnyFigure = Figure | AttributionMap

NETWORK_KEYS = {  # keys of a network's section of the config, by the kind of figure
    "curves": ("dataset", "training"),
    "confusion": ("dataset", "training"),
    "segmentation": ("dataset", "training"),
    "mask": ("dataset",),
    "strongest": ("dataset",),
    "relevance": ("dataset",),
    "filters": ("weights", "training"),
}
VIEW_KEYS = {  # keys of `views`
    "cover": ("deconv", "scale"),
    "filters": ("layers", "n_filters", "scale"),
    "maps": ("layers", "n_images", "n_filters", "scale", "match"),
    "values": ("layers", "n_images"),
    "pairs": ("layers", "n_images", "n_filters", "scale"),
    "classical": ("n_images", "match"),
    "digits": ("n_filters", "scale", "deconv"),
    "steps": ("deconv",),
    "deconv": ("n_filters", "scale", "deconv"),
    "strongest": ("strongest",),
    "relevance": ("strongest",),
    "segmentation": ("masks",),
    "mask": ("masks", "remark"),
    "attribution": ("attribution",),
}


class FigureSettings:
    """The settings of figures as YAML, written once for each kind of figure of a network.

    Args:
        config: The resolved config.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._texts: dict[tuple[str, str], str] = {}

    def describe(self, network: str, figure: AnyFigure) -> str:
        """Return the part of the resolved config that a figure depends on.

        Args:
            network: Name of the network.
            figure: Its entry in figures.json, or an attribution map.
        """
        key = network, figure["kind"]
        if key not in self._texts:
            self._texts[key] = self._format(network, figure["kind"])
        return self._texts[key]

    def _format(self, network: str, kind: str) -> str:
        section = self._config["networks"][network]
        views = section["views"]
        names = ("architecture", *NETWORK_KEYS.get(kind, ("images",)))
        settings = {name: section[name] for name in names if name in section}
        settings["views"] = {name: views[name] for name in VIEW_KEYS.get(kind, ()) if name in views}
        settings = {name: value for name, value in settings.items() if value not in ({}, None)}
        value = {"seed": self._config["seed"], "networks": {network: settings}}
        plain = hide_local_paths(json.loads(json.dumps(value, default=str)))  # without aliases in the YAML
        return yaml.safe_dump(
            plain, sort_keys=False, allow_unicode=True, default_flow_style=None, width=88
        ).strip()


def format_loading_code(network: NetworkData, figure: AnyFigure) -> list[str]:
    """Return the lines of Python that load the arrays of a figure, run beside results/.

    Args:
        network: The network.
        figure: Its entry in figures.json, or an attribution map.
    """
    kind, subject = figure["kind"], figure["subject"]
    first_image = network.images[0]["name"] if network.images else ""
    is_image = any(image["name"] == subject for image in network.images)
    image = subject if is_image else first_image
    modules = {layer["name"]: layer["module"] for layer in network.layers}
    filters = f"filters[{_quote(modules.get(subject, subject))}]"
    activations = f"activations({_quote(image)})[{_quote(subject)}]"
    projections = f"projections({_quote(image)})"
    members = {
        "cover": [projections],
        "filters": [filters],
        "maps": [activations],
        "values": [activations],
        "pairs": [filters, activations],
        "classical": [f"classical({_quote(image)})"],
        "digits": [projections],
        "steps": ["step_signals"],
        "deconv": [projections],
        "strongest": [f"statistics[{_quote(f'{subject}@images')}]"],
        "relevance": [f"top_activations[{_quote(f'{subject}@relevance')}]"],
        "curves": ["history"],
        "confusion": ['metrics["confusion"]'],
        "segmentation": ["segmentation_examples"],
        "mask": ["segmentation"],
        "attribution": [f"attribution_maps({_quote(image)})[{_quote(str(figure.get('member')))}]"],
    }
    results = f"convatlas.Results({_quote(f'results/{network.name}')})"
    return [f"{results}.{member}" for member in members.get(kind, [])]


def _quote(text: str) -> str:
    """Return text as a literal of Python in double quotes."""
    return json.dumps(text, ensure_ascii=False)
