"""Project a network's activations back to the pixels that caused them, through a deconvnet."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from convatlas import UserError, cli
from convatlas.attribution.deconvnet import ProjectionStep, project, project_stepwise
from convatlas.files import Npz, atomic_write, npz_writer, read_json, write_json
from convatlas.layer_selection import choose_layers
from convatlas.models import build
from convatlas.names import suggest_nearest

MAX_STEPS = 12  # of the way down that are kept each; of more, one for each size of maps
MAX_STEP_UNITS = 16  # of a step that are kept, those with the largest values


def main(given: argparse.Namespace) -> None:
    torch.set_num_threads(given.threads)
    device = build.choose_device(given.device)
    output = Path(given.output)
    network, _ = build.load_network(output)
    network.to(device)
    layers = _choose_projected_layers(read_json(output / "layers.json"), given)
    told = _choose_step_target(output, layers, given)
    with atomic_write(output / "deconv") as folder:
        folder.mkdir()
        for image in read_json(output / "images.json"):
            recorded = Npz(output / f"activations/{image['name']}.npz")
            _project_image(network, recorded, layers, given.settings, folder / f"{image['name']}.npz")
            cli.log.info("projected %d layers of %s", len(layers), image["name"])
    _write_steps(network, output, told, given.settings["rectify"])


def _project_image(
    network: nn.Module, recorded: Npz, layers: list[str], settings: cli.Settings, path: Path
) -> None:
    """Write one image's projections, a layer at a time."""
    image = torch.from_numpy(recorded["input"]).to(build.get_device(network))
    with npz_writer(path) as write:
        for layer in layers:
            output = recorded[layer]
            units = select_top_units(output, settings["units"])
            for select in settings["select"]:
                found = project(network, image, layer, units, select, settings["rectify"])
                write(layer if select == "map" else f"{layer}@{select}", found.cpu().numpy())
            if len(units) < len(output) and settings["select"]:
                write(f"{layer}@units", np.array(units, np.int32))


def select_top_units(output: np.ndarray, wanted: int | str) -> list[int]:
    """The units of a layer's output (units, ...) that answer most, strongest first; all in their order."""
    if wanted == "all" or int(wanted) >= len(output):
        return list(range(len(output)))
    most = output.reshape(len(output), -1).max(1)
    return np.argsort(-most, kind="stable")[: int(wanted)].tolist()


def _choose_step_target(output: Path, layers: list[str], given: argparse.Namespace) -> dict[str, Any] | None:
    """The image, layer and unit to follow: by default the first, the last, and the one that answers most."""
    wanted, key = given.settings["steps"], f"networks.{given.name}.views.deconv.steps"
    if wanted is None:
        return None
    images = [image["name"] for image in read_json(output / "images.json")]
    image = wanted.get("image", images[0])
    if image not in images:
        raise UserError(f"{key}.image: no image {image!r}; {suggest_nearest(image, images)}")
    if "layer" in wanted:
        layers = choose_layers(read_json(output / "layers.json"), [wanted["layer"]], f"{key}.layer")
    if not layers:
        return None
    layer = layers[-1]
    recorded = Npz(output / f"activations/{image}.npz")[layer]
    unit = wanted.get("unit", select_top_units(recorded, 1)[0])
    if unit >= len(recorded):
        there = f"{layer} has {len(recorded)}, counted from 0"
        raise UserError(f"{key}.unit: no unit {unit}; {there}")
    if recorded[unit].max() <= 0:
        cli.log.warning("unit %d of %s is dead on %s: nothing goes down from it", unit, layer, image)
    return {"image": image, "layer": layer, "unit": unit}


def _write_steps(network: nn.Module, output: Path, told: dict[str, Any] | None, rectify: bool) -> None:
    """Write steps/: how the projection of one telling unit comes down, step by step; null for none."""
    steps: list[ProjectionStep] = []
    if told:
        image = torch.from_numpy(Npz(output / f"activations/{told['image']}.npz")["input"])
        x = image.to(build.get_device(network))
        steps = _thin_steps(project_stepwise(network, x, told["layer"], told["unit"], rectify=rectify))
        cli.log.info("unit %d of %s on %s, step by step", told["unit"], told["layer"], told["image"])
    with atomic_write(output / "steps") as folder:
        folder.mkdir()
        with npz_writer(folder / "signals.npz") as write:
            described = [_write_step(step, write) for step in steps]
        write_json(folder / "steps.json", told and {**told, "steps": described})


def _thin_steps(steps: list[ProjectionStep]) -> list[ProjectionStep]:
    """Of many steps the uppermost of each size, and the pixels; each came through what is left out above."""
    if len(steps) <= MAX_STEPS:
        return steps
    kept: list[ProjectionStep] = []
    through: list[str] = []
    for above, step in zip([None, *steps], steps, strict=False):
        through = through + step.passed_layers
        if above is None or above.signal.shape != step.signal.shape:
            kept.append(replace(step, passed_layers=through))
            through = []
    return kept


def _write_step(step: ProjectionStep, write: Callable[[str, np.ndarray], None]) -> dict[str, Any]:
    """Write a step's signal, its strongest units where they are many, and describe the whole of it."""
    signal = step.signal.cpu().numpy()
    whole_of = signal.ndim == 1 or step.layer == "input"
    units = select_top_units(np.abs(signal), "all" if whole_of else MAX_STEP_UNITS)
    write(step.layer, signal[units])
    if len(units) < len(signal):
        write(f"{step.layer}@units", np.array(units, np.int32))
    return {
        "layer": step.layer,
        "through": step.passed_layers,
        "shape": list(signal.shape),
        "low": float(signal.min()),
        "high": float(signal.max()),
        "nonzero": int(np.count_nonzero(signal)),
        "size": signal.size,
    }


def _choose_projected_layers(layers: list[dict], given: argparse.Namespace) -> list[str]:
    """The layers asked for; by default every convolution and pooling layer."""
    if given.settings["layers"] == "all":
        return [layer["name"] for layer in layers if layer["kind"] in ("conv", "pool") and layer["called"]]
    return choose_layers(layers, given.settings["layers"], f"networks.{given.name}.views.deconv.layers")


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        'views.deconv, {"layers": "all", "units": 16, "select": ["map", "peak"], "rectify": false, '
        '"steps": {}}',
        "its folder, results/<network>, where its records are",
    )
    cli.add_compute_arguments(parser)
    cli.run(main, parser)
