"""LeNet-5 in the form taught today: ReLU and max-pooling, so that a deconvnet can be attached.

After LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document
recognition, Proc. IEEE 86 (1998), section II.
"""

from collections import OrderedDict

from torch import nn

# The mean and standard deviation of MNIST's training images.
INPUT = {"size": 28, "mean": [0.1307], "std": [0.3081]}


def lenet5(classes: int = 10) -> nn.Sequential:
    """Return LeNet-5, which maps (N, 1, 28, 28) to log-probabilities (N, classes).

    Args:
        classes: Number of classes; 61,706 parameters for ten.
    """
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 6, 5, padding=2),  # 6 x 28 x 28
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),  # 6 x 14 x 14
            conv2=nn.Conv2d(6, 16, 5),  # 16 x 10 x 10
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),  # 16 x 5 x 5
            flatten=nn.Flatten(),  # 400
            fc1=nn.Linear(400, 120),
            relu3=nn.ReLU(),
            fc2=nn.Linear(120, 84),
            relu4=nn.ReLU(),
            fc3=nn.Linear(84, classes),
            log_softmax=nn.LogSoftmax(dim=1),
        )
    )
