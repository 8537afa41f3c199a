"""Adam, as torch.optim has it, whose import there takes more than a second.

Kingma and Ba, Adam: a method for stochastic optimization (2015, arXiv 1412.6980), algorithm 1.
"""

import torch
from torch import Tensor

LEARNING_RATE = 0.05  # as in Lucid
DECAY = (0.9, 0.999)  # of the means of the gradient and of its square
EPSILON = 1e-8


class Adam:
    """Raises an objective by steps of Adam.

    Args:
        shape: Shape of the parameters.
    """

    def __init__(self, shape: torch.Size) -> None:
        self.mean, self.mean_square = torch.zeros(shape), torch.zeros(shape)
        self.steps = 0

    def compute_step(self, gradient: Tensor) -> Tensor:
        """Return what is added to the parameters, towards a larger objective.

        Args:
            gradient: Gradient of the objective by the parameters.
        """
        self.steps += 1
        self.mean.lerp_(gradient, 1 - DECAY[0])
        self.mean_square.mul_(DECAY[1]).addcmul_(gradient, gradient, value=1 - DECAY[1])
        mean = self.mean / (1 - DECAY[0] ** self.steps)
        deviation = (self.mean_square / (1 - DECAY[1] ** self.steps)).sqrt()
        return LEARNING_RATE * mean / (deviation + EPSILON)
