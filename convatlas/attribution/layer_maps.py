"""The outputs of layers that are maps, with the graph of a run, for methods that explain by them."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from convatlas.tracing.calls import Call, get_version

# Functions whose outputs of four axes are weights of attention, or tokens by head.
ATTENTION_TYPES = {"matmul", "bmm", "einsum", "softmax", "Softmax", "scaled_dot_product_attention"}


class MapsOutput(NamedTuple):
    """The output of a layer with maps, in the graph of a run to the end.

    Attributes:
        layer: Name of the layer.
        edge: Where the output stands in autograd's graph.
        value: The output, (N, units, H, W), detached; its values are those of the layer as long as the
            version is.
        version: Its version when the layer had run.
    """

    layer: str
    edge: GradientEdge
    value: Tensor
    version: int

    @classmethod
    def from_output(cls, layer: str, output: Tensor, copy: bool) -> "MapsOutput":
        """Keep the output of a layer.

        Args:
            layer: Name of the layer.
            output: The output, with its graph.
            copy: Copy its values, so that no later operation changes them.
        """
        value = output.detach()
        return cls(layer, get_gradient_edge(output), value.clone() if copy else value, get_version(value))

    @property
    def is_intact(self) -> bool:
        """Whether no later operation has changed the output in place."""
        return get_version(self.value) == self.version


@dataclass(frozen=True)
class MapsFilter:
    """Which outputs of layers are maps: (N, units, h, w) with more than one position.

    Attributes:
        layer: The name of the only layer, or path of a composite module; None for all layers, whose maps have
            about the aspect ratio of the input, and are no weights of attention.
        aspect_ratio: Height over width of the input.
    """

    layer: str | None = None
    aspect_ratio: float = 1.0

    @property
    def blocks(self) -> list[str]:
        """Paths of composite modules whose outputs are maps too."""
        return [self.layer] if self.layer else []

    def includes(self, output: Tensor, images: int, call: Call | None = None) -> bool:
        """Return whether an output is one of these maps.

        Args:
            output: The output.
            images: Number N of the images of the batch.
            call: The call of the layer; None where it is known to be that of `layer`.
        """
        if output.ndim != 4 or len(output) != images or not output.requires_grad:
            return False
        height, width = output.shape[2:]
        if self.layer is not None or call is None:
            return call is None or call.layer == self.layer
        is_wide = abs(height - width * self.aspect_ratio) > 2 + 0.1 * height
        return height * width > 1 and not is_wide and call.type not in ATTENTION_TYPES
