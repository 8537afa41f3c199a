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

from convatlas.datasets.formats import IGNORE_INDEX
from convatlas.models.build import get_device, select_main_output, to_device
from convatlas.models.preprocessing import Preprocessing
from convatlas.training import checkpoint
from convatlas.training.augmentation import augment, resize_masks
from convatlas.training.checkpoint import Checkpoint
from convatlas.training.metrics import accuracy, mean_iou

log = logging.getLogger(__name__)

EVALUATION_BATCH_SIZE = 500  # images; of pixels' classes as many as are trained on at a time
HISTORY_COLUMNS = ("epoch", "lr", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
MEAN_IOU_COLUMN = "validation_mean_iou"  # one more column


class LabelledImages:
    """Images (N, C, H, W) uint8 with labels: (N,) int64, or a class a pixel, (N, H, W) uint8.

    Indexed it is a part of itself, which copies nothing: what lies in a file is read batch by batch.
    """

    def __init__(self, images: Tensor, labels: Tensor, rows: Tensor | None = None) -> None:
        self._images, self._labels = images, labels
        self.indices = torch.arange(len(labels), device=labels.device) if rows is None else rows

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Tensor | slice) -> "LabelledImages":
        return LabelledImages(self._images, self._labels, self.indices[index])

    @property
    def images(self) -> Tensor:
        return self._images[self.indices]

    @property
    def labels(self) -> Tensor:
        return self._labels[self.indices]

    @property
    def has_pixel_labels(self) -> bool:
        """Whether each pixel has a class."""
        return self._labels.ndim > 1


@dataclass
class TrainingResult:
    """What training found: one row an epoch, and the epoch whose weights were kept."""

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    precision: str = "float32"
    resumed_epochs: int = 0  # epochs that an earlier, interrupted training had done


