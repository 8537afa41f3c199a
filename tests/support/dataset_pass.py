"""Networks and data sets small enough for a pass over a data set, and the pass itself."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from convatlas.datasets import formats
from convatlas.datasets.idx import write_idx
from convatlas.files import write_json
from convatlas.models import build
from convatlas.models.outputs import Output
from convatlas.statistics.dataset_pass import run_shard
from convatlas.statistics.summary import write_statistics
from convatlas.tracing.layers import list_layers

SETTINGS: dict[str, Any] = {"layers": "all", "k": 9, "split": "test", "batch": 8, "on_bad_image": "error"}
CPU = torch.device("cpu")


def run_pass(
    folder: Path, data: Path, shards: int = 1, settings: dict[str, Any] = SETTINGS
) -> dict[str, bytes]:
    """Run all shards, merge them, and return the bytes of the merged files."""
    for shard in range(shards):
        run_shard(folder, data, settings, shard, shards, CPU)
    write_statistics(folder, data, settings, shards)
    return {name: (folder / name).read_bytes() for name in ("statistics.npz", "statistics.json")}


def write_network(
    folder: Path, network: nn.Module, description: dict[str, Any], shape: tuple[int, ...]
) -> Path:
    """Write the files of a network's folder that a pass reads."""
    folder.mkdir(parents=True)
    save_file(network.state_dict(), folder / "weights.safetensors")
    write_json(folder / "network.json", description)
    write_json(folder / "layers.json", list_layers(network, shape))
    return folder


def write_lenet5(folder: Path) -> Path:
    """Write the folder of an untrained LeNet-5."""
    classes = [str(n) for n in range(10)]
    network, preprocessing = build.build_network({"architecture": "lenet5"}, classes, seed=3)
    description = {
        "architecture": "lenet5",
        "arguments": {},
        "weights": {"name": None},
        "classes": classes,
        "output": Output("log-softmax", "", (10,)).to_dict(),
        "preprocessing": preprocessing.to_dict(),
    }
    return write_network(folder, network, description, preprocessing.shape)


def write_resnet18(folder: Path) -> Path:
    """Write the folder of an untrained ResNet-18 of four classes and inputs of 40 pixels a side."""
    settings = {
        "architecture": "torchvision/resnet18",
        "input": {"size": 40},
        "arguments": {"num_classes": 4},
    }
    network, preprocessing = build.build_network(settings, None, seed=3)
    description = {
        "architecture": settings["architecture"],
        "arguments": settings["arguments"],
        "weights": {"name": None},
        "classes": ["a", "b", "c", "d"],
        "output": Output("softmax", "", (4,)).to_dict(),
        "preprocessing": preprocessing.to_dict(),
    }
    return write_network(folder, network, description, preprocessing.shape)


def write_digits(folder: Path, count: int = 45) -> Path:
    """Write an MNIST of noise whose last third repeats its first third; return data/<dataset>."""
    random = np.random.default_rng(0)
    raw = folder / "source/MNIST/raw"
    for split in ("train", "t10k"):
        images = random.integers(0, 256, (count, 28, 28))
        images[2 * count // 3 :] = images[: count - 2 * count // 3]
        write_idx(raw / f"{split}-images-idx3-ubyte", images)
        write_idx(raw / f"{split}-labels-idx1-ubyte", np.arange(count) % 10)
    settings = {"format": "mnist", "mirrors": [], "source": str(folder / "source")}
    formats.prepare(folder / "digits", settings, "datasets.digits")
    return folder / "digits"


def write_photographs(
    folder: Path, classes: tuple[str, ...] = ("ant", "bee"), on_bad_image: str = "error"
) -> Path:
    """Write 12 image files of noise per class, without classes in one folder; return data/<dataset>."""
    random = np.random.default_rng(1)
    for name in classes or ("",):
        (folder / "source" / name).mkdir(parents=True, exist_ok=True)
        for n in range(12):
            pixels = random.integers(0, 256, (50, 44, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"source/{name}/{n:02d}.png")
    source = str(folder / "source")
    settings = {"format": "images", "test_share": 0.5, "on_bad_image": on_bad_image, "source": source}
    formats.prepare(folder / "pictures", settings, "datasets.pictures")
    return folder / "pictures"
