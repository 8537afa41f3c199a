"""Project recorded activations back to the pixels that caused them, through a deconvnet."""

import argparse
from pathlib import Path

import torch

from convatlas import activations, cli, networks
from convatlas.deconvnet import Deconvnet
from convatlas.files import read_json, whole, write_npz
from convatlas.names import choose_layers


def main(given: argparse.Namespace) -> None:
    torch.set_num_threads(given.threads)
    device = networks.choose_device(given.device)
    output = Path(given.output)
    network, _, _ = networks.load(output)
    network.to(device)
    images = [image["name"] for image in read_json(output / "images.json")]
    found = activations.read([output / f"activations/{name}.npz" for name in images]).to(device)

    projections = {}
    for layer in _layers(read_json(output / "layers.json"), given):
        deconvnet = Deconvnet(network, layer, given.settings["rectify"])
        for select in given.settings["select"]:
            key = layer if select == "map" else f"{layer}@{select}"
            projections[key] = deconvnet(found, select=select).cpu().numpy()
        cli.log.info(
            "projected %d units of %s on %d images", found.outputs[layer].shape[1], layer, len(images)
        )
    with whole(output / "deconv") as folder:
        folder.mkdir()
        for n, name in enumerate(images):
            write_npz(folder / f"{name}.npz", {key: array[n] for key, array in projections.items()})


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
        'views.deconv, {"layers": "all", "select": ["map", "peak"], "rectify": false}',
        "its folder, results/<network>, where its records are",
    )
    cli.add_compute(parser)
    cli.run(main, parser)
