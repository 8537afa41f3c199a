"""A network of three convolutions for MNIST, small enough to inspect all of its feature maps."""

from collections import OrderedDict

from torch import nn

INPUT = {"size": 50, "mean": [0.5], "std": [0.5]}


def simple_cnn(classes: int = 10) -> nn.Sequential:
    """Return the network, which maps (N, 1, 50, 50) to logits (N, classes).

    Args:
        classes: Number of classes; 44,834 parameters for ten.
    """
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 32, 3),  # 32 x 48 x 48
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(32, 16, 3),  # 16 x 46 x 46
            relu2=nn.ReLU(),
            conv3=nn.Conv2d(16, 8, 3),  # 8 x 44 x 44
            relu3=nn.ReLU(),
            pool1=nn.MaxPool2d(2),  # 8 x 22 x 22
            flatten=nn.Flatten(),  # 3872
            fc=nn.Linear(8 * 22 * 22, classes),
        )
    )
