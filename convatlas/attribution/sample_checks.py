"""What is measured of attribution methods on a network: randomisation, and the specificity of its units."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from convatlas.attribution.class_scores import ClassScores, Targets
from convatlas.attribution.image_maps import AttributedNetwork
from convatlas.attribution.measures.randomisation import cascading_randomisation
from convatlas.attribution.measures.redrawn_weights import list_weighted_layers, split_stages
from convatlas.attribution.measures.unit_specificity import measure_unit_specificity
from convatlas.attribution.method_plan import METHOD_ERRORS, PlannedMethod, describe_failure
from convatlas.models import build
from convatlas.names import join_names
from convatlas.records import AttributionRandomisation, LayerSpecificity
from convatlas.results import Results, list_projection_keys

log = logging.getLogger(__name__)

RANDOMISATION_STAGES = 5
# Images on which specificity is measured: two, and up to five whose inputs have no more values together.
SPECIFICITY_IMAGES = range(2, 6)
SPECIFICITY_VALUES = 2**18


class TrainedTargetScores(ClassScores):
    """The scores of a redrawn network, of the pixels that the trained one predicts as each target.

    Args:
        trained: Those of the trained network, which ran once; the same module is redrawn.
        pixels: Of a segmentation, the pixels of each image and target, (N, T, h, w).
    """

    def __init__(self, trained: ClassScores, pixels: Tensor | None) -> None:
        super().__init__(trained.network, trained.output)
        self.skipped, self.is_batchable, self.pixels = trained.skipped, trained.is_batchable, pixels

    def make_targets(self, scores: Tensor, classes: Tensor, first: int = 0) -> Targets:
        """Return the targets of images, as in `ClassScores`."""
        pixels = None if self.pixels is None else self.pixels[first : first + len(scores)]
        targets = Targets(classes, pixels)
        self.check_finite(targets.select(scores), classes, first)
        return targets


def measure_randomisation(
    network: AttributedNetwork,
    names: Sequence[str],
    x: Tensor,
    classes: Tensor,
    plans: Sequence[PlannedMethod],
) -> list[AttributionRandomisation | None]:
    """Measure how much of methods' maps remains as weights are redrawn from the output down.

    Args:
        network: The network; it is restored bit for bit.
        names: Names of the images.
        x: The images, (N, C, H, W).
        classes: Their target classes, (N, T).
        plans: The methods.

    Returns:
        The curve of each method; None where it is not defined for the network, trained or not.
    """
    stages = split_stages(list_weighted_layers(network.network, x[:1]), RANDOMISATION_STAGES)
    layers = [[layer.name for layer in stage] for stage in stages]
    pixels = network.scores.make_targets(network.scores(x), classes).pixels

    curves: list[AttributionRandomisation | None] = []
    for n, plan in enumerate(plans):
        curves.append(None)
        if plan.undefined:
            continue
        log.info("randomisation of %s (%d of %d) on %s", plan.title, n + 1, len(plans), join_names(names))

        def compute(module: nn.Module, x: Tensor, plan: PlannedMethod = plan) -> Tensor:
            scores = TrainedTargetScores(network.scores, pixels)
            return plan.compute(scores, x, classes, network.preprocessing, coarse=True).values

        try:
            similarity = cascading_randomisation(network.network, x, {plan.member: compute}, stages)
        except METHOD_ERRORS as error:
            log.info("%s has no randomisation curve: %s", plan.title, describe_failure(error))
            continue
        curves[-1] = {"image": join_names(names), "layers": layers, "similarity": similarity[plan.member]}
    return curves


def measure_layers(network: nn.Module, results: Results, rectify: bool) -> list[LayerSpecificity]:
    """Measure the specificity of each projected layer's units on the first sample images.

    Args:
        network: The network; it is restored bit for bit.
        results: Its results, with its projections.
        rectify: `views.deconv.rectify`.
    """
    names = [image["name"] for image in results.images if "non_finite" not in image]
    if not names:
        return []
    count = SPECIFICITY_VALUES // results.activations(names[0])["input"].size
    names = names[: min(max(count, SPECIFICITY_IMAGES[0]), SPECIFICITY_IMAGES[-1])]
    keys = list_projection_keys(results.projections(names[0]))
    layers = list(dict.fromkeys(key.partition("@")[0] for key in keys))
    activations = [results.activations(name) for name in names]
    device = build.get_device(network)
    images = [torch.from_numpy(arrays["input"]).to(device) for arrays in activations]

    def get_output(layer: str, image: int) -> Tensor:
        return torch.from_numpy(activations[image][layer]).float()

    try:
        return measure_unit_specificity(network, results.layers, layers, images, get_output, rectify)
    except METHOD_ERRORS as error:
        log.warning("the specificity of units is not measured: %s", describe_failure(error))
        return []
