"""Measure of the layers of a network how specific the projections of their units are, by each method."""

import logging
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from convatlas import UserError
from convatlas.attribution.measures.own_layers import find_peak_tolerance, split_stages_of_units
from convatlas.attribution.measures.redrawn_weights import list_weighted_layers
from convatlas.attribution.measures.specificity import measure_specificity
from convatlas.attribution.measures.unit_projections import RULES, Position, project_activations
from convatlas.records import Layer, LayerSpecificity

log = logging.getLogger(__name__)

STAGES = 2  # of randomisation: the units' own layer, then all below it as well


def measure_unit_specificity(
    network: nn.Module,
    layers: Sequence[Layer],
    names: Sequence[str],
    images: Sequence[Tensor],
    get_output: Callable[[str, int], Tensor],
    rectify: bool = False,
) -> list[LayerSpecificity]:
    """Measure the specificity of layers by the deconvnet, the gradient and guided backpropagation.

    Args:
        network: The network; it is restored bit for bit.
        layers: Its layers, as in layers.json.
        names: The layers to measure.
        images: Sample images, each (C, H, W).
        get_output: From a layer and the number of an image to the layer's output, (units, ...).
        rectify: Rectify the signal at activations that are not ReLUs too.

    Returns:
        The entries of attribution.json, in the order of `names`; a method that is not defined says why.
    """
    weighted = list_weighted_layers(network, images[0][None]) if images else []
    entries: list[LayerSpecificity] = []
    for name in names if images else []:
        log.info("specificity of the units of %s", name)
        projector = _Projector(name, rectify)
        layer = next(layer for layer in layers if layer["name"] == name)
        stages = split_stages_of_units(layers, weighted, name, STAGES)
        outputs = [get_output(name, n) for n in range(len(images))]
        measured = measure_specificity(
            network, images, outputs, projector, stages, find_peak_tolerance(layer)
        )
        for rule in RULES:
            entry: LayerSpecificity = {
                "layer": name,
                "method": rule,
                "value": None,
                "randomised": None,
                "pairs": 0,
                "reason": projector.undefined.get(rule, "no two units have peaks that nearly coincide"),
                "randomisation": None,
            }
            if rule in measured:
                value, pairs, similarity, reason = measured[rule]
                entry |= {"value": value, "pairs": pairs, "reason": reason}
                if similarity and similarity[0] is not None:
                    entry["randomised"] = 1 - similarity[0]
                entry["randomisation"] = {
                    "layers": [[item.name for item in stage] for stage in stages],
                    "similarity": similarity,
                }
            entries.append(entry)
    return entries


class _Projector:
    """Projects units of a layer by each method that is defined there.

    Args:
        layer: Name of the layer.
        rectify: As in `measure_unit_specificity`.
    """

    def __init__(self, layer: str, rectify: bool) -> None:
        self.layer, self.rectify = layer, rectify
        self.undefined: dict[str, str] = {}  # why, by method

    def __call__(
        self, network: nn.Module, image: Tensor, units: Sequence[int], positions: Sequence[Position]
    ) -> Mapping[str, Tensor]:
        def project(rules: Sequence[str]) -> Mapping[str, Tensor]:
            return project_activations(network, image, self.layer, units, positions, self.rectify, rules)

        try:
            return project([rule for rule in RULES if rule not in self.undefined])
        except UserError:
            for rule in RULES:
                try:
                    project([rule])
                except UserError as error:
                    self.undefined[rule] = str(error)
        return project([rule for rule in RULES if rule not in self.undefined])
