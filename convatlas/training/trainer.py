"""Training and evaluation of a network that tells apart images, or each image's pixels."""

import logging
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import swa_utils

from convatlas.datasets.formats import UNKNOWN
from convatlas.models.build import device_of, main_output, to_device
from convatlas.models.preprocessing import Preprocessing
from convatlas.training import checkpoint
from convatlas.training.augmentation import augmented, resized
from convatlas.training.checkpoint import Checkpoint
from convatlas.training.metrics import accuracy, mean_iou

log = logging.getLogger(__name__)

EVALUATION_BATCH = 500  # images; of pixels' classes as many as are trained on at a time
COLUMNS = ("epoch", "lr", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
OF_PIXELS = "validation_mean_iou"  # one more column


class Split:
    """Images (N, C, H, W) uint8 with labels: (N,) int64, or a class a pixel, (N, H, W) uint8.

    Indexed it is a part of itself, which copies nothing: what lies in a file is read batch by batch.
    """

    def __init__(self, images: Tensor, labels: Tensor, rows: Tensor | None = None) -> None:
        self._images, self._labels = images, labels
        self.rows = torch.arange(len(labels), device=labels.device) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor | slice) -> "Split":
        return Split(self._images, self._labels, self.rows[index])

    @property
    def images(self) -> Tensor:
        return self._images[self.rows]

    @property
    def labels(self) -> Tensor:
        return self._labels[self.rows]

    @property
    def of_pixels(self) -> bool:
        """Whether each pixel has a class."""
        return self._labels.ndim > 1


@dataclass
class Fit:
    """What training found: one row an epoch, and the epoch whose weights were kept."""

    history: list[dict[str, float]] = field(default_factory=list)
    kept_epoch: int = 0
    precision: str = "float32"
    resumed: int = 0  # epochs that an earlier, interrupted training had done


