"""Build a network; give it trained weights, or train it on its data set; test it once."""

import argparse
import csv
import io
import platform
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors.torch import save
from torch import nn

import convatlas
from convatlas import UserError, cli
from convatlas.datasets import cache, formats
from convatlas.files import read_json, sha256, write_bytes, write_json
from convatlas.models import build, class_names, weights
from convatlas.models.factory import format_error
from convatlas.models.preprocessing import Preprocessing
from convatlas.pipeline.architecture_names import TORCHVISION_PREFIX
from convatlas.training import metrics, trainer
from convatlas.training.checkpoint import Checkpoint

SEGMENTATION_BATCH_SIZE = 16  # images at a time of a network that tells pixels apart
MAX_BYTES_ON_GPU = 4e9  # bytes of a split that a GPU keeps


@dataclass
class PreparedNetwork:
    """A network as it is before training, if it is trained; `weights` says where its weights come from.

    `of_pixels` says that it tells apart the pixels of an image, not images; `source` where it was published.
    """

    network: nn.Module
    preprocessing: Preprocessing
    arguments: dict[str, Any]
    classes: list[str]
    weights_origin: dict[str, Any]
    is_segmentation: bool
    source: str | None


def main(given: argparse.Namespace) -> None:
    torch.set_num_threads(given.threads)
    started = datetime.now(UTC)
    device, output = build.choose_device(given.device), Path(given.output)
    data = formats.describe(given.data) if given.data else None
    made = prepare_network(given, data, f"networks.{given.name}")
    made.network.to(device)

    trained, found, seconds = (
        data is not None and not given.settings.get("weights"),
        trainer.TrainingResult(),
        None,
    )
    if trained:
        kept_in = Checkpoint(output / "checkpoint", describe_training(given, made, data, device))
        settings = given.settings["training"]
        if settings["progressive_resize"]:
            check_input_size(made, settings["progressive_resize"]["size"], f"networks.{given.name}.training.progressive_resize.size")
        train, validation = load_training_splits(given, made, device)
        clock = time.perf_counter()
        found = trainer.fit(
            made.network, made.preprocessing, train, validation, settings, given.seed, kept_in
        )
        seconds = time.perf_counter() - clock
        cli.log.info("trained in %.1f s", seconds)
        found_in = {"best_epoch": found.best_epoch, "precision": found.precision, "images": len(train)}
    tested = evaluate_test_split(made, data, given.data, device)

    state = {name: tensor.cpu().contiguous().clone() for name, tensor in made.network.state_dict().items()}
    write_bytes(output / "weights.safetensors", save(state))
    write_bytes(output / "history.csv", _format_csv(found.history))
    write_json(output / "metrics.json", tested)
    write_json(
        output / "network.json",
        {
            "architecture": given.settings["architecture"],
            "arguments": made.arguments,
            "source": made.source,
            "parameters": sum(parameter.numel() for parameter in made.network.parameters()),
            "weights": made.weights_origin | {"sha256": sha256(output / "weights.safetensors")},
            "dataset": given.settings.get("dataset"),
            "dataset_sha256": data and data["sha256"],
            "dataset_classes": data and data["classes"],
            "classes": made.classes,
            "preprocessing": made.preprocessing.to_dict(),
            "training": given.settings["training"] | found_in if trained else None,
            "seed": given.seed,
            "device": device.type,
            "versions": collect_versions(),
        },
    )
    write_json(
        output / "timing.json",
        {
            "started": started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "training_seconds": seconds and round(seconds, 2),
            "images_per_second": seconds
            and round(len(train) * (len(found.history) - found.resumed_epochs) / seconds),
            "resumed_after_epoch": found.resumed_epochs or None,
            "threads": given.threads,
        },
    )
    if trained:
        kept_in.remove()  # no sooner than all that it led to is there


