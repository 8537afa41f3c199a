"""The methods of `views.attribution` for one network: layers, settings, and which are not defined."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convatlas import UserError
from convatlas.attribution.attribute import explain, probe_method
from convatlas.attribution.class_scores import ClassScores
from convatlas.attribution.methods.method import Explanation, Maps, Method
from convatlas.attribution.methods.registry import get_method
from convatlas.layer_selection import choose_map_layers
from convatlas.models.factory import format_error
from convatlas.models.outputs import Output
from convatlas.models.preprocessing import Preprocessing
from convatlas.pipeline.config_types import AttributionViews
from convatlas.records import AttributionMethod, Layer

# Of methods that average or occlude, where maps are only compared with each other.
COARSE_STEPS = 4
COARSE_POSITIONS = 3  # of the square along the shorter side
# What a method raises on a network or an image: what it knows to be undefined, and what torch cannot compute.
METHOD_ERRORS = (UserError, RuntimeError)
LAYER_REQUIREMENT = "maps"  # of methods that explain by the maps of a layer


def describe_failure(error: UserError | RuntimeError) -> str:
    """Return why a method is not defined for a network, as one line.

    Args:
        error: What it raised.

    Raises:
        torch.OutOfMemoryError: The error is that: with more memory, the method is defined.
    """
    if isinstance(error, torch.OutOfMemoryError):
        raise error
    return str(error) if isinstance(error, UserError) else f"it fails here: {format_error(error)}"


class AttributionSettings(AttributionViews):
    """`views.attribution`, with `rectify` of `views.deconv`."""

    rectify: bool


@dataclass(frozen=True)
class PlannedMethod:
    """A method, at one layer if it explains by the maps of layers.

    Attributes:
        method: The method.
        layer: Name of the layer; None of other methods.
        member: The start of the names of its maps in attribution/<image>.npz.
        settings: Its settings.
        undefined: Why it is not defined for the network; None where it is.
    """

    method: Method
    layer: str | None
    member: str
    settings: dict[str, Any]
    undefined: str | None

    @property
    def title(self) -> str:
        """Its name in the log."""
        return f"{self.method.name} at {self.layer}" if self.layer else self.method.name

    @property
    def heading(self) -> str:
        """Its name on pages."""
        return f"{self.method.title} at {self.layer}" if self.layer else self.method.title

    def compute(
        self,
        scores: ClassScores,
        x: Tensor,
        classes: Tensor,
        preprocessing: Preprocessing,
        coarse: bool = False,
    ) -> Maps:
        """Return the maps of images, and what was measured of each.

        Args:
            scores: The scores that are attributed.
            x: The images, (N, C, H, W).
            classes: Numbers of their target classes, (N, T).
            preprocessing: That of the images.
            coarse: Whether in fewer steps, for maps that are only compared with each other.

        Raises:
            UserError: The method turns out not to be defined for the network or the images.
        """
        settings = self.settings
        if coarse:
            stride = math.ceil(min(x.shape[2:]) / COARSE_POSITIONS)
            settings = settings | {"steps": COARSE_STEPS, "max_steps": COARSE_STEPS, "samples": COARSE_STEPS}
            settings = settings | {"size": 2 * stride, "stride": stride}
            settings = {name: value for name, value in settings.items() if name in self.method.settings}
        return explain(Explanation(scores, x, classes, self.layer, preprocessing), self.method, settings)

    def to_dict(self) -> AttributionMethod:
        """Return its entry in attribution.json, before it is randomised."""
        method = self.method
        return {
            "name": method.name,
            "title": method.title,
            "layer": self.layer,
            "returns": method.returns,
            "citation": method.citation,
            "caveat": method.caveat,
            "check": method.check,
            "settings": self.settings,
            "undefined": self.undefined,
            "randomisation": None,
        }


def plan_methods(
    network: nn.Module,
    x: Tensor,
    output: Output,
    layers: Sequence[Layer],
    settings: AttributionSettings,
    key: str,
) -> list[PlannedMethod]:
    """Plan the methods of the config for a network, in its order.

    Args:
        network: The network.
        x: An input, (1, C, H, W); its values do not matter.
        output: What the network's output means.
        layers: Its layers, as in layers.json.
        settings: `views.attribution` of the network.
        key: Place of the settings in the config, for the error.

    Raises:
        UserError: A chosen layer does not exist or has no maps.
    """
    chosen: list[str | None] = [None]
    if settings["layers"] is not None:
        chosen = [*choose_map_layers(layers, settings["layers"], f"{key}.layers")]
    plans = []
    for method in map(get_method, settings["methods"]):
        for layer in chosen if LAYER_REQUIREMENT in method.requires else [None]:
            plans.append(_plan_method(network, x, output, method, layer, settings))
    return plans


def _plan_method(
    network: nn.Module,
    x: Tensor,
    output: Output,
    method: Method,
    layer: str | None,
    settings: AttributionSettings,
) -> PlannedMethod:
    """Plan a method at a layer."""
    configured = {
        "baseline": settings["baseline"],
        "steps": settings["steps"],
        "rectify": settings["rectify"],
        **settings["smoothgrad"],
        **settings["occlusion"],
    }
    own = {name: configured[name] for name in method.settings if configured.get(name) is not None}
    member = f"{method.name}:{layer}" if layer else method.name
    try:
        undefined, chosen = probe_method(network, x, method.name, output, layer, **own)
        layer = layer or chosen  # by default
    except METHOD_ERRORS as error:
        undefined = describe_failure(error)
    return PlannedMethod(method, layer, member, own, undefined)
