"""Training and evaluation of classifiers and segmentation networks."""

import logging
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from convatlas import UserError
from convatlas.models.build import get_device
from convatlas.models.memory_format import convert_memory_format
from convatlas.models.outputs import LOGITS, Output, resize_scores
from convatlas.models.preprocessing import Preprocessing
from convatlas.models.state import get_tensor_state, list_non_finite, load_tensor_state
from convatlas.pipeline.config_types import TrainingConfig
from convatlas.records import HistoryRow
from convatlas.training.augmentation import augment, resize_masks
from convatlas.training.checkpoint import (
    Checkpoint,
    add_prefix,
    get_generator_states,
    get_optimizer_state,
    select_prefix,
    set_generator_states,
    set_optimizer_state,
)
from convatlas.training.evaluation import (
    EVALUATION_BATCH_SIZE,
    NonFiniteScoresError,
    compute_scores,
    evaluate,
    iterate_batches,
)
from convatlas.training.labelled_images import LabelledImages
from convatlas.training.losses import compute_loss, find_known
from convatlas.training.metrics import accuracy, mean_iou
from convatlas.training.optimization import build_ema, build_optimizer, build_scheduler, choose_precision
from convatlas.training.snapshots import Snapshots

log = logging.getLogger(__name__)

GPU_CHECK_INTERVAL = 50  # steps between two checks of the loss on a GPU, each of which waits for it
HISTORY_COLUMNS = ("epoch", "lr", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy")


class DivergedError(UserError):
    """The loss or the weights of a training are NaN or infinite."""


@dataclass
class TrainingResult:
    """What a training leaves besides the weights.

    Attributes:
        history: One row per epoch.
        best_epoch: The epoch, from 1, whose weights the network has.
        precision: "float32" or "bfloat16", in which the forward pass was computed.
        resumed_epochs: Epochs of an earlier, interrupted run.
    """

    history: list[HistoryRow] = field(default_factory=list)
    best_epoch: int = 0
    precision: str = "float32"
    resumed_epochs: int = 0


def fit(
    network: nn.Module,
    preprocessing: Preprocessing,
    train: LabelledImages,
    validation: LabelledImages,
    settings: TrainingConfig,
    seed: int,
    checkpoint: Checkpoint | None = None,
    output: Output = LOGITS,
    snapshots: Snapshots | None = None,
) -> TrainingResult:
    """Train a network in place, and leave it with the weights of its best epoch on the validation images.

    The best epoch has the highest accuracy, or mean IoU of a segmentation network; of equal ones that with
    the lower validation loss, and then the later one. One seed on one machine gives the same weights, bit for
    bit, also where the training was interrupted and continues from its checkpoint.

    Args:
        network: The network.
        preprocessing: Its preprocessing.
        train: The training images; larger than the network's input where crops are taken, to keep them sharp.
        validation: The validation images.
        settings: The config's `training`.
        seed: Seed of the images' order, their augmentation and dropout.
        checkpoint: Where the state is saved after each epoch, and where the training continues from.
        output: What the network's output means.
        snapshots: Where the weights of some epochs are saved: those that are validated, the moving averages
            where there are any. An interrupted training without the snapshots of its epochs starts anew.

    Raises:
        DivergedError: The loss or a weight is NaN or infinite.
    """
    steps = math.ceil(len(train) / settings["batch_size"])
    epochs = limit_epochs(settings, steps)
    if epochs < settings["epochs"]:
        log.info("max_steps %d: %d epochs, not %d", settings["max_steps"], epochs, settings["epochs"])
    trainer = Trainer(network, preprocessing, settings, epochs, steps, seed, output)
    log.info(
        "%d training images, %d validation images, %s, %s",
        len(train),
        len(validation),
        trainer.device,
        trainer.result.precision,
    )
    if checkpoint and (state := _load_state(checkpoint, snapshots, epochs)):
        trainer.restore_state(*state, steps)
        log.info("continuing after epoch %d of %d", len(trainer.result.history), epochs)
    elif snapshots and snapshots.epochs:
        snapshots.clear()
        snapshots.save(0, trainer.evaluated_network)
    for epoch in range(len(trainer.result.history) + 1, epochs + 1):
        row, score = trainer.run_epoch(epoch, train, validation)
        trainer.record_epoch(row, score)
        log.info(
            "epoch %d/%d  loss %.4f  accuracy %.4f  validation %.4f, %.4f%s",
            *(epoch, epochs, row["train_loss"], row["train_accuracy"]),
            *(row["validation_loss"], row["validation_accuracy"]),
            f", mean IoU {score[0]:.4f}" if validation.has_pixel_labels else "",
        )
        if snapshots and epoch in snapshots.list_epochs(epochs):
            snapshots.save(epoch, trainer.evaluated_network)
        if checkpoint:
            checkpoint.save(*trainer.capture_state())
    load_tensor_state(network, trainer.best_weights)
    network.to(memory_format=torch.contiguous_format).eval()
    return trainer.result


def _load_state(
    checkpoint: Checkpoint, snapshots: Snapshots | None, epochs: int
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return the state of an interrupted training; None without one that left its snapshots behind."""
    state = checkpoint.load()
    if state and snapshots and not snapshots.has_all(epochs, completed=len(state[0]["history"])):
        log.info("the interrupted training lacks snapshots of its first epochs: this one starts anew")
        return None
    return state


class Trainer:
    """A training in progress: the network, the optimiser, and all else that changes from step to step.

    Args:
        network: The network, which is trained in place, in the memory format that is fastest for it.
        preprocessing: Its preprocessing.
        settings: The config's `training`.
        epochs: Number of epochs.
        steps: Optimiser steps of an epoch.
        seed: Seed of the images' order, their augmentation and dropout.
        output: What the network's output means.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        settings: TrainingConfig,
        epochs: int,
        steps: int,
        seed: int,
        output: Output = LOGITS,
    ) -> None:
        self.network, self.preprocessing, self.settings = network, preprocessing, settings
        self.output = output
        self.memory_format = convert_memory_format(network, preprocessing.shape)
        self.device = get_device(network)
        self.result = TrainingResult(precision=choose_precision(settings["precision"], self.device))
        self.optimizer = build_optimizer(network, settings)
        self.scheduler = build_scheduler(self.optimizer, settings, epochs * steps)
        low_resolution = settings["progressive_resize"]
        self.low_resolution_epochs = round(epochs * low_resolution["share"]) if low_resolution else 0
        self.shuffle_generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # of dropout
        self.ema_model = build_ema(network, settings["ema_decay"])
        self.best_score = (-1.0, -math.inf)
        self.best_weights: dict[str, Tensor] = {}
        self.non_finite_at_start = set(list_non_finite(network))

    @property
    def evaluated_network(self) -> nn.Module:
        """The network that is validated and kept: the moving average where there is one, else the network."""
        return self.ema_model.module if self.ema_model else self.network

    def run_epoch(
        self, epoch: int, train: LabelledImages, validation: LabelledImages
    ) -> tuple[HistoryRow, tuple[float, float]]:
        """Train for an epoch and validate.

        Args:
            epoch: Its number, from 1.
            train: The training images.
            validation: The validation images.

        Returns:
            The epoch's row of the history, and its score, by which epochs are compared: the accuracy or mean
            IoU, and the negative loss, on the validation images.
        """
        lr, train_loss, train_accuracy = self.train_epoch(train)
        diverged = [name for name in list_non_finite(self.network) if name not in self.non_finite_at_start]
        if diverged:
            raise self._make_diverged_error(f"in epoch {epoch}: {diverged[0]} is NaN or infinite")
        batch_size = self.settings["batch_size"] if validation.has_pixel_labels else EVALUATION_BATCH_SIZE
        try:
            loss, confusion = evaluate(
                self.evaluated_network,
                self.preprocessing,
                validation,
                self.result.precision,
                batch_size,
                self.memory_format,
                self.output,
            )
        except NonFiniteScoresError as error:
            raise self._make_diverged_error(f"in epoch {epoch}, on the validation images: {error}") from error
        score = accuracy(confusion)
        row: HistoryRow = {
            "epoch": epoch,
            "lr": lr,
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            "validation_loss": loss,
            "validation_accuracy": score,
        }
        if validation.has_pixel_labels:
            score = row["validation_mean_iou"] = mean_iou(confusion)
        return row, (score, -loss)

    def train_epoch(self, train: LabelledImages) -> tuple[float, float, float]:
        """Train on all images once, in a random order.

        Args:
            train: The training images with their labels or masks.

        Returns:
            The learning rate of the last step, the mean loss per image, and the accuracy, which counts pixels
            with a known class for a segmentation network.

        Raises:
            DivergedError: The loss is NaN or infinite.
        """
        self.network.train()
        preprocessing = self.preprocessing
        if self.settings["progressive_resize"] and len(self.result.history) < self.low_resolution_epochs:
            preprocessing = preprocessing.with_shorter_side(self.settings["progressive_resize"]["size"])
        size = preprocessing.size
        loss_sum, correct, known = torch.zeros(3, device=self.device)
        order = torch.randperm(len(train), generator=self.shuffle_generator)
        batch_size = self.settings["batch_size"]
        steps = math.ceil(len(train) / batch_size)
        batches = iterate_batches(train, batch_size, order, self.device)
        for step, (images, labels) in enumerate(batches, 1):
            masks = labels if train.has_pixel_labels else None
            images, masks = augment(images, masks, self.settings, size, self.shuffle_generator)
            if masks is not None:
                labels = (masks if size == masks.shape[-2:] else resize_masks(masks, size)).long()
            scores = compute_scores(
                self.network, preprocessing, images, self.result.precision, self.memory_format, self.output
            )
            scores = resize_scores(scores, labels.shape[1:])
            loss = compute_loss(scores, labels, self.output.score_kind)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            lr = self.optimizer.param_groups[0]["lr"]
            self.scheduler.step()
            if self.ema_model:
                self.ema_model.update_parameters(self.network)
            loss_sum += loss.detach() * len(images)
            if self.device.type == "cpu" or step % GPU_CHECK_INTERVAL == 0 or step == steps:
                self._check_loss(loss_sum, step, steps, labels)
            correct += (scores.argmax(1) == labels).sum()
            known += find_known(labels).sum()
        return lr, float(loss_sum) / len(train), float(correct) / float(known)

    def _check_loss(self, loss_sum: Tensor, step: int, steps: int, labels: Tensor) -> None:
        """Raise DivergedError where the sum of the losses of an epoch so far is NaN or infinite.

        Args:
            loss_sum: The sum, a number.
            step: The last step in the epoch, from 1.
            steps: Steps of an epoch.
            labels: The labels of the last batch.
        """
        if math.isfinite(total := float(loss_sum)):
            return
        epoch, name = len(self.result.history) + 1, "NaN" if math.isnan(total) else "infinite"
        place = f"in epoch {epoch}, step {step} of {steps}: the loss is {name}"
        if not find_known(labels).any():
            raise DivergedError(
                f"{place}, for no pixel of the batch has a class; raise batch_size, or fix the masks"
            )
        if epoch == step == 1:
            raise DivergedError(
                f"{place} before any weight has changed; check the network's forward() and first weights, "
                "and that no image holds NaN"
            )
        raise self._make_diverged_error(place)

    def _make_diverged_error(self, place: str) -> DivergedError:
        """Return the error of a training that diverged, with what to change."""
        warm_up = (
            "" if self.settings["schedule"] == "one_cycle" else ", or set schedule: one_cycle, which warms up"
        )
        return DivergedError(f"training diverged {place}; lower lr, now {self.settings['lr']:g}{warm_up}")

    def record_epoch(self, row: HistoryRow, score: tuple[float, float]) -> None:
        """Add an epoch to the history, and keep its weights unless an earlier epoch was better.

        Args:
            row: The epoch's row.
            score: Its score; the greatest one is best.
        """
        self.result.history.append(row)
        if score >= self.best_score:
            self.best_score, self.result.best_epoch = score, int(row["epoch"])
            self.best_weights = {n: t.clone() for n, t in get_tensor_state(self.evaluated_network).items()}

    def capture_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all that the next epoch depends on, and the result so far, as tensors and JSON values.

        Numbers that may not be finite are tensors, as JSON has no NaN.
        """
        rows = [list(row.values()) for row in self.result.history]
        tensors = {
            **add_prefix("network", get_tensor_state(self.network)),
            **add_prefix("best", self.best_weights),
            **add_prefix("optimizer", get_optimizer_state(self.optimizer)),
            **add_prefix("generator", get_generator_states(self.shuffle_generator)),
            "history": torch.tensor(rows, dtype=torch.float64),
            "score": torch.tensor(self.best_score, dtype=torch.float64),
        }
        if self.ema_model:
            tensors |= add_prefix("averaged", get_tensor_state(self.ema_model))
        return tensors, {"columns": list(self.result.history[0]), "best_epoch": self.result.best_epoch}

    def restore_state(self, tensors: dict[str, Tensor], values: Mapping[str, Any], steps: int) -> None:
        """Continue from a captured state.

        Args:
            tensors: The tensors of `capture_state`.
            values: Its values.
            steps: Optimiser steps of an epoch.
        """
        rows = [dict(zip(values["columns"], row, strict=True)) for row in tensors["history"].tolist()]
        self.result.history = [cast(HistoryRow, row | {"epoch": int(row["epoch"])}) for row in rows]
        self.result.best_epoch, self.result.resumed_epochs = values["best_epoch"], len(rows)
        accuracy_or_iou, negative_loss = tensors["score"].tolist()
        self.best_score = (accuracy_or_iou, negative_loss)
        self.best_weights = select_prefix("best", tensors)
        load_tensor_state(self.network, select_prefix("network", tensors))
        if self.ema_model:
            load_tensor_state(self.ema_model, select_prefix("averaged", tensors))
        set_optimizer_state(self.optimizer, select_prefix("optimizer", tensors))
        set_generator_states(self.shuffle_generator, select_prefix("generator", tensors))
        with warnings.catch_warnings():  # torch warns of steps before any optimiser step
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            for _ in range(len(rows) * steps):
                self.scheduler.step()


def limit_epochs(settings: TrainingConfig, steps: int) -> int:
    """Return the number of epochs: `epochs`, or as many as `max_steps` allows, rounded up.

    Args:
        settings: The config's `training`.
        steps: Optimiser steps of an epoch.
    """
    if settings["max_steps"] is None:
        return settings["epochs"]
    return min(settings["epochs"], math.ceil(settings["max_steps"] / steps))