def describe_training(
    given: argparse.Namespace, made: PreparedNetwork, data: dict[str, Any] | None, device: torch.device
) -> dict[str, Any]:
    """All that decides what training gives, by which a checkpoint of another is told."""
    return {
        "architecture": given.settings["architecture"],
        "arguments": made.arguments,
        "preprocessing": made.preprocessing.to_dict(),
        "training": given.settings["training"],
        "dataset_sha256": data and data["sha256"],
        "seed": given.seed,
        "device": device.type,
        "threads": given.threads,
        "versions": collect_versions(),
    }


def prepare_network(given: argparse.Namespace, data: dict[str, Any] | None, key: str) -> PreparedNetwork:
    """Build the network, with its trained weights if it has them. Raises UserError, which names the key."""
    settings = given.settings
    wanted, of_zoo = settings.get("weights"), settings["architecture"].startswith(TORCHVISION_PREFIX)
    named = class_names.read_class_names(settings.get("classes"), f"{key}.classes")
    source, state = load_torchvision_weights(given, key) if isinstance(wanted, str) else ({}, None)

    known = named or (data["classes"] if data and not (wanted and of_zoo) else None)
    factory = build.get_factory(settings, key)
    arguments = factory.complete_arguments(settings.get("arguments") or {}, known)
    network, preprocessing = build.build_network(
        settings | {"arguments": arguments}, None, given.seed, key, state
    )
    of_pixels = build.count_pixel_classes(network, preprocessing) is not None
    if of_pixels and data and formats.has_masks(data):
        known = named or formats.MASK_CLASSES
        arguments = factory.complete_arguments(settings.get("arguments") or {}, known)
        network, preprocessing = build.build_network(
            settings | {"arguments": arguments}, None, given.seed, key, state
        )
    if isinstance(wanted, dict):
        weights.load_weights(network, wanted, f"{key}.weights")
        source = {"origin": wanted["path"], "source_sha256": sha256(Path(wanted["path"]).expanduser())}
    elif not wanted:
        source = {"origin": "trained here" if data else f"random, seed {given.seed}"}

    count = build.count_pixel_classes if of_pixels else build.count_classes
    outputs, told = count(network, preprocessing), data and data["classes"]
    if of_pixels and data:
        told = formats.MASK_CLASSES if formats.has_masks(data) else []
    if data and not wanted:
        check_trainable(outputs, told, of_pixels, named, key)
    names = named or source.pop("categories", None)
    if not names and told and (not wanted or len(told) == outputs):
        names = told
    names = class_names.check_class_names(names, outputs, f"{key}.classes")
    origin = dict.fromkeys(("origin", "name", "url", "source_sha256", "metrics")) | source
    return PreparedNetwork(network, preprocessing, arguments, names, origin, of_pixels, factory.source)