def hold_out(split: LabelledImages, share: float, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """Divide a split at random into the part to train on and a share to validate on."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed)).to(split.indices.device)
    held = max(1, round(share * len(split)))
    return split[order[held:]], split[order[:held]]


def fit(
    network: nn.Module,
    preprocessing: Preprocessing,
    train: LabelledImages,
    validation: LabelledImages,
    settings: dict[str, Any],
    seed: int,
    checkpoint: Checkpoint | None = None,
) -> TrainingResult:
    """Train in place, and leave the network with the weights of its best epoch by validation.

    `settings` is the `training` section of the config; where it crops, `train` may be of larger images
    than the network's, for their parts to be sharp. The same seed on the same machine gives the same
    weights, bit for bit; so does training that was interrupted, which goes on after the last epoch in
    `kept_in`. Best is the highest accuracy, of pixels the highest mean IoU.
    """
    steps = math.ceil(len(train) / settings["batch_size"])
    epochs = limit_epochs(settings, steps)
    if epochs < settings["epochs"]:
        log.info("max_steps %d: %d epochs, not %d", settings["max_steps"], epochs, settings["epochs"])
    network.to(memory_format=torch.channels_last)  # up to twice as fast on CPU too
    run = Trainer(network, preprocessing, settings, epochs, steps, seed)
    log.info(
        "%d images, %d to validate, %s, %s", len(train), len(validation), run.device, run.result.precision
    )
    if checkpoint and (kept := checkpoint.load()):
        run.restore_state(*kept, steps)
        log.info("going on after epoch %d of %d", len(run.result.history), epochs)
    for epoch in range(len(run.result.history) + 1, epochs + 1):
        trained = run.train_epoch(train)
        size = settings["batch_size"] if validation.has_pixel_labels else EVALUATION_BATCH_SIZE
        loss, confusion = evaluate(
            run.evaluated_network, preprocessing, validation, run.result.precision, size
        )
        row = dict(zip(HISTORY_COLUMNS, [epoch, *trained, loss, accuracy(confusion)], strict=True))
        score = row["validation_accuracy"]
        if validation.has_pixel_labels:
            score = row[MEAN_IOU_COLUMN] = mean_iou(confusion)
        run.record_epoch(row, (score, -loss))
        log.info(
            "epoch %d/%d  loss %.4f  accuracy %.4f  validation %.4f, %.4f%s",
            *[epoch, epochs, *list(row.values())[2:6]],
            f", mean IoU {score:.4f}" if validation.has_pixel_labels else "",
        )
        if checkpoint:
            checkpoint.save(*run.capture_state())
    network.load_state_dict(run.best_weights)
    network.to(memory_format=torch.contiguous_format).eval()
    return run.result


class Trainer:
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
        self.device = get_device(network)
        self.result = TrainingResult(precision=choose_precision(settings["precision"], self.device))
        self.optimizer = _build_optimizer(network, settings)
        self.scheduler = _build_scheduler(self.optimizer, settings, epochs * steps)
        self.low_resolution_epochs = round(epochs * settings["progressive_resize"]["share"]) if settings["progressive_resize"] else 0
        self.shuffle_generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # what dropout draws from
        self.ema_model = _build_ema(network, settings["ema_decay"])
        self.best_score = (-1.0, -math.inf)
        self.best_weights: dict[str, Tensor] = {}

    @property
    def evaluated_network(self) -> nn.Module:
        """The network that is validated and kept: the one that is trained, or its average over the steps."""
        return self.ema_model.module if self.ema_model else self.network

    def train_epoch(self, train: LabelledImages) -> tuple[float, float, float]:
        """Go over the training images once, in an order that `shuffle` draws.

        Gives the learning rate of the last step, the mean loss and the accuracy.
        """
        self.network.train()
        how = self.preprocessing
        if len(self.result.history) < self.low_resolution_epochs:
            how = replace(how, size=self.settings["progressive_resize"]["size"])
        loss_sum, hits, known = torch.zeros(3, device=self.device)
        order = torch.randperm(len(train), generator=self.shuffle_generator)
        for images, labels in _iterate_batches(train, self.settings["batch_size"], order, self.device):
            masks = labels if train.has_pixel_labels else None
            images, masks = augment(images, masks, self.settings, how.size, self.shuffle_generator)
            if masks is not None:
                labels = (masks if how.size == masks.shape[-1] else resize_masks(masks, how.size)).long()
            logits = _forward(self.network, how, images, self.result.precision).float()
            loss = F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            lr = self.optimizer.param_groups[0]["lr"]
            self.scheduler.step()
            if self.ema_model:
                self.ema_model.update_parameters(self.network)
            loss_sum += loss.detach() * len(images)
            hits += (logits.argmax(1) == labels).sum()
            known += (labels != IGNORE_INDEX).sum()
        return lr, float(loss_sum) / len(train), float(hits) / float(known)

    def record_epoch(self, row: dict[str, float], score: tuple[float, float]) -> None:
        """Add an epoch's row to the history, and keep the weights if none were better."""
        self.result.history.append(row)
        if score >= self.best_score:
            self.best_score, self.result.best_epoch = score, int(row["epoch"])
            self.best_weights = {n: t.clone() for n, t in self.evaluated_network.state_dict().items()}

    def capture_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the next epoch depends on, and what was found; numbers as tensors, which have NaN."""
        rows = [list(row.values()) for row in self.result.history]
        tensors = {
            **checkpoint.add_prefix("network", self.network.state_dict()),
            **checkpoint.add_prefix("best", self.best_weights),
            **checkpoint.add_prefix("optimizer", checkpoint.get_optimizer_state(self.optimizer)),
            **checkpoint.add_prefix("generator", checkpoint.get_generator_states(self.shuffle_generator)),
            "history": torch.tensor(rows, dtype=torch.float64),
            "score": torch.tensor(self.best_score, dtype=torch.float64),
        }
        if self.ema_model:
            tensors |= checkpoint.add_prefix("averaged", self.ema_model.state_dict())
        return tensors, {"columns": list(self.result.history[0]), "best_epoch": self.result.best_epoch}

    def restore_state(self, tensors: dict[str, Tensor], values: dict[str, Any], steps: int) -> None:
        """Take up what `kept` gave, after epochs of `steps` steps."""
        rows = [dict(zip(values["columns"], row, strict=True)) for row in tensors["history"].tolist()]
        self.result.history = [row | {"epoch": int(row["epoch"])} for row in rows]
        self.result.best_epoch, self.result.resumed_epochs = values["best_epoch"], len(rows)
        self.best_score = tuple(tensors["score"].tolist())
        self.best_weights = checkpoint.select_prefix("best", tensors)
        self.network.load_state_dict(checkpoint.select_prefix("network", tensors))
        if self.ema_model:
            self.ema_model.load_state_dict(checkpoint.select_prefix("averaged", tensors))
        checkpoint.set_optimizer_state(self.optimizer, checkpoint.select_prefix("optimizer", tensors))
        checkpoint.set_generator_states(
            self.shuffle_generator, checkpoint.select_prefix("generator", tensors)
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")  # no step comes before
            for _ in range(len(rows) * steps):
                self.scheduler.step()


def limit_epochs(settings: dict[str, Any], steps: int) -> int:
    """Epochs of `steps` steps each, at most as many as `max_steps` allows, rounded up."""
    if settings["max_steps"] is None:
        return settings["epochs"]
    return min(settings["epochs"], math.ceil(settings["max_steps"] / steps))


@torch.no_grad()
def evaluate(
    network: nn.Module,
    preprocessing: Preprocessing,
    split: LabelledImages,
    precision: str = "float32",
    batch_size: int = EVALUATION_BATCH_SIZE,
) -> tuple[float, Tensor]:
    """Give the mean cross-entropy and the confusion matrix (classes, classes), a row a true class."""
    network.eval()
    loss, confusion = 0.0, torch.zeros(0)
    for images, given in _iterate_batches(split, batch_size, torch.arange(len(split)), get_device(network)):
        labels = given.long()
        logits = _forward(network, preprocessing, images, precision).float()
        mean = float(F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX))
        loss += mean * len(images)
        classes, known = logits.shape[1], labels != IGNORE_INDEX
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
        return select_main_output(network(x))


def _iterate_batches(
    split: LabelledImages, size: int, order: Tensor, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(order), size):
        part = split[order[start : start + size].to(split.indices.device)]
        yield to_device(part.images, device), to_device(part.labels, device)


def _build_optimizer(network: nn.Module, settings: dict[str, Any]) -> torch.optim.Optimizer:
    common = {"lr": settings["lr"], "weight_decay": settings["weight_decay"]}
    if settings["optimizer"] == "sgd":
        return torch.optim.SGD(network.parameters(), momentum=0.9, nesterov=True, **common)
    kind = torch.optim.AdamW if settings["optimizer"] == "adamw" else torch.optim.Adam
    return kind(network.parameters(), fused=True, **common)


def _build_ema(network: nn.Module, share: float) -> swa_utils.AveragedModel | None:
    """A moving average of a network's weights and buffers, of which `share` stays at each step; 0 for none.

    Validated at every epoch it is steadier than the network itself (Tarvainen & Valpola, arXiv 1703.01780).
    """
    if not share:
        return None
    return swa_utils.AveragedModel(
        network, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(share), use_buffers=True
    )


def _build_scheduler(
    optimizer: torch.optim.Optimizer, settings: dict[str, Any], steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if settings["schedule"] == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, settings["lr"], total_steps=max(2, steps))
    if settings["schedule"] == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
