"""Find the layers of a network by kind, with their weights, without running it."""

from typing import Any, cast

from torch import Tensor, nn

from convatlas.records import Kind
from convatlas.tracing.calls import is_leaf
from convatlas.tracing.layer_kinds import module_kind


class Extractor:
    """Find the layers of a network by kind, at any depth, without running it.

    Each module is found once, under the first of its dotted names. Convolutions within a submodule called
    `downsample_name` (as ResNet's `layer2.0.downsample`) match a shortcut to the size of the main path:
    they are in `downsample_layers`, all others in `conv_layers`.

    Args:
        network: Any network.
        downsample_name: Name of the submodules that down-sample shortcuts.

    Examples:
        >>> import convatlas as ca
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 6, 5), torch.nn.Conv2d(6, 16, 5))
        >>> extractor = ca.Extractor(network)
        >>> list(extractor.conv_layers)
        ['0', '1']
        >>> tuple(extractor.conv_weights["1"].shape)
        (16, 6, 5, 5)
    """

    def __init__(self, network: nn.Module, downsample_name: str = "downsample") -> None:
        self.network, self.downsample_name = network, downsample_name
        self.modules = {name: module for name, module in network.named_modules() if name} or {"": network}

    def modules_of_kind(self, *kinds: Kind) -> dict[str, nn.Module]:
        """Return every module of these kinds by its dotted name."""
        return {name: module for name, module in self.modules.items() if module_kind(module) in kinds}

    @property
    def conv_layers(self) -> dict[str, nn.Module]:
        """The convolutions of the main path: 1d, 2d, 3d, transposed, and their subclasses."""
        return {
            name: module
            for name, module in self.modules_of_kind("conv").items()
            if not self.is_downsample(name)
        }

    @property
    def downsample_layers(self) -> dict[str, nn.Module]:
        """The convolutions within submodules called `downsample_name`."""
        return {
            name: module for name, module in self.modules_of_kind("conv").items() if self.is_downsample(name)
        }

    @property
    def linear_layers(self) -> dict[str, nn.Module]:
        """The linear layers and their subclasses."""
        return self.modules_of_kind("linear")

    @property
    def conv_weights(self) -> dict[str, Tensor]:
        """The weight of each convolution of the main path, (units, channels, ...), not a copy."""
        return {name: cast(Tensor, module.weight) for name, module in self.conv_layers.items()}

    @property
    def linear_weights(self) -> dict[str, Tensor]:
        """The weight of each linear layer, (units, inputs), not a copy."""
        return {name: cast(Tensor, module.weight) for name, module in self.linear_layers.items()}

    def is_downsample(self, name: str) -> bool:
        """Return whether a name lies within a submodule called `downsample_name`.

        Args:
            name: Dotted name of a module.
        """
        return self.downsample_name in name.split(".")

    def info(self) -> "NetworkSummary":
        """Return the numbers of layers, containers, blocks and parameters."""
        containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
        sequential = [
            name
            for name, module in self.modules.items()
            if isinstance(module, nn.Sequential) and not self.is_downsample(name)
        ]
        contained = {
            id(child)
            for module in self.modules.values()
            if isinstance(module, containers)
            for child in module.children()
        }
        blocks = [
            module
            for module in self.modules.values()
            if id(module) in contained and not is_leaf(module) and not isinstance(module, containers)
        ]
        return NetworkSummary(
            downsample_name=self.downsample_name,
            conv=len(self.conv_layers),
            downsample=len(self.downsample_layers),
            linear=len(self.linear_layers),
            sequential=len(sequential),
            blocks=len(blocks),
            parameters=sum(parameter.numel() for parameter in self.network.parameters()),
        )


class NetworkSummary(dict[str, Any]):
    """The counts of a network's parts, by name; prints as a table.

    conv: convolutions of the main path; downsample: those of shortcuts; linear: linear layers; sequential:
    nn.Sequential containers, apart from those of shortcuts; blocks: composite modules of another class in a
    container, such as ResNet's bottlenecks; parameters: learned numbers.
    """

    def __str__(self) -> str:
        return "\n".join(
            f"{key:16} {value:>12,}" if isinstance(value, int) else f"{key:16} {value:>12}"
            for key, value in self.items()
        )
