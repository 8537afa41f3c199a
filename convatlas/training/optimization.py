"""The optimiser, the schedule of the learning rate, the moving average and the precision of a training."""

import torch
from torch import nn
from torch.optim import swa_utils

from convatlas.pipeline.config_types import TrainingConfig


def choose_precision(name: str, device: torch.device) -> str:
    """Return the precision that the config's `precision` means on a device.

    Args:
        name: "float32", "bfloat16", or "auto": bfloat16 where the hardware computes with it
            (benchmarks/training.py).
        device: Where the network is trained.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        is_native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # These functions are private, and absent in some versions of torch.
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        is_native = any(getattr(torch.cpu, check, lambda: False)() for check in checks)
    return "bfloat16" if is_native else "float32"


def build_optimizer(network: nn.Module, settings: TrainingConfig) -> torch.optim.Optimizer:
    """Return the optimiser of a network's parameters: AdamW, Adam, or SGD with Nesterov momentum 0.9.

    Args:
        network: The network.
        settings: The config's `training`: optimizer, lr and weight_decay.
    """
    lr, weight_decay = settings["lr"], settings["weight_decay"]
    if settings["optimizer"] == "sgd":
        return torch.optim.SGD(
            network.parameters(), lr=lr, weight_decay=weight_decay, momentum=0.9, nesterov=True
        )
    kind = torch.optim.AdamW if settings["optimizer"] == "adamw" else torch.optim.Adam
    return kind(network.parameters(), lr=lr, weight_decay=weight_decay, fused=True)


def build_ema(network: nn.Module, decay: float) -> swa_utils.AveragedModel | None:
    """Return an exponential moving average of a network's weights and buffers, or None for a decay of 0.

    It is less noisy from epoch to epoch than the network itself (Tarvainen and Valpola, arXiv:1703.01780).

    Args:
        network: The network.
        decay: Share of the average that remains at each step.
    """
    if not decay:
        return None
    averaging = swa_utils.get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return swa_utils.AveragedModel(network, multi_avg_fn=averaging, use_buffers=True)


def build_scheduler(
    optimizer: torch.optim.Optimizer, settings: TrainingConfig, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the schedule of the learning rate: one cycle, a half cosine to 0, or constant.

    Args:
        optimizer: The optimiser.
        settings: The config's `training`: schedule and lr, the highest learning rate.
        steps: Optimiser steps of the whole training.
    """
    if settings["schedule"] == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, settings["lr"], total_steps=max(2, steps))
    if settings["schedule"] == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
