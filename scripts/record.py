"""Record a trained network: its layers, its filters, and every activation on the images looked at."""

import argparse
from pathlib import Path

import torch

from convatlas import activations, cli, datasets, networks
from convatlas.extractor import index
from convatlas.files import whole, write_json, write_npz
from convatlas.images import choose


def main(given: argparse.Namespace) -> None:
    torch.set_num_threads(given.threads)
    device = networks.choose_device(given.device)
    output = Path(given.output)
    network, preprocessing, _ = networks.load(output)
    network.to(device)
    write_json(output / "layers.json", index(network, preprocessing.shape))
    write_npz(
        output / "filters.npz", {name: w.cpu().numpy() for name, w in activations.filters(network).items()}
    )

    key = f"networks.{given.name}.images"
    test = datasets.load(given.data, "test")
    described = []
    with whole(output / "activations") as folder:
        folder.mkdir()
        for image in choose(given.settings, network, preprocessing, *test, device, key):
            found = activations.record(network, image.x)
            activations.write(folder / f"{image.name}.npz", found, 0)
            described.append(image.described(next(reversed(found.outputs.values())).softmax(1)[0]))
            cli.log.info("recorded %d layers on %s", len(found.outputs), image.name)
    write_json(output / "images.json", described)


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    cli.add_section(
        parser,
        "network",
        'the images looked at, {"first": 5}',
        "its folder, results/<network>, where its weights are",
    )
    parser.add_argument("--data", required=True, help="the data set's folder, data/<dataset>")
    cli.add_compute(parser)
    cli.run(main, parser)
