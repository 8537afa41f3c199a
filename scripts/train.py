"""Build a network; give it trained weights, or train it on its data set; test it once."""

import argparse
import csv
import io
import platform
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors.torch import save
from torch import nn

import convatlas
from convatlas import UserError, classes, cli, datasets, networks, training, weights
from convatlas.files import read_json, sha256, write_bytes, write_json
from convatlas.preprocessing import Preprocessing
from convatlas.sources import ZOO


@dataclass
class Made:
    """A network as it is before training, if it is trained; `weights` says where its weights come from."""

    network: nn.Module
    preprocessing: Preprocessing
    arguments: dict[str, Any]
    classes: list[str]
    weights: dict[str, Any]


def main(given: argparse.Namespace) -> None:
    torch.set_num_threads(given.threads)
    started = datetime.now(UTC)
    device = networks.choose_device(given.device)
    data = datasets.describe(given.data) if given.data else None
    made = make(given, data, f"networks.{given.name}")
    made.network.to(device)

    trained, found, seconds = data is not None and not given.settings.get("weights"), training.Fit(), None
    if trained:
        clock = time.perf_counter()
        train, validation = training.hold_out(
            split(given.data, "train", made.preprocessing, device),
            given.settings["training"]["validation"],
            given.seed,
        )
        found = training.fit(
            made.network, made.preprocessing, train, validation, given.settings["training"], given.seed
        )
        seconds = time.perf_counter() - clock
        cli.log.info("trained in %.1f s", seconds)
        found_in = {"kept_epoch": found.kept_epoch, "precision": found.precision, "images": len(train)}
    metrics = test(made, data, given.data, device)

    output = Path(given.output)
    state = {name: tensor.cpu().contiguous().clone() for name, tensor in made.network.state_dict().items()}
    write_bytes(output / "weights.safetensors", save(state))
    write_bytes(output / "history.csv", _csv(found.history))
    write_json(output / "metrics.json", metrics)
    write_json(
        output / "network.json",
        {
            "architecture": given.settings["architecture"],
            "arguments": made.arguments,
            "parameters": sum(parameter.numel() for parameter in made.network.parameters()),
            "weights": made.weights | {"sha256": sha256(output / "weights.safetensors")},
            "dataset": given.settings.get("dataset"),
            "dataset_sha256": data and data["sha256"],
            "dataset_classes": data and data["classes"],
            "classes": made.classes,
            "preprocessing": made.preprocessing.described(),
            "training": given.settings["training"] | found_in if trained else None,
            "seed": given.seed,
            "device": device.type,
            "versions": versions(),
        },
    )
    write_json(
        output / "timing.json",
        {
            "started": started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "training_seconds": seconds and round(seconds, 2),
            "images_per_second": seconds and round(len(train) * len(found.history) / seconds),
            "threads": given.threads,
        },
    )


def make(given: argparse.Namespace, data: dict[str, Any] | None, key: str) -> Made:
    """Build the network, with its trained weights if it has them. Raises UserError, which names the key."""
    settings = given.settings
    wanted, of_zoo = settings.get("weights"), settings["architecture"].startswith(ZOO)
    named = classes.named(settings.get("classes"), f"{key}.classes")
    source, state = zoo_weights(given, key) if isinstance(wanted, str) else ({}, None)

    known = named or (data["classes"] if data and not (wanted and of_zoo) else None)
    factory = networks.factory_of(settings, key)
    arguments = factory.arguments(settings.get("arguments") or {}, known)
    network, preprocessing = networks.build(settings | {"arguments": arguments}, None, given.seed, key, state)
    if isinstance(wanted, dict):
        weights.load(network, wanted, f"{key}.weights")
        source = {"origin": wanted["path"], "source_sha256": sha256(Path(wanted["path"]).expanduser())}
    elif not wanted:
        source = {"origin": "trained here" if data else f"random, seed {given.seed}"}

    outputs = networks.class_count(network, preprocessing)
    if data and not wanted:
        check_trainable(outputs, data, named, key)
    names = named or source.pop("categories", None)
    if not names and data and (not wanted or len(data["classes"]) == outputs):
        names = data["classes"]
    names = classes.checked(names, outputs, f"{key}.classes")
    origin = dict.fromkeys(("origin", "name", "url", "source_sha256", "metrics")) | source
    return Made(network, preprocessing, arguments, names, origin)


def zoo_weights(given: argparse.Namespace, key: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
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
    return source, weights.read(given.weights, f"{key}.weights")


def check_trainable(outputs: int | None, data: dict[str, Any], named: list[str] | None, key: str) -> None:
    """Raise UserError where a network cannot be trained on a data set."""
    if not data["classes"]:
        raise UserError(f"{key}.dataset: it has no classes to train on; give weights, or leave dataset out")
    if outputs is None:
        raise UserError(
            f"{key}.dataset: the network gives no scores (N, classes), which alone are trained here"
        )
    if len(named or data["classes"]) != len(data["classes"]) or outputs != len(data["classes"]):
        raise UserError(
            f"{key}.dataset: it has {len(data['classes'])} classes, the network {outputs} outputs"
            + (f", and there are {len(named)} names" if named else "")
            + f"; mend {key}.arguments or classes"
        )


def test(made: Made, data: dict[str, Any] | None, folder: str, device: torch.device) -> dict[str, Any]:
    """Metrics on the test images; {} without a data set, or where its classes are not the network's."""
    if not data or not data["classes"] or not sum(data["counts"]["test"]):
        return {}
    own_names = made.weights["name"] is None  # torchvision's classes are those of its names
    outputs = networks.class_count(made.network, made.preprocessing)
    if outputs != len(data["classes"]) or not (own_names or made.classes == data["classes"]):
        cli.log.info("not tested: the data set's classes are not the network's")
        return {}
    _, confusion = training.evaluate(
        made.network, made.preprocessing, split(folder, "test", made.preprocessing, device)
    )
    metrics = training.metrics(confusion, made.classes)
    cli.log.info("test accuracy %.2f %%", 100 * metrics["accuracy"])
    return metrics


def split(folder: str, name: str, preprocessing: Preprocessing, device: torch.device) -> training.Split:
    """A split in memory, at the network's size as far as it is made of image files."""
    examples = datasets.load(folder, name)
    pixels = examples.pixels(preprocessing.mode, preprocessing.size, preprocessing.resize)
    return training.Split(torch.tensor(pixels, device=device), torch.tensor(examples.labels, device=device))


def versions() -> dict[str, str]:
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


def _csv(rows: list[dict[str, float]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, training.COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    cli.add_section(
        parser,
        "network",
        "its architecture, arguments, weights, classes, dataset, input and training from the config",
        "its folder, results/<network>",
    )
    parser.add_argument("--data", help="the data set's folder, data/<dataset>, if it has one")
    parser.add_argument("--weights", help="the file of torchvision's weights, if it has them")
    cli.add_compute(parser)
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and validation split")
    cli.run(main, parser)
