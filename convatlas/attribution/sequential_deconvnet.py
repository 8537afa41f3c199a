"""The deconvnet layer by layer, as the paper describes it, for a chain of layers: to read and to teach.

Zeiler & Fergus, Visualizing and understanding convolutional networks (arXiv 1311.2901), section 2.1.
`deconvnet.project` computes the same for any network, and is what the pipeline runs.
"""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convatlas import UserError
from convatlas.attribution.deconvnet import Select, make_seed_signal, validate_units
from convatlas.names import suggest_nearest
from convatlas.tracing.calls import is_leaf
from convatlas.tracing.layer_names import next_call_name
from convatlas.tracing.layer_windows import has_own_forward
from convatlas.tracing.record import record


class Deconvnet(nn.Module):
    """A deconvnet attached to one layer of a chain of conv, ReLU, max-pool, flatten and linear layers.

    It shares the weights of the convnet, and runs it in evaluation mode.

    Args:
        convnet: The chain, an nn.Sequential, nested or not.
        layer: Name of the layer from which activations are projected.

    Raises:
        UserError: The network is no chain, or has no such layer.
    """

    convnet: nn.Sequential

    def __init__(self, convnet: nn.Sequential, layer: str) -> None:
        super().__init__()
        names, modules = zip(*flatten_sequential(convnet), strict=True)
        if layer not in names:
            raise UserError(f"no layer {layer!r} to attach a deconvnet to; {suggest_nearest(layer, names)}")
        end = names.index(layer) + 1
        # Not a submodule: the modes and the state of the convnet are its own.
        self.__dict__["convnet"] = convnet
        self.reversed_layers = list(zip(names[:end], modules[:end], strict=True))[::-1]

    @torch.no_grad()
    def forward(self, images: Tensor, units: Sequence[int] | None = None, select: Select = "map") -> Tensor:
        """Project activations to the input.

        Args:
            images: Preprocessed images, (N, C, H, W).
            units: Numbers of the units; by default all.
            select: Project the whole map of a unit, or its "peak".

        Returns:
            (N, units, C, H, W), signed.

        Raises:
            UserError: The layer has no such unit, or a layer below it is of another kind.
        """
        activations = record(self.convnet, images)
        layer = self.reversed_layers[0][0]
        output = activations.outputs[layer]
        chosen = validate_units(layer, units, output.shape[1])
        isolate = torch.eye(output.shape[1], device=output.device)[chosen]  # all other units are set to zero
        isolate = isolate.reshape(*isolate.shape, *[1] * (output.ndim - 2))
        signal = make_seed_signal(output, select)[:, None] * isolate
        shape = signal.shape[:2]
        signal = signal.flatten(0, 1)
        inputs = [activations.outputs[name] for name, _ in self.reversed_layers[1:]] + [activations.input]
        for (name, module), x in zip(self.reversed_layers, inputs, strict=True):
            signal = self.backward_step(name, module, signal, x.shape[1:], activations.switches.get(name))
        return signal.reshape(*shape, *signal.shape[1:])

    @staticmethod
    def backward_step(
        name: str, module: nn.Module, signal: Tensor, input_shape: torch.Size, switches: Tensor | None
    ) -> Tensor:
        """Take a signal down through one layer.

        Args:
            name: Name of the layer.
            module: The layer.
            signal: The signal at its output, (N units, ...).
            input_shape: Shape of its input, without the batch axis.
            switches: Of a max-pooling layer its switches, (N, C, H, W).

        Returns:
            The signal at its input, (N units, ...).

        Raises:
            UserError: The layer is of a kind that the paper does not describe.
        """
        match module:
            case nn.MaxPool2d() if switches is not None:
                # (i) Unpool: where windows overlap, signals that meet at one position add up.
                index = switches.repeat_interleave(len(signal) // len(switches), 0).flatten(2)
                signal, index = signal * (index >= 0).view_as(signal), index.clamp(min=0)  # none to padding
                plane = signal.new_zeros(len(signal), input_shape[0], input_shape[1] * input_shape[2])
                unpooled = plane.scatter_add_(2, index, signal.flatten(2))
                return unpooled.reshape(len(signal), *input_shape)
            case nn.ReLU() | nn.ReLU6():  # (ii) rectify
                return signal.relu()
            case nn.Conv2d(padding_mode="zeros", padding=tuple(padding)) if not has_own_forward(module):
                # (iii) Filter with the transposed filters, without bias, to the input's exact size.
                stride, groups, dilation = module.stride, module.groups, module.dilation
                unpadded = F.conv_transpose2d(
                    signal, module.weight, None, stride, padding, 0, groups, dilation
                )
                missing = [n - m for n, m in zip(input_shape[1:], unpadded.shape[2:], strict=True)]
                return F.conv_transpose2d(
                    signal, module.weight, None, stride, padding, missing, groups, dilation
                )
            case nn.Linear() if not has_own_forward(module):
                return signal @ module.weight
            case nn.Flatten(start_dim=1, end_dim=-1):
                return signal.reshape(len(signal), *input_shape)
            case nn.Dropout() | nn.Dropout2d() | nn.Identity():
                return signal
        raise UserError(
            f"layer {name!r} is a {type(module).__name__}, which is no layer of the chains that Deconvnet "
            "takes; project takes any network"
        )


def flatten_sequential(convnet: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the layers of an nn.Sequential, nested or not, in the order of the forward pass.

    Args:
        convnet: The nn.Sequential.

    Returns:
        Names and modules. The names are those of a record: later calls of one module get `:2`, `:3`.

    Raises:
        UserError: The network, or a module in it, is not a plain nn.Sequential.
    """
    paths: dict[nn.Module, str] = {}
    call_counts: Counter[str] = Counter()

    def list_leaves(module: nn.Module, prefix: str) -> list[tuple[str, nn.Module]]:
        if type(module).forward is not nn.Sequential.forward:
            raise UserError(
                "a deconvnet is built from a chain of layers (an nn.Sequential), "
                f"not from {type(module).__name__}, which has a forward pass of its own"
            )
        leaves = []
        for name, child in module._modules.items():  # named_children() skips repeated modules
            if child is None:
                continue
            if is_leaf(child):
                path = paths.setdefault(child, prefix + name)
                leaves.append((next_call_name(path, call_counts), child))
            else:
                leaves += list_leaves(child, f"{prefix}{name}.")
        return leaves

    return list_leaves(convnet, "")
