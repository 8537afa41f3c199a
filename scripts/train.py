"""Build a network, train it on its data set, and test it once."""

import argparse
import csv
import io
import platform
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy
import torch
from safetensors.torch import save

import convatlas
from convatlas import cli, datasets, networks, training
from convatlas.files import sha256, write_bytes, write_json


def main(given: argparse.Namespace) -> None:
    torch.set_num_threads(given.threads)
    started = datetime.now(UTC)
    device = networks.choose_device(given.device)
    data = datasets.describe(given.data)
    network, preprocessing = networks.build(
        given.settings, data["classes"], given.seed, f"networks.{given.name}.input"
    )
    network.to(device)

    clock = time.perf_counter()
    every = _split(given.data, "train", device)
    train, validation = training.hold_out(every, given.settings["training"]["validation"], given.seed)
    found = training.fit(network, preprocessing, train, validation, given.settings["training"], given.seed)
    trained = time.perf_counter() - clock
    _, confusion = training.evaluate(network, preprocessing, _split(given.data, "test", device))
    tested = training.metrics(confusion, data["classes"])
    cli.log.info("trained in %.1f s; test accuracy %.2f %%", trained, 100 * tested["accuracy"])

    output = Path(given.output)
    state = {name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()}
    write_bytes(output / "weights.safetensors", save(state))
    write_bytes(output / "history.csv", _csv(found.history))
    write_json(output / "metrics.json", tested)
    write_json(
        output / "network.json",
        {
            "architecture": given.settings["architecture"],
            "arguments": {"classes": len(data["classes"])},
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "weights": {"origin": "trained here", "sha256": sha256(output / "weights.safetensors")},
            "dataset": given.settings["dataset"],
            "dataset_sha256": data["sha256"],
            "classes": data["classes"],
            "preprocessing": networks.described(preprocessing),
            "training": given.settings["training"]
            | {"kept_epoch": found.kept_epoch, "precision": found.precision, "images": len(train)},
            "seed": given.seed,
            "device": device.type,
            "versions": {
                "convatlas": convatlas.__version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "numpy": numpy.__version__,
            },
        },
    )
    write_json(
        output / "timing.json",
        {
            "started": started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "training_seconds": round(trained, 2),
            "images_per_second": round(len(train) * len(found.history) / trained),
            "threads": given.threads,
        },
    )


def _split(folder: str, split: str, device: torch.device) -> training.Split:
    images, labels = datasets.load(folder, split)
    return training.Split(torch.tensor(images, device=device), torch.tensor(labels, device=device))


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
        "its architecture, dataset, input and training from the config",
        "its folder, results/<network>",
    )
    parser.add_argument("--data", required=True, help="the data set's folder, data/<dataset>")
    cli.add_compute(parser)
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and validation split")
    cli.run(main, parser)
