"""Small networks, trained on nothing, in float64."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 5


def make_chain() -> nn.Sequential:
    """Return a chain that Captum explains: each ReLU is a module of its own, called once, not in place."""
    torch.manual_seed(0)
    chain = nn.Sequential(
        *[nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)],
        *[nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 9), nn.ReLU()],
        nn.Linear(9, CLASSES),
    )
    chain[1].running_mean.normal_()
    chain[1].running_var.uniform_(0.5, 2)
    return chain.double().eval()


class FunctionalChain(nn.Module):
    """The same with functional, in-place and clamped rectifiers, and log-probabilities at the end."""

    def __init__(self, chain: nn.Sequential) -> None:
        super().__init__()
        self.chain = chain

    def forward(self, x: Tensor) -> Tensor:
        conv1, norm, _, pool, conv2, _, _, linear1, _, linear2 = self.chain
        hidden = F.relu_(norm(conv1(x)))
        hidden = conv2(pool(hidden)).clamp_(min=0)
        first, second = hidden[:, :4], hidden[:, 4:]
        hidden = linear1(torch.cat([first, second], 1).flatten(1))
        hidden[:, :3].relu_()
        hidden[:, 3:].relu_()
        return F.log_softmax(linear2(hidden), 1)


def make_images(count: int = 2) -> Tensor:
    """Return images (N, 3, 12, 12)."""
    return torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
