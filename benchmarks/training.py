"""Images per second in training: precision and memory format, for each bundled classifier.

The choices of `precision: auto` and of channels_last in convatlas/training rest on this.

    python benchmarks/training.py
"""

import argparse
import time

import torch
from torch.nn import functional as F

from convatlas.models.build import build_network

BATCH_SIZE = 128
WARM_UP_STEPS = 2
STEPS = {"simple_cnn": 15, "lenet5": 150}


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(2)
    images = torch.randint(0, 256, (10_000, 1, 28, 28), dtype=torch.uint8)
    labels = torch.randint(0, 10, (10_000,))
    for name, steps in STEPS.items():
        for precision in ("float32", "bfloat16"):
            for layout in (torch.contiguous_format, torch.channels_last):
                rate = measure_rate(name, 1 if args.smallest else steps, precision, layout, images, labels)
                print(f"{name:10} {precision:8} {str(layout).removeprefix('torch.'):17} {rate:6.0f} images/s")


def measure_rate(
    name: str,
    steps: int,
    precision: str,
    layout: torch.memory_format,
    images: torch.Tensor,
    labels: torch.Tensor,
) -> float:
    """Train for some steps, after those of the warm-up, and return the images per second."""
    network, preprocessing = build_network(
        {"architecture": name}, [str(digit) for digit in range(10)], seed=0
    )
    network.train().to(memory_format=layout)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    for step in range(WARM_UP_STEPS + steps):
        if step == WARM_UP_STEPS:
            start = time.perf_counter()
        indices = torch.randint(0, len(images), (BATCH_SIZE,))
        x = preprocessing(images[indices]).to(memory_format=layout)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            logits = network(x)
        optimizer.zero_grad()
        F.cross_entropy(logits.float(), labels[indices]).backward()
        optimizer.step()
    return steps * BATCH_SIZE / (time.perf_counter() - start)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--smallest", action="store_true", help="one step of each, in seconds: only tests that it runs"
    )
    main(parser.parse_args())
