"""The memory format that a network runs in."""

import torch
from torch import Tensor, nn

from convatlas.models.memory_format import choose_input_format, convert_memory_format


class Head(nn.Module):
    """Normalised feature maps, as vectors by `view()`, which needs contiguous maps, or by `flatten()`."""

    def __init__(self, use_view: bool) -> None:
        super().__init__()
        self.use_view = use_view
        self.conv, self.norm, self.dropout = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(self.norm(self.conv(x)))
        return x.view(len(x), -1) if self.use_view else x.flatten(1)


def test_only_networks_that_run_in_channels_last_are_converted() -> None:
    for use_view, memory_format in ((True, torch.contiguous_format), (False, torch.channels_last)):
        network = Head(use_view)
        assert choose_input_format(network, (3, 8, 8)) == memory_format
        assert network.conv.weight.is_contiguous()
        assert convert_memory_format(network, (3, 8, 8)) == memory_format
        assert network.conv.weight.is_contiguous(memory_format=memory_format)
        network(torch.rand(5, 3, 8, 8).to(memory_format=memory_format))


def test_the_network_is_left_as_it_was() -> None:
    network = Head(use_view=False)
    network.norm.eval()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    generator_state = torch.get_rng_state()
    choose_input_format(network, (3, 8, 8))
    assert network.training and network.dropout.training and not network.norm.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator_state)
