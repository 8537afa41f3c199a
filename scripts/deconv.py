"""Project a network's activations back to the pixels that caused them, through a deconvnet."""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn

from convatlas import cli, networks
from convatlas.deconvnet import project
from convatlas.files import Npz, npz_writer, read_json, whole
from convatlas.names import choose_layers


def main(given: argparse.Namespace) -> None:
    torch.set_num_threads(given.threads)
    device = networks.choose_device(given.device)
    output = Path(given.output)
    network, _ = networks.load(output)
    network.to(device)
    layers = _layers(read_json(output / "layers.json"), given)
    with whole(output / "deconv") as folder:
        folder.mkdir()
        for image in read_json(output / "images.json"):
            recorded = Npz(output / f"activations/{image['name']}.npz")
            _project(network, recorded, layers, given.settings, folder / f"{image['name']}.npz")
            cli.log.info("projected %d layers of %s", len(layers), image["name"])


def _project(
    network: nn.Module, recorded: Npz, layers: list[str], settings: cli.Settings, path: Path
) -> None:
    """Write one image's projections, a layer at a time."""
    image = torch.from_numpy(recorded["input"]).to(networks.device_of(network))
    with npz_writer(path) as write:
        for layer in layers:
            output = recorded[layer]
            units = strongest(output, settings["units"])
            for select in settings["select"]:
                found = project(network, image, layer, units, select, settings["rectify"])
                write(layer if select == "map" else f"{layer}@{select}", found.cpu().numpy())
            if len(units) < len(output) and settings["select"]:
                write(f"{layer}@units", np.array(units, np.int32))


def strongest(output: np.ndarray, wanted: int | str) -> list[int]:
    """The units of a layer's output (units, ...) that answer most, strongest first; all in their order."""
    if wanted == "all" or int(wanted) >= len(output):
        return list(range(len(output)))
    most = output.reshape(len(output), -1).max(1)
    return np.argsort(-most, kind="stable")[: int(wanted)].tolist()


def _layers(layers: list[dict], given: argparse.Namespace) -> list[str]:
    """The layers asked for; by default every convolution and pooling layer."""
    if given.settings["layers"] == "all":
        return [layer["name"] for layer in layers if layer["kind"] in ("conv", "pool") and layer["called"]]
    return choose_layers(layers, given.settings["layers"], f"networks.{given.name}.views.deconv.layers")


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    cli.add_section(
        parser,
        "network",
        'views.deconv, {"layers": "all", "units": 16, "select": ["map", "peak"], "rectify": false}',
        "its folder, results/<network>, where its records are",
    )
    cli.add_compute(parser)
    cli.run(main, parser)
