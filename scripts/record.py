"""Record a network: its layers, its filters, and every activation on the images looked at."""

import argparse
from pathlib import Path

import torch

from convatlas import cli
from convatlas.datasets import formats
from convatlas.datasets.sample_images import choose_images, compute_probabilities
from convatlas.files import atomic_write, write_json, write_npz
from convatlas.models import build
from convatlas.names import choose_layers
from convatlas.pipeline import size_estimate
from convatlas.tracing import kernel_taps, record
from convatlas.tracing import layers as layers_module
from convatlas.tracing.calls import composite_modules

DEFAULT_LEVELS = 64  # by default; what is recorded is the same for any


def main(given: argparse.Namespace) -> None:
    torch.set_num_threads(given.threads)
    device = build.choose_device(given.device)
    output, settings = Path(given.output), given.settings
    network, preprocessing = build.load_network(output)
    network.to(device)
    composite = composite_modules(network)
    blocks = [name for name in settings["layers"] if name in composite]
    layers = layers_module.list_layers(network, preprocessing.shape, settings["downsample_name"], blocks)
    choose_layers(layers, settings["layers"], f"networks.{given.name}.views.layers", extra_names=composite)
    write_json(output / "layers.json", layers)
    for line in kernel_taps.format_notes(layers):
        cli.log.warning("%s", line)
    write_npz(
        output / "filters.npz", {name: w.cpu().numpy() for name, w in record.collect_filters(network).items()}
    )

    test = formats.load(given.data, "test") if given.data else None
    key = f"networks.{given.name}.images"
    kept = settings["record"]
    described = []
    with atomic_write(output / "activations") as folder:
        folder.mkdir()
        for image in choose_images(settings["images"], network, preprocessing, test, device, key):
            path = folder / f"{image.name}.npz"
            made = record.record_to_file(network, image.x, path, blocks, kept["dtype"], kept["compress"])
            described.append(image.to_dict(compute_probabilities(made)))
            cli.log.info("recorded %s: %.1f MB", image.name, path.stat().st_size / 1e6)
    write_json(output / "images.json", described)
    key = f"networks.{given.name}.views.atlas.layers"
    explored = choose_layers(layers, settings.get("explored_layers", "all"), key)
    size = size_estimate.format_megabytes(
        size_estimate.estimate_sprite_sheets(layers, explored, len(described), DEFAULT_LEVELS)
    )
    cli.log.info(
        "the %d layers explored on %s will take about %s of the gallery, in %d levels; "
        "views.atlas.layers and views.atlas.levels bound it",
        *(len(explored), size_estimate.format_image_count(len(described)), size, DEFAULT_LEVELS),
    )


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        '{"images": {"first": 5}, "record": {"dtype": "float32", "compress": false}, "downsample_name": '
        '"downsample", "layers": [], "explored_layers": "all"}; `layers` names those that will be asked for, '
        "composite modules too, `explored_layers` those of which the page will have every unit",
        "its folder, results/<network>, where its weights are",
    )
    parser.add_argument("--data", help="the data set's folder, data/<dataset>, if it has one")
    cli.add_compute_arguments(parser)
    cli.run(main, parser)
