"""Training and evaluation of a classifier on images held in memory."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convatlas.networks import main_output
from convatlas.preprocessing import Preprocessing

log = logging.getLogger(__name__)

EVALUATION_BATCH = 500
COLUMNS = ("epoch", "lr", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy")


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) uint8 and labels (N,) int64, both on the device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> "Split":
        return Split(self.images[index], self.labels[index])


@dataclass
class Fit:
    """What training found: one row an epoch, and the epoch whose weights were kept."""

    history: list[dict[str, float]] = field(default_factory=list)
    kept_epoch: int = 0
    precision: str = "float32"


def hold_out(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Divide a split at random into the part to train on and a share to validate on."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    held = max(1, round(share * len(split)))
    return split[order[held:].to(split.labels.device)], split[order[:held].to(split.labels.device)]


def fit(
    network: nn.Module,
    preprocessing: Preprocessing,
    train: Split,
    validation: Split,
    settings: dict[str, Any],
    seed: int,
) -> Fit:
    """Train in place, and leave the network with the weights of its best epoch by validation.

    `settings` is the `training` section of the config. The same seed on the same machine gives
    the same weights, bit for bit.
    """
    device = train.labels.device
    steps = math.ceil(len(train) / settings["batch_size"])
    epochs = epochs_within(settings, steps)
    if epochs < settings["epochs"]:
        log.info("max_steps %d: %d epochs, not %d", settings["max_steps"], epochs, settings["epochs"])
    found = Fit(precision=choose_precision(settings["precision"], device))
    log.info("%d images, %d to validate, %s, %s", len(train), len(validation), device, found.precision)
    network.to(memory_format=torch.channels_last)  # up to twice as fast on CPU too
    optimizer = _optimizer(network, settings)
    schedule = _schedule(optimizer, settings, epochs * steps)
    shuffle = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # what dropout draws from
    best, kept = (-1.0, -math.inf), {}
    for epoch in range(1, epochs + 1):
        trained = _one_epoch(
            network, preprocessing, train, settings, found.precision, optimizer, schedule, shuffle
        )
        validation_loss, confusion = evaluate(network, preprocessing, validation, found.precision)
        row = [epoch, *trained, validation_loss, accuracy(confusion)]
        found.history.append(dict(zip(COLUMNS, row, strict=True)))
        log.info("epoch %d/%d  loss %.4f  accuracy %.4f  validation %.4f, %.4f", epoch, epochs, *row[2:])
        score = (accuracy(confusion), -validation_loss)
        if score >= best:
            best, found.kept_epoch = score, epoch
            kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(kept)
    network.to(memory_format=torch.contiguous_format).eval()
    return found


def _one_epoch(
    network: nn.Module,
    preprocessing: Preprocessing,
    train: Split,
    settings: dict[str, Any],
    precision: str,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    shuffle: torch.Generator,
) -> tuple[float, float, float]:
    """Go over the training images once, in an order that `shuffle` draws.

    Gives the learning rate of the last step, the mean loss and the accuracy.
    """
    network.train()
    loss_sum = torch.zeros((), device=train.labels.device)
    hits = torch.zeros((), device=train.labels.device)
    for batch in _batches(train, settings["batch_size"], torch.randperm(len(train), generator=shuffle)):
        images = shifted(batch.images, settings["shift"], shuffle)
        if settings["flip"]:
            images = flipped(images, shuffle)
        logits = _forward(network, preprocessing, images, precision)
        loss = F.cross_entropy(logits.float(), batch.labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        lr = optimizer.param_groups[0]["lr"]
        schedule.step()
        loss_sum += loss.detach() * len(batch)
        hits += (logits.argmax(1) == batch.labels).sum()
    return lr, float(loss_sum) / len(train), float(hits) / len(train)


def shifted(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Shift each image (N, C, H, W) by up to `most` pixels either way on both axes, zeros coming in."""
    if not most:
        return images
    n, _, height, width = images.shape
    top, left = torch.randint(2 * most + 1, (2, n, 1), generator=generator).to(images.device)
    rows = (top + torch.arange(height, device=images.device))[:, None, :, None]
    columns = (left + torch.arange(width, device=images.device))[:, None, None, :]
    padded = F.pad(images, [most] * 4)
    return padded[
        torch.arange(n, device=images.device)[:, None, None, None],
        torch.arange(images.shape[1], device=images.device)[None, :, None, None],
        rows,
        columns,
    ]


