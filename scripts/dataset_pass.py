"""Find the strongest activations of a network's units over a data set, and their statistics: one shard."""

import argparse
import time
from pathlib import Path

import torch

from convatlas import UserError, cli
from convatlas.datasets import formats
from convatlas.datasets.loader import BatchLoader
from convatlas.files import read_json
from convatlas.models import build
from convatlas.names import choose_layers
from convatlas.statistics import shards
from convatlas.statistics.dataset_pass import DatasetPass, choose_batch_size, find_tracked_layers

LOG_INTERVAL = 30  # seconds between two lines of progress


def main(given: argparse.Namespace) -> None:
    torch.set_num_threads(given.threads)
    device = build.choose_device(given.device)
    folder, settings = Path(given.output), given.settings
    if not 0 <= given.shard < given.shards:
        raise UserError(f"--shard {given.shard}: there are {given.shards} shards, counted from 0")
    about = shards.fingerprint_run(folder, given.data, settings)
    network, preprocessing = build.load_network(folder)
    network.to(device)

    key = f"networks.{given.name}.views.strongest.layers"
    composite = [path for path, _ in network.named_modules() if path]
    names = choose_layers(read_json(folder / "layers.json"), settings["layers"], key, extra_names=composite)
    layers, layout = find_tracked_layers(network, preprocessing.shape, names)
    size = settings["batch"] or choose_batch_size(preprocessing.shape, device)
    on_bad_image = settings["on_bad_image"]
    images = BatchLoader(given.data, settings["split"], preprocessing, size, on_bad_image, given.threads)
    labelled, classes = resolve_classes(given.data, network, preprocessing, folder)
    labels = images.dataset.labels if labelled else None

    own = shards.shard_batches(given.shard, given.shards, len(images))
    survey = DatasetPass(network, layers, layout, settings["k"], images.batch_size, len(classes))
    started = shown = time.monotonic()
    with survey:
        for batch in images.read_batches(own):
            x = preprocessing(build.to_device(torch.from_numpy(batch.pixels), device))
            survey.update(batch.index, x, batch.indices, labels)
            if time.monotonic() > shown + LOG_INTERVAL:
                shown = time.monotonic()
                done = batch.index + 1 - own.start
                rate = survey.image_count / (shown - started)
                cli.log.info("%d of %d batches, %.0f images/s", done, len(own), rate)

    found = survey.result()
    seconds = max(time.monotonic() - started, 1e-9)
    described = about | {
        "shard": given.shard,
        "batches": [own.start, own.stop],
        "layers": [{"name": layer.name, "shape": list(layer.shape)} for layer in layers],
        "batch": images.batch_size,
        "images": len(images.dataset),
        "class_source": "label" if labelled else "predicted class",
        "classes": classes,
        "device": device.type,
        "skipped": images.skipped,
    }
    shards.write_shard(folder / "shards" / f"{given.shard}.npz", described, found)
    cli.log.info(
        "shard %d of %d: %d images through %d layers, %d units, in %.1f s, %.0f images/s",
        *(given.shard, given.shards, survey.image_count, len(layers), len(survey.areas)),
        *(seconds, survey.image_count / seconds),
    )
    if images.skipped:
        cli.log.warning("%d images were left out", len(images.skipped))


def resolve_classes(
    data: str, network: torch.nn.Module, preprocessing: build.Preprocessing, folder: Path
) -> tuple[bool, list[str]]:
    """Whether the images have labels, and the classes by which they are told apart: else the network's."""
    classes = formats.describe(data)["classes"]
    if classes:
        return True, classes
    count = build.count_classes(network, preprocessing) or 0
    named = read_json(folder / "network.json")["classes"] or []
    return False, named if len(named) == count else [str(n) for n in range(count)]


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        '{"layers": "all", "k": 9, "split": "test", "batch": null, "on_bad_image": "error"}; the last of the '
        "data set, the others of views.strongest",
        "its folder, results/<network>, where its weights and layers.json are",
    )
    parser.add_argument("--data", required=True, help="the data set's folder, data/<dataset>")
    parser.add_argument("--shard", type=int, default=0, help="which part of the set, from 0")
    parser.add_argument("--shards", type=int, default=1, help="in how many parts the set is divided")
    cli.add_compute_arguments(parser)
    cli.run(main, parser)
