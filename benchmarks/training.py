"""Images a second in training: precision and memory format, for each bundled network, in one run.

The choices of `precision: auto` and of channels_last in convatlas/training.py rest on this.

    python benchmarks/training.py
"""

import time

import torch
from torch.nn import functional as F

from convatlas.models.build import build_network

BATCH = 128
STEPS = {"simple_cnn": 15, "lenet5": 150}


def main() -> None:
    torch.set_num_threads(2)
    images = torch.randint(0, 256, (10_000, 1, 28, 28), dtype=torch.uint8)
    labels = torch.randint(0, 10, (10_000,))
    for name, steps in STEPS.items():
        for precision in ("float32", "bfloat16"):
            for layout in (torch.contiguous_format, torch.channels_last):
                rate = measured(name, steps, precision, layout, images, labels)
                print(f"{name:10} {precision:8} {str(layout).removeprefix('torch.'):17} {rate:6.0f} images/s")


def measured(
    name: str,
    steps: int,
    precision: str,
    layout: torch.memory_format,
    images: torch.Tensor,
    labels: torch.Tensor,
) -> float:
    network, preprocessing = build_network(
        {"architecture": name}, [str(digit) for digit in range(10)], seed=0
    )
    network.train().to(memory_format=layout)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    for step in range(steps + 2):
        if step == 2:
            start = time.perf_counter()
        chosen = torch.randint(0, len(images), (BATCH,))
        x = preprocessing(images[chosen]).to(memory_format=layout)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            logits = network(x)
        optimizer.zero_grad()
        F.cross_entropy(logits.float(), labels[chosen]).backward()
        optimizer.step()
    return steps * BATCH / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
