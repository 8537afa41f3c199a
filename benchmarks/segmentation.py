"""Images per second in training SD-UNet: this project's loop, and a plain PyTorch loop.

Both train the same network with batches of the same size on the same images, in a memory-mapped file: the
plain loop with a DataLoader over tensors, without augmentation, in float32; this project's loop as in the
pipeline, in channels_last, without and with augmentation. The loops take turns, an epoch each.

    python benchmarks/segmentation.py
"""

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from convatlas.models.architectures.sd_unet import INPUT, sd_unet
from convatlas.models.preprocessing import Preprocessing
from convatlas.training.labelled_images import LabelledImages
from convatlas.training.trainer import Trainer

BATCH_SIZE = 16
SIZES = [(8, 64), (16, 96)]  # widths of the network, and pixels a side
WITHOUT_AUGMENTATION = {
    "batch_size": BATCH_SIZE,
    "lr": 0.004,
    "optimizer": "adamw",
    "schedule": "one_cycle",
    "weight_decay": 0.01,
    "shift": 0,
    "flip": False,
    "crop": 1.0,
    "scale": 1.0,
    "stretch": 0.0,
    "rotate": 0.0,
    "colour": 0.0,
    "ema_decay": 0.0,
    "progressive_resize": None,
    "precision": "float32",
}
WITH_AUGMENTATION = WITHOUT_AUGMENTATION | {
    "flip": True,
    "crop": 0.6,
    "scale": 1.3,
    "stretch": 0.2,
    "rotate": 10.0,
    "colour": 0.3,
}


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(2)
    print(f"load of the last minute: {psutil.getloadavg()[0]:.1f}")
    sizes, count, rounds = ([(2, 32)], BATCH_SIZE, 1) if args.smallest else (SIZES, 96, 3)
    for width, size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            images, masks = (torch.from_numpy(array) for array in map_arrays(Path(folder), count, size))
            compare(width, size, images, masks, rounds)


def map_arrays(folder: Path, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Write random images and masks, and return them memory-mapped."""
    rng = np.random.default_rng(0)
    np.save(folder / "images.npy", rng.integers(0, 256, (count, 3, size, size), dtype=np.uint8))
    np.save(folder / "masks.npy", rng.integers(0, 3, (count, size, size), dtype=np.uint8))
    return np.load(folder / "images.npy", mmap_mode="c"), np.load(folder / "masks.npy", mmap_mode="c")


def compare(width: int, size: int, images: torch.Tensor, masks: torch.Tensor, rounds: int) -> None:
    """Run the loops in turns, and print their rates and their ratios to the plain loop."""
    preprocessing = Preprocessing.from_config(INPUT | {"size": size})
    split = LabelledImages(images, masks)
    loops = {
        "plain loop": make_plain_epoch(sd_unet(width), preprocessing, images, masks),
        "ours": make_epoch(sd_unet(width), preprocessing, split, WITHOUT_AUGMENTATION, rounds),
        "ours, augmented": make_epoch(sd_unet(width), preprocessing, split, WITH_AUGMENTATION, rounds),
    }
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(rounds + 1):
        for name, train_epoch in loops.items():
            start = time.perf_counter()
            train_epoch()
            if number:  # the first warms up
                rates[name].append(len(images) / (time.perf_counter() - start))
    for name, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(values, rates["plain loop"], strict=True))
        print(
            f"width {width:2} {size} px  {name:16} {statistics.median(values):6.1f} images/s  {ratio:.2f} x"
        )


def make_plain_epoch(
    network: nn.Module, preprocessing: Preprocessing, images: torch.Tensor, masks: torch.Tensor
) -> Callable[[], Any]:
    """Return a function that trains for an epoch in a plain PyTorch loop."""
    loader = DataLoader(TensorDataset(images, masks), BATCH_SIZE, shuffle=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.004)

    def train_epoch() -> None:
        network.train()
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(network(preprocessing(x)), y.long()).backward()
            optimizer.step()

    return train_epoch


def make_epoch(
    network: nn.Module,
    preprocessing: Preprocessing,
    split: LabelledImages,
    settings: dict[str, Any],
    rounds: int,
) -> Callable[[], Any]:
    """Return a function that trains for an epoch as the pipeline does."""
    network.to(memory_format=torch.channels_last)
    steps = math.ceil(len(split) / BATCH_SIZE)
    trainer = Trainer(network, preprocessing, settings, epochs=rounds + 1, steps=steps, seed=0)
    return lambda: trainer.train_epoch(split)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--smallest", action="store_true", help="a tiny network, in seconds: only tests that it runs"
    )
    main(parser.parse_args())