def hold_out(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Divide a split at random into the part to train on and a share to validate on."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed)).to(split.rows.device)
    held = max(1, round(share * len(split)))
    return split[order[held:]], split[order[:held]]


def fit(
    network: nn.Module,
    preprocessing: Preprocessing,
    train: Split,
    validation: Split,
    settings: dict[str, Any],
    seed: int,
    kept_in: Checkpoint | None = None,
) -> Fit:
    """Train in place, and leave the network with the weights of its best epoch by validation.

    `settings` is the `training` section of the config; where it crops, `train` may be of larger images
    than the network's, for their parts to be sharp. The same seed on the same machine gives the same
    weights, bit for bit; so does training that was interrupted, which goes on after the last epoch in
    `kept_in`. Best is the highest accuracy, of pixels the highest mean IoU.
    """
    steps = math.ceil(len(train) / settings["batch_size"])
    epochs = epochs_within(settings, steps)
    if epochs < settings["epochs"]:
        log.info("max_steps %d: %d epochs, not %d", settings["max_steps"], epochs, settings["epochs"])
    network.to(memory_format=torch.channels_last)  # up to twice as fast on CPU too
    run = Run(network, preprocessing, settings, epochs, steps, seed)
    log.info("%d images, %d to validate, %s, %s", len(train), len(validation), run.device, run.fit.precision)
    if kept_in and (kept := kept_in.load()):
        run.resume(*kept, steps)
        log.info("going on after epoch %d of %d", len(run.fit.history), epochs)
    for epoch in range(len(run.fit.history) + 1, epochs + 1):
        trained = run.one_epoch(train)
        size = settings["batch_size"] if validation.of_pixels else EVALUATION_BATCH
        loss, confusion = evaluate(run.judged, preprocessing, validation, run.fit.precision, size)
        row = dict(zip(COLUMNS, [epoch, *trained, loss, accuracy(confusion)], strict=True))
        score = row["validation_accuracy"]
        if validation.of_pixels:
            score = row[OF_PIXELS] = mean_iou(confusion)
        run.judge(row, (score, -loss))
        log.info(
            "epoch %d/%d  loss %.4f  accuracy %.4f  validation %.4f, %.4f%s",
            *[epoch, epochs, *list(row.values())[2:6]],
            f", mean IoU {score:.4f}" if validation.of_pixels else "",
        )
        if kept_in:
            kept_in.save(*run.kept())
    network.load_state_dict(run.best_weights)
    network.to(memory_format=torch.contiguous_format).eval()
    return run.fit


class Run:
    """A training under way: the network with all that changes beside it from step to step."""

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        settings: dict[str, Any],
        epochs: int,
        steps: int,
        seed: int,
    ) -> None:
        self.network, self.preprocessing, self.settings = network, preprocessing, settings
        self.device = device_of(network)
        self.fit = Fit(precision=choose_precision(settings["precision"], self.device))
        self.optimizer = _optimizer(network, settings)
        self.schedule = _schedule(self.optimizer, settings, epochs * steps)
        self.coarse_epochs = round(epochs * settings["coarse"]["share"]) if settings["coarse"] else 0
        self.shuffle = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # what dropout draws from
        self.averaged = _averaged(network, settings["average"])
        self.best = (-1.0, -math.inf)
        self.best_weights: dict[str, Tensor] = {}

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and kept: the one that is trained, or its average over the steps."""
        return self.averaged.module if self.averaged else self.network

    def one_epoch(self, train: Split) -> tuple[float, float, float]:
        """Go over the training images once, in an order that `shuffle` draws.

        Gives the learning rate of the last step, the mean loss and the accuracy.
        """
        self.network.train()
        how = self.preprocessing
        if len(self.fit.history) < self.coarse_epochs:
            how = replace(how, size=self.settings["coarse"]["size"])
        loss_sum, hits, known = torch.zeros(3, device=self.device)
        order = torch.randperm(len(train), generator=self.shuffle)
        for images, labels in _batches(train, self.settings["batch_size"], order, self.device):
            masks = labels if train.of_pixels else None
            images, masks = augmented(images, masks, self.settings, how.size, self.shuffle)
            if masks is not None:
                labels = (masks if how.size == masks.shape[-1] else resized(masks, how.size)).long()
            logits = _forward(self.network, how, images, self.fit.precision).float()
            loss = F.cross_entropy(logits, labels, ignore_index=UNKNOWN)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            lr = self.optimizer.param_groups[0]["lr"]
            self.schedule.step()
            if self.averaged:
                self.averaged.update_parameters(self.network)
            loss_sum += loss.detach() * len(images)
            hits += (logits.argmax(1) == labels).sum()
            known += (labels != UNKNOWN).sum()
        return lr, float(loss_sum) / len(train), float(hits) / float(known)

    def judge(self, row: dict[str, float], score: tuple[float, float]) -> None:
        """Add an epoch's row to the history, and keep the weights if none were better."""
        self.fit.history.append(row)
        if score >= self.best:
            self.best, self.fit.kept_epoch = score, int(row["epoch"])
            self.best_weights = {n: t.clone() for n, t in self.judged.state_dict().items()}

    def kept(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the next epoch depends on, and what was found; numbers as tensors, which have NaN."""
        rows = [list(row.values()) for row in self.fit.history]
        tensors = {
            **checkpoint.under("network", self.network.state_dict()),
            **checkpoint.under("best", self.best_weights),
            **checkpoint.under("optimizer", checkpoint.of_optimizer(self.optimizer)),
            **checkpoint.under("generator", checkpoint.of_generators(self.shuffle)),
            "history": torch.tensor(rows, dtype=torch.float64),
            "score": torch.tensor(self.best, dtype=torch.float64),
        }
        if self.averaged:
            tensors |= checkpoint.under("averaged", self.averaged.state_dict())
        return tensors, {"columns": list(self.fit.history[0]), "kept_epoch": self.fit.kept_epoch}

    def resume(self, tensors: dict[str, Tensor], values: dict[str, Any], steps: int) -> None:
        """Take up what `kept` gave, after epochs of `steps` steps."""
        rows = [dict(zip(values["columns"], row, strict=True)) for row in tensors["history"].tolist()]
        self.fit.history = [row | {"epoch": int(row["epoch"])} for row in rows]
        self.fit.kept_epoch, self.fit.resumed = values["kept_epoch"], len(rows)
        self.best = tuple(tensors["score"].tolist())
        self.best_weights = checkpoint.within("best", tensors)
        self.network.load_state_dict(checkpoint.within("network", tensors))
        if self.averaged:
            self.averaged.load_state_dict(checkpoint.within("averaged", tensors))
        checkpoint.into_optimizer(self.optimizer, checkpoint.within("optimizer", tensors))
        checkpoint.into_generators(self.shuffle, checkpoint.within("generator", tensors))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")  # no step comes before
            for _ in range(len(rows) * steps):
                self.schedule.step()


def epochs_within(settings: dict[str, Any], steps: int) -> int:
    """Epochs of `steps` steps each, at most as many as `max_steps` allows, rounded up."""
    if settings["max_steps"] is None:
        return settings["epochs"]
    return min(settings["epochs"], math.ceil(settings["max_steps"] / steps))


@torch.no_grad()
def evaluate(
    network: nn.Module,
    preprocessing: Preprocessing,
    split: Split,
    precision: str = "float32",
    batch_size: int = EVALUATION_BATCH,
) -> tuple[float, Tensor]:
    """Give the mean cross-entropy and the confusion matrix (classes, classes), a row a true class."""
    network.eval()
    loss, confusion = 0.0, torch.zeros(0)
    for images, given in _batches(split, batch_size, torch.arange(len(split)), device_of(network)):
        labels = given.long()
        logits = _forward(network, preprocessing, images, precision).float()
        mean = float(F.cross_entropy(logits, labels, ignore_index=UNKNOWN))
        loss += mean * len(images)
        classes, known = logits.shape[1], labels != UNKNOWN
        cells = (labels * classes + logits.argmax(1))[known].flatten()
        counts = torch.bincount(cells, minlength=classes * classes).cpu().reshape(classes, classes)
        confusion = counts if not confusion.numel() else confusion + counts
    return loss / len(split), confusion


def choose_precision(name: str, device: torch.device) -> str:
    """Resolve `auto`: bfloat16 where the hardware has it (benchmarks/training.py)."""
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


def _batches(split: Split, size: int, order: Tensor, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(order), size):
        part = split[order[start : start + size].to(split.rows.device)]
        yield to_device(part.images, device), to_device(part.labels, device)


def _optimizer(network: nn.Module, settings: dict[str, Any]) -> torch.optim.Optimizer:
    common = {"lr": settings["lr"], "weight_decay": settings["weight_decay"]}
    if settings["optimizer"] == "sgd":
        return torch.optim.SGD(network.parameters(), momentum=0.9, nesterov=True, **common)
    kind = torch.optim.AdamW if settings["optimizer"] == "adamw" else torch.optim.Adam
    return kind(network.parameters(), fused=True, **common)


def _averaged(network: nn.Module, share: float) -> swa_utils.AveragedModel | None:
    """A moving average of a network's weights and buffers, of which `share` stays at each step; 0 for none.

    Validated at every epoch it is steadier than the network itself (Tarvainen & Valpola, arXiv 1703.01780).
    """
    if not share:
        return None
    return swa_utils.AveragedModel(
        network, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(share), use_buffers=True
    )


def _schedule(
    optimizer: torch.optim.Optimizer, settings: dict[str, Any], steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if settings["schedule"] == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, settings["lr"], total_steps=max(2, steps))
    if settings["schedule"] == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
