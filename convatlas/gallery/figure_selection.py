"""The choice of figures for the gallery in a single file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from convatlas import UserError
from convatlas.gallery.attribution_pictures import name_input_picture, name_pictures
from convatlas.layer_selection import choose_layers
from convatlas.names import suggest_nearest
from convatlas.records import Layer
from convatlas.results import Results

LAYER_FIGURE_KINDS = ("filters", "maps", "values", "pairs", "strongest", "relevance")  # of one layer
IMAGE_FIGURE_KINDS = ("classical", "deconv", "steps")  # of one image: large

LayerSelection = str | Sequence[str | int]  # "all", "highlight", or names, globs and ordinals of convolutions


@dataclass(frozen=True)
class RankedFigure:
    """A figure that may be in the single file.

    Attributes:
        path: Its place in the site.
        rank: Figures of the highest rank are skipped first where the file becomes too large.
    """

    path: str
    rank: tuple[int, int, int]


def select_figures(
    results: Path, networks: Mapping[str, Sequence[str | int]], layers: LayerSelection
) -> list[RankedFigure]:
    """Select figures for the single file, the most important first.

    Args:
        results: The folder of the networks' folders.
        networks: `views.highlight` of the config, by network.
        layers: `publish.single_file.layers` of the config.

    Raises:
        UserError: `layers` names a layer that no network has.
    """
    results_by_name = {name: Results(results / name) for name in networks}
    if not isinstance(layers, str):
        _check_layer_names([network.layers for network in results_by_name.values()], layers)
    figures = []
    for network_number, (name, highlight) in enumerate(networks.items()):
        selection = (highlight or "all") if layers == "highlight" else layers
        selected = set(_select_layers(results_by_name[name].layers, selection))
        for figure_number, figure in enumerate(results_by_name[name].figures):
            is_layer_figure = figure["kind"] in LAYER_FIGURE_KINDS
            if is_layer_figure and figure["subject"] not in selected:
                continue
            size_class = 1 if is_layer_figure else 2 if figure["kind"] in IMAGE_FIGURE_KINDS else 0
            rank = (size_class, figure_number, network_number)
            figures.append(RankedFigure(f"figures/{name}/{figure['file']}", rank))
        figures += _list_attribution_pictures(results_by_name[name], network_number)
    return sorted(figures, key=lambda figure: figure.rank)


def _list_attribution_pictures(results: Results, network_number: int) -> list[RankedFigure]:
    """List the pictures of a network's attribution maps; those of its first image are the most important."""
    analysis = results.attribution
    figures = []
    for number, (image, entry) in enumerate(analysis["images"].items() if analysis else []):
        members = [attribution_map["member"] for attribution_map in entry["maps"]]
        paths = [
            name_input_picture(results.name, image),
            *name_pictures(results.name, image, members).values(),
        ]
        figures += [RankedFigure(path, (min(number, 1), number, network_number)) for path in paths]
    return figures


def _select_layers(layers: Sequence[Layer], selection: LayerSelection) -> list[str]:
    """Select layers of one network; entries that match none of its layers are skipped."""
    if isinstance(selection, str):
        return choose_layers(layers, selection, "")
    names: list[str] = []
    for entry in selection:
        try:
            names += choose_layers(layers, [entry], "")
        except UserError:
            continue
    return names


def _check_layer_names(layers_by_network: Sequence[Sequence[Layer]], selection: Sequence[str | int]) -> None:
    """Check that each entry matches a layer of some network."""
    names = sorted({layer["name"] for layers in layers_by_network for layer in layers})
    for entry in selection:
        if not any(_select_layers(layers, [entry]) for layers in layers_by_network):
            hint = suggest_nearest(entry, names)
            raise UserError(f"publish.single_file.layers: no network has a layer {entry!r}; {hint}")
