"""A network of one's own: any function that returns a torch.nn.Module.

Run as a script, it trains for some seconds on scikit-learn's handwritten digits and writes checkpoint.pth, as
your training script would.
"""

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F


class SmallNet(nn.Module):
    """Two convolutions with a skip connection, written with functional calls."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.classifier = nn.Linear(width * 7 * 7, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        x = F.relu(self.second(x) + x)
        return self.classifier(F.max_pool2d(x, 4).flatten(1))


def build(width: int = 8, num_classes: int = 10) -> nn.Module:
    """Build the network, as `architecture` in the config names it; `arguments` there are passed on."""
    return SmallNet(width, num_classes)


def train(path: Path, steps: int = 200) -> None:
    """Train on digits laid out as in MNIST, 20 x 20 in 28 x 28 pixels of 0..1, and write a checkpoint."""
    torch.manual_seed(0)
    data = load_digits()
    images = torch.from_numpy(data.images).float()[:, None] / 16  # (N, 1, 8, 8)
    images = F.pad(F.interpolate(images, (20, 20), mode="bilinear"), [4] * 4)
    labels = torch.from_numpy(data.target)
    network = build()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(steps):
        batch = torch.randint(len(images), (128,))
        loss = F.cross_entropy(network(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save({"state_dict": network.state_dict(), "loss": loss.item()}, path)
    print(f"wrote {path}, loss {loss.item():.3f}")


if __name__ == "__main__":
    train(Path(__file__).with_name("checkpoint.pth"))
