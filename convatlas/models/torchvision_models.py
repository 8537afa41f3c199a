"""torchvision's networks and their trained weights, built by its own functions."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook
from torchvision import models
from torchvision.models import WeightsEnum

from convatlas import UserError
from convatlas.models.factory import Factory
from convatlas.models.preprocessing import IMAGENET_INPUT
from convatlas.names import suggest_nearest
from convatlas.pipeline.architecture_names import TORCHVISION_PREFIX
from convatlas.records import Preprocessing as PreprocessingRecord
from convatlas.records import WeightsDescription

# The start of the SHA-256 in a file's name, which torch.hub checks too.
HASH_PATTERN = re.compile(r"-([a-f0-9]{8,})\.")


def make_torchvision_factory(
    architecture: str, weights: str | None, state: Mapping[str, Tensor] | None, key: str
) -> Factory:
    """Return the function that builds one of torchvision's networks.

    With `weights` the network has the form that these need (`transform_input` of inception_v3, the number of
    classes, the auxiliary heads in the file, ...), so that the number of classes is not an argument.

    Args:
        architecture: "torchvision/<name>".
        weights: Name of an entry of the network's weights, such as "IMAGENET1K_V2".
        state: What the file of these weights holds; None leaves the network untrained, in the same form.
        key: Place of the network in the config, for messages.

    Raises:
        UserError: torchvision has no such network or weights.
    """
    builder = models.get_model_builder(_check_model_name(architecture, key))
    if not weights:
        has_backbone = "weights_backbone" in inspect.signature(builder).parameters  # would be downloaded
        plain = partial(builder, weights=None, **({"weights_backbone": None} if has_backbone else {}))
        return Factory(plain, architecture, IMAGENET_INPUT, "num_classes")
    entry = get_weights_entry(architecture, weights, key)

    def build(**arguments: Any) -> nn.Module:
        with _track_construction() as get_network:
            # An untrained network loads its own weights, which changes nothing.
            get_state = (lambda: get_network().state_dict()) if state is None else (lambda: dict(state))
            network: nn.Module = builder(weights=_LocalWeights(entry, get_state), **arguments)
        return network

    return Factory(build, architecture, get_input_settings(entry))


class _LocalWeights:
    """Stands in for an entry of torchvision's weights, but reads no download.

    Builders take it for the entry itself: they check its class, compare it with the entries, read its `meta`,
    and load what `get_state_dict` returns.
    """

    def __init__(self, entry: WeightsEnum, get_state: Callable[[], dict[str, Tensor]]) -> None:
        self._entry = entry
        self._get_state = get_state

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """The entry's class, which `isinstance` reads."""
        return type(self._entry)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._entry, name)

    def __eq__(self, other: object) -> bool:
        return other is self or other is self._entry

    def __hash__(self) -> int:
        return hash(self._entry)

    def get_state_dict(self, *_: Any, **__: Any) -> dict[str, Tensor]:
        """Return the weights, where the entry would download them."""
        return self._get_state()


@contextmanager
def _track_construction() -> Iterator[Callable[[], nn.Module]]:
    """Yield a function that returns the network under construction: the module around the last one added."""
    containers: dict[nn.Module | None, nn.Module] = {}

    def add(container: nn.Module, _: str, module: nn.Module | None) -> None:
        containers.pop(module, None)  # for the last one added to come last
        containers[module] = container

    def get_network() -> nn.Module:
        network = containers[next(reversed(containers))]
        while network in containers:
            network = containers[network]
        return network

    handle = register_module_module_registration_hook(add)
    try:
        yield get_network
    finally:
        handle.remove()


def get_weights_entry(architecture: str, weights: str, key: str) -> WeightsEnum:
    """Return torchvision's entry of a network's weights.

    Args:
        architecture: "torchvision/<name>".
        weights: The entry's name, such as "IMAGENET1K_V2", "DEFAULT" or "ResNet50_Weights.DEFAULT".
        key: Place of the network in the config, for messages.

    Raises:
        UserError: torchvision has no such network or weights.
    """
    entries = models.get_model_weights(_check_model_name(architecture, key))
    name = weights.removeprefix(f"{entries.__name__}.")
    if name not in entries.__members__:
        raise UserError(
            f"{key}.weights: {architecture} has no weights {weights!r}; "
            f"{suggest_nearest(name, [*entries.__members__])}"
        )
    return entries[name]


def _check_model_name(architecture: str, key: str) -> str:
    """Return the name of one of torchvision's networks without the prefix, if there is such a network."""
    name = architecture.removeprefix(TORCHVISION_PREFIX)
    if name not in models.list_models():
        raise UserError(
            f"{key}.architecture: torchvision has no network {name!r}; "
            f"{suggest_nearest(name, models.list_models())}"
        )
    return name


def get_input_settings(entry: WeightsEnum) -> PreprocessingRecord:
    """Return the preprocessing with which weights were tested, as settings of `Preprocessing`.

    Where the entry has no crop, the centre of the resized image is taken.

    Args:
        entry: torchvision's entry of the weights.
    """
    transforms = entry.transforms()
    resize = getattr(transforms, "resize_size", None) or [IMAGENET_INPUT["size"]]
    size = getattr(transforms, "crop_size", None) or resize
    interpolation = getattr(transforms, "interpolation", None)
    return {
        "size": _get_side(size),
        "mean": list(getattr(transforms, "mean", [0.0] * 3)),
        "std": list(getattr(transforms, "std", [1.0] * 3)),
        "resize": _get_side(resize),
        "interpolation": interpolation.value if interpolation else "bilinear",
    }


def _get_side(size: int | list[int] | tuple[int, ...]) -> int:
    """Return the pixels of a side, of which torchvision gives one or two."""
    return int(size if isinstance(size, int) else size[0])


def describe_weights(architecture: str, weights: str, key: str) -> WeightsDescription:
    """Return what torchvision says of weights: their file, classes, preprocessing and published metrics.

    Args:
        architecture: "torchvision/<name>".
        weights: Name of the weights, such as "IMAGENET1K_V2".
        key: Place of the network in the config, for messages.

    Raises:
        UserError: torchvision has no such network or weights.
    """
    entry = get_weights_entry(architecture, weights, key)
    return {
        "architecture": architecture,
        "weights": entry.name,
        "url": entry.url,
        "categories": entry.meta.get("categories") or [],
        "preprocessing": get_input_settings(entry),
        "parameters": entry.meta.get("num_params"),
        "metrics": entry.meta.get("_metrics", {}),
        "recipe": entry.meta.get("recipe"),
    }


def parse_hash_prefix(url: str) -> str:
    """Return the start of the SHA-256 that a file's name contains, or "" where it contains none.

    Args:
        url: The address of the weights, whose file's name ends like "-f37072fd.pth".
    """
    match = HASH_PATTERN.search(Path(url).name)
    return match.group(1) if match else ""
