"""Write how one projection goes down through a network, step by step: steps/steps.json and signals.npz."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from convatlas import UserError
from convatlas.attribution.deconvnet import ProjectionStep, project_stepwise
from convatlas.attribution.unit_selection import select_top_units, unit_maxima
from convatlas.files import atomic_write, npz_writer, to_json_number, write_json
from convatlas.layer_selection import choose_layers
from convatlas.models.build import get_device
from convatlas.names import suggest_nearest
from convatlas.pipeline.config_types import StepsViews
from convatlas.records import DeconvStep, DeconvSteps
from convatlas.results import UNITS_SUFFIX, Results

log = logging.getLogger(__name__)

MAX_STEPS = 12  # steps that are all kept; of more, one for each size of maps
MAX_STEP_UNITS = 16  # units of a step that are kept, those with the largest values


class StepTarget(NamedTuple):
    """The unit whose projection is followed."""

    image: str
    layer: str
    unit: int


def choose_step_target(
    results: Results, projected_layers: Sequence[str], settings: StepsViews | None, key: str
) -> StepTarget | None:
    """Choose the image, layer and unit to follow.

    Args:
        results: The network's results, with its recorded activations.
        projected_layers: The layers that are projected.
        settings: `views.deconv.steps`; what it does not name is the first image, the last projected layer
            and the most active unit.
        key: The place of the settings in the config, for error messages.

    Returns:
        The target; None where `settings` is None or no layer is projected.

    Raises:
        UserError: There is no such image, layer or unit.
    """
    if settings is None:
        return None
    images = [image["name"] for image in results.images]
    image = settings.get("image", images[0])
    if image not in images:
        raise UserError(f"{key}.image: no image {image!r}; {suggest_nearest(image, images)}")
    if "layer" in settings:
        projected_layers = choose_layers(results.layers, [settings["layer"]], f"{key}.layer")
    if not projected_layers:
        return None
    layer = projected_layers[-1]
    output = results.activations(image)[layer]
    unit = settings.get("unit", int(select_top_units(unit_maxima(output), 1)[0]))
    if unit >= len(output):
        raise UserError(f"{key}.unit: no unit {unit}; {layer} has {len(output)}, counted from 0")
    if output[unit].max() <= 0:
        log.warning("unit %d of %s is inactive on %s: its projection is zero", unit, layer, image)
    return StepTarget(image, layer, unit)


def write_steps(network: nn.Module, results: Results, target: StepTarget | None, rectify: bool) -> None:
    """Write steps/: the signal of a projection at each step on its way down.

    Args:
        network: The network.
        results: Its results, with the recorded activations.
        target: The unit to follow; without one steps.json holds null.
        rectify: Rectify the signal at activations that are not ReLUs too.
    """
    steps: list[ProjectionStep] = []
    if target:
        image = torch.from_numpy(results.activations(target.image)["input"]).to(get_device(network))
        steps = project_stepwise(network, image, target.layer, target.unit, rectify=rectify)
        log.info("unit %d of %s on %s, step by step", target.unit, target.layer, target.image)
    with atomic_write(results.folder / "steps") as folder:
        folder.mkdir()
        with npz_writer(folder / "signals.npz") as write:
            entries = [write_step(step, write) for step in thin_steps(steps)]
        description: DeconvSteps | None = None
        if target:
            description = {
                "image": target.image,
                "layer": target.layer,
                "unit": target.unit,
                "steps": entries,
            }
        write_json(folder / "steps.json", description)


def thin_steps(steps: list[ProjectionStep]) -> list[ProjectionStep]:
    """Return the uppermost step of each size, if there are more than MAX_STEPS.

    Args:
        steps: The steps of a projection, from the layer down to the input.

    Returns:
        The steps. Each lists the layers passed by the skipped steps above it too.
    """
    if len(steps) <= MAX_STEPS:
        return steps
    selected: list[ProjectionStep] = []
    passed_layers: list[str] = []
    for previous, step in zip([None, *steps], steps, strict=False):
        passed_layers = passed_layers + step.passed_layers
        if previous is None or previous.signal.shape != step.signal.shape:
            selected.append(replace(step, passed_layers=passed_layers))
            passed_layers = []
    return selected


def write_step(step: ProjectionStep, write: Callable[[str, np.ndarray], None]) -> DeconvStep:
    """Write the signal of a step, and return its entry in steps.json.

    Of a layer with more than `MAX_STEP_UNITS` maps those with the largest values are written, under
    <layer>, with their numbers under <layer>@units; the entry describes all of them.

    Args:
        step: The step.
        write: A function that writes an array under a name.
    """
    signal: np.ndarray = step.signal.float().cpu().numpy()
    has_all_units = signal.ndim == 1 or step.layer == "input"
    units = select_top_units(unit_maxima(np.abs(signal)), "all" if has_all_units else MAX_STEP_UNITS)
    write(step.layer, signal[units])
    if len(units) < len(signal):
        write(f"{step.layer}{UNITS_SUFFIX}", units)
    return {
        "layer": step.layer,
        "passed_layers": step.passed_layers,
        "shape": list(signal.shape),
        "min": to_json_number(signal.min()),
        "max": to_json_number(signal.max()),
        "nonzero_count": int(np.count_nonzero(signal)),
        "value_count": signal.size,
    }