def load_torchvision_weights(
    given: argparse.Namespace, key: str
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What is told of torchvision's weights, and they themselves, from the file that was fetched."""
    if not given.weights:
        raise UserError(f"{key}.weights: --weights must name the file that scripts/weights.py made of them")
    told = read_json(Path(given.weights).with_suffix(".json"))
    source = {
        "origin": f"torchvision {told['weights']}",
        "name": told["weights"],
        "url": told["url"],
        "source_sha256": told["sha256"],
        "metrics": told["metrics"],
        "categories": told["categories"],
    }
    return source, weights.read_checkpoint(given.weights, f"{key}.weights")


def check_trainable(
    outputs: int | None, told: list[str], of_pixels: bool, named: list[str] | None, key: str
) -> None:
    """Raise UserError where a network cannot be trained on a data set whose classes are `told`."""
    if outputs is None:
        raise UserError(
            f"{key}.dataset: the network gives neither scores (N, classes) nor scores of each pixel (N, "
            "classes, height, width), which alone are trained here"
        )
    if not told:
        what = (
            "no masks to train a network on that tells pixels apart"
            if of_pixels
            else "no classes to train on"
        )
        raise UserError(f"{key}.dataset: it has {what}; give weights, or leave dataset out")
    if len(named or told) != len(told) or outputs != len(told):
        raise UserError(
            f"{key}.dataset: it has {len(told)} classes{' of pixels' if of_pixels else ''}, the network "
            f"{outputs} outputs"
            + (f", and there are {len(named)} names" if named else "")
            + f"; mend {key}.arguments or classes"
        )


def check_input_size(made: PreparedNetwork, size: int, key: str) -> None:
    """Raise UserError where a network does not take images of a size."""
    try:
        build.run_on_zeros(made.network, replace(made.preprocessing, size=size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(
            f"{key}: the network does not take images of {size} × {size} pixels: {format_error(error)}; give "
            "a size that it takes, or null to show all images at the input's size"
        ) from error


def evaluate_test_split(
    made: PreparedNetwork, data: dict[str, Any] | None, folder: str, device: torch.device
) -> dict[str, Any]:
    """Metrics on the test images; {} without a data set, or where its classes are not the network's."""
    told = data and (formats.MASK_CLASSES if made.is_segmentation else data["classes"])
    if not told or not sum(data["counts"]["test"]) or (made.is_segmentation and not formats.has_masks(data)):
        return {}
    own_names = made.weights_origin["name"] is None  # torchvision's classes are those of its names
    if len(made.classes) != len(told) or not (own_names or made.classes == told):
        cli.log.info("not tested: the data set's classes are not the network's")
        return {}
    images = load_split(folder, "test", made, device)
    if made.is_segmentation:
        _, confusion = trainer.evaluate(
            made.network, made.preprocessing, images, batch_size=SEGMENTATION_BATCH_SIZE
        )
        found = metrics.segmentation_metrics(confusion, made.classes, len(images))
        cli.log.info("test mean IoU %.4f", found["mean_iou"])
    else:
        _, confusion = trainer.evaluate(made.network, made.preprocessing, images)
        found = metrics.classification_metrics(confusion, made.classes)
        cli.log.info("test accuracy %.2f %%", 100 * found["accuracy"])
    return found


def load_training_splits(
    given: argparse.Namespace, made: PreparedNetwork, device: torch.device
) -> tuple[trainer.LabelledImages, trainer.LabelledImages]:
    """The images to train on and those to validate on; the first so large that their crops are sharp."""
    settings = given.settings["training"]
    train, validation = (
        trainer.hold_out(
            load_split(given.data, "train", made, device, 1 / share), settings["validation"], given.seed
        )
        for share in (settings["crop"], 1)
    )
    return train[0], validation[1]


def load_split(
    folder: str, name: str, made: PreparedNetwork, device: torch.device, enlarged: float = 1.0
) -> trainer.LabelledImages:
    """A split at the network's size, or `enlarged`, as far as it is made of image files.

    On the device if it is small.
    """
    how = made.preprocessing
    size, resize = (n if isinstance(n, str) else round(enlarged * n) for n in (how.size, how.resize))
    images = torch.from_numpy(cache.load_images(folder, name, how.mode, size, resize, how.interpolation))
    labels = formats.load(folder, name).labels
    if made.is_segmentation:
        labels = cache.load_masks(folder, name, size, resize)
    where = device if images.nbytes < MAX_BYTES_ON_GPU else torch.device("cpu")
    return trainer.LabelledImages(images.to(where), torch.from_numpy(labels).to(where))


def collect_versions() -> dict[str, str]:
    """What took part, with its version; torchvision only where it did."""
    found = {
        "convatlas": convatlas.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }
    if "torchvision" in sys.modules:
        found["torchvision"] = sys.modules["torchvision"].__version__
    return found


def _format_csv(rows: list[dict[str, float]]) -> bytes:
    text = io.StringIO()
    columns = list(rows[0]) if rows else trainer.HISTORY_COLUMNS
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        "its architecture, arguments, weights, classes, dataset, input and training from the config",
        "its folder, results/<network>",
    )
    parser.add_argument("--data", help="the data set's folder, data/<dataset>, if it has one")
    parser.add_argument("--weights", help="the file of torchvision's weights, if it has them")
    cli.add_compute_arguments(parser)
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and validation split")
    cli.run(main, parser)
