"""Write the deconvnet projections of a network's sample images: deconv/<image>.npz, and steps/."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from convatlas.attribution.deconv_steps import choose_step_target, write_steps
from convatlas.attribution.deconvnet import project
from convatlas.attribution.unit_selection import select_top_units, unit_maxima
from convatlas.files import Npz, atomic_write, npz_writer
from convatlas.layer_selection import choose_projected_layers
from convatlas.models import build
from convatlas.pipeline.config_types import DeconvViews
from convatlas.results import UNITS_SUFFIX, Results

log = logging.getLogger(__name__)


def project_sample_images(
    folder: str | Path, settings: DeconvViews, device: torch.device, key: str = "views.deconv"
) -> None:
    """Write deconv/ and steps/ of a network from its recorded activations.

    deconv/<image>.npz holds float32 arrays, signed, in the input's space: <layer> -> (units, C, H, W)
    projections of whole maps; <layer>@peak -> of the single strongest location; <layer>@units -> unit
    numbers, where not all units are present.

    Args:
        folder: The network's folder, results/<network>.
        settings: `views.deconv` of the network.
        device: Where the network runs.
        key: The place of the settings in the config, for error messages.

    Raises:
        UserError: A layer, image or unit that the settings name does not exist, or the deconvnet is not
            defined for the network.
    """
    network, preprocessing = build.load_network(folder)
    network.to(device)
    results = Results(folder)
    layers = choose_projected_layers(results.layers, settings["layers"], f"{key}.layers")
    if layers and not preprocessing.is_image:
        layers = []
        log.info("no projections: the pages draw those of images only; convatlas.project computes them")
    target = choose_step_target(results, layers, settings["steps"], f"{key}.steps")
    with atomic_write(results.folder / "deconv") as output:
        output.mkdir()
        for image in results.images:
            name = image["name"]
            _project_image(network, results.activations(name), layers, settings, output / f"{name}.npz")
            log.info("projected %d layers of %s", len(layers), name)
    write_steps(network, results, target, settings["rectify"])


def _project_image(
    network: nn.Module, activations: Npz, layers: Sequence[str], settings: DeconvViews, path: Path
) -> None:
    """Write the projections of one image, a layer at a time."""
    image = torch.from_numpy(activations["input"]).to(build.get_device(network))
    with npz_writer(path) as write:
        for layer in layers:
            output = activations[layer]
            units = select_top_units(unit_maxima(output), settings["units"])
            for select in settings["select"]:
                projections = project(network, image, layer, units.tolist(), select, settings["rectify"])
                write(layer if select == "map" else f"{layer}@{select}", projections.cpu().numpy())
            if len(units) < len(output) and settings["select"]:
                write(f"{layer}{UNITS_SUFFIX}", units)