def flipped(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror about half of the images (N, C, H, W), left to right."""
    chosen = torch.randint(2, (len(images), 1, 1, 1), generator=generator).to(images.device)
    return torch.where(chosen.bool(), images.flip(3), images)


def epochs_within(settings: dict[str, Any], steps: int) -> int:
    """Epochs of `steps` steps each, at most as many as `max_steps` allows, rounded up."""
    if settings["max_steps"] is None:
        return settings["epochs"]
    return min(settings["epochs"], math.ceil(settings["max_steps"] / steps))


@torch.no_grad()
def evaluate(
    network: nn.Module, preprocessing: Preprocessing, split: Split, precision: str = "float32"
) -> tuple[float, Tensor]:
    """Give the mean cross-entropy and the confusion matrix (classes, classes), a row a true class."""
    network.eval()
    loss, cells, classes = 0.0, [], 0
    for batch in _batches(split, EVALUATION_BATCH, torch.arange(len(split))):
        logits = _forward(network, preprocessing, batch.images, precision).float()
        loss += float(F.cross_entropy(logits, batch.labels, reduction="sum"))
        classes = logits.shape[1]
        cells.append((batch.labels * classes + logits.argmax(1)).cpu())
    confusion = torch.bincount(torch.cat(cells), minlength=classes * classes)
    return loss / len(split), confusion.reshape(classes, classes)


def accuracy(confusion: Tensor) -> float:
    return float(confusion.trace()) / float(confusion.sum())


def metrics(confusion: Tensor, classes: list[str]) -> dict[str, Any]:
    """Sum up a confusion matrix: accuracy, accuracy of each class (null where it has no image)."""
    counts = confusion.sum(1).tolist()
    hits = confusion.diagonal().tolist()
    return {
        "accuracy": accuracy(confusion),
        "class_accuracy": {
            name: hit / count if count else None
            for name, hit, count in zip(classes, hits, counts, strict=True)
        },
        "confusion": confusion.tolist(),
        "images": int(confusion.sum()),
    }


def choose_precision(name: str, device: torch.device) -> str:
    """Resolve `auto`: bfloat16 where the hardware has it (benchmarks/training.py: faster on each network)."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    instructions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # without them it is emulated
    native = any(getattr(torch.cpu, name, lambda: False)() for name in instructions)
    return "bfloat16" if native else "float32"


def _forward(network: nn.Module, preprocessing: Preprocessing, images: Tensor, precision: str) -> Tensor:
    x = preprocessing(images).to(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        return main_output(network(x))


def _batches(split: Split, size: int, order: Tensor) -> Iterator[Split]:
    for start in range(0, len(order), size):
        yield split[order[start : start + size].to(split.labels.device)]


def _optimizer(network: nn.Module, settings: dict[str, Any]) -> torch.optim.Optimizer:
    common = {"lr": settings["lr"], "weight_decay": settings["weight_decay"]}
    if settings["optimizer"] == "sgd":
        return torch.optim.SGD(network.parameters(), momentum=0.9, nesterov=True, **common)
    kind = torch.optim.AdamW if settings["optimizer"] == "adamw" else torch.optim.Adam
    return kind(network.parameters(), fused=True, **common)


def _schedule(
    optimizer: torch.optim.Optimizer, settings: dict[str, Any], steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if settings["schedule"] == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, settings["lr"], total_steps=max(2, steps))
    if settings["schedule"] == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
