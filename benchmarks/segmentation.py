"""Images a second in training SD-UNet: this project's loop, beside a plain one of PyTorch's.

Both train the same network with batches of the same size on the same images, which lie in a file that
is mapped into memory: the plain one by a DataLoader over tensors, no augmentation, float32; ours as the
pipeline does, in channels_last, without and with augmentation. The sides take turns, an epoch each.

    python benchmarks/segmentation.py
"""

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

IMAGES, BATCH = 96, 16
ROUNDS = 3
PLAIN = {
    "batch_size": BATCH,
    "lr": 0.004,
    "optimizer": "adamw",
    "schedule": "one_cycle",
    "weight_decay": 0.01,
}
PLAIN |= {"shift": 0, "flip": False, "crop": 1.0, "scale": 1.0, "stretch": 0.0, "rotate": 0.0, "colour": 0.0}
PLAIN |= {"ema_decay": 0.0, "progressive_resize": None}
PLAIN |= {"precision": "float32"}
FULL = PLAIN | {"flip": True, "crop": 0.6, "scale": 1.3, "stretch": 0.2, "rotate": 10.0, "colour": 0.3}


def main() -> None:
    torch.set_num_threads(2)
    print(f"load of the last minute: {psutil.getloadavg()[0]:.1f}")
    for width, size in ((8, 64), (16, 96)):
        with tempfile.TemporaryDirectory() as folder:
            images, masks = (torch.from_numpy(array) for array in mapped(Path(folder), size))
            compared(width, size, images, masks)


def mapped(folder: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images and masks in files, mapped."""
    rng = np.random.default_rng(0)
    np.save(folder / "images.npy", rng.integers(0, 256, (IMAGES, 3, size, size), dtype=np.uint8))
    np.save(folder / "masks.npy", rng.integers(0, 3, (IMAGES, size, size), dtype=np.uint8))
    return tuple(np.load(folder / f"{name}.npy", mmap_mode="c") for name in ("images", "masks"))


def compared(width: int, size: int, images: torch.Tensor, masks: torch.Tensor) -> None:
    how = Preprocessing.from_config(INPUT | {"size": size})
    split = LabelledImages(images, masks)
    sides = {
        "plain loop": plain(sd_unet(width), how, images, masks),
        "ours": ours(sd_unet(width), how, split, PLAIN),
        "ours, augmented": ours(sd_unet(width), how, split, FULL),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(ROUNDS + 1):
        for name, epoch in sides.items():
            start = time.perf_counter()
            epoch()
            if round_:  # the first warms up
                rates[name].append(IMAGES / (time.perf_counter() - start))
    for name, found in rates.items():
        ratio = statistics.median(a / b for a, b in zip(found, rates["plain loop"], strict=True))
        print(f"width {width:2} {size} px  {name:16} {statistics.median(found):6.1f} images/s  {ratio:.2f} x")


def plain(
    network: nn.Module, how: Preprocessing, images: torch.Tensor, masks: torch.Tensor
) -> Callable[[], Any]:
    loader = DataLoader(TensorDataset(images, masks), BATCH, shuffle=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.004)

    def epoch() -> None:
        network.train()
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(network(how(x)), y.long()).backward()
            optimizer.step()

    return epoch


def ours(
    network: nn.Module, how: Preprocessing, split: LabelledImages, settings: dict[str, Any]
) -> Callable[[], Any]:
    network.to(memory_format=torch.channels_last)
    run = Trainer(network, how, settings, (ROUNDS + 1) * len(split) // BATCH, seed=0)
    return lambda: run.train_epoch(split)


if __name__ == "__main__":
    main()
