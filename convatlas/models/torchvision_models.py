"""torchvision's networks and their trained weights, built by its own functions."""

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum

from convatlas import UserError
from convatlas.models.factory import Factory
from convatlas.models.preprocessing import IMAGENET_INPUT
from convatlas.names import suggest_nearest
from convatlas.pipeline.architecture_names import TORCHVISION_PREFIX

HASH_PATTERN = re.compile(
    r"-([a-f0-9]{8,})\."
)  # the start of the SHA-256, in the name of a file (torch.hub's custom)


def make_torchvision_factory(
    architecture: str, weights: str | None, state: dict[str, Tensor] | None, key: str
) -> Factory:
    """Give the function that builds one of torchvision's networks.

    With the name of `weights` it is built in the form that these have (inception_v3's `transform_input`,
    the auxiliary heads, ...), which takes no count of classes, and `state` is what their file holds;
    where that is None nothing is loaded, and the caller loads its own.
    """
    builder = models.get_model_builder(_check_model_name(architecture, key))
    chosen = get_weights_entry(architecture, weights, key) if weights else None
    if chosen is None:
        backbone = "weights_backbone" in inspect.signature(builder).parameters  # which would be downloaded
        plain = partial(builder, weights=None, **({"weights_backbone": None} if backbone else {}))
        return Factory(plain, architecture, IMAGENET_INPUT, "num_classes")

    def build(**arguments: Any) -> nn.Module:
        with _replace_download(state):
            return builder(weights=chosen, **arguments)

    return Factory(build, architecture, get_input_settings(chosen))


@contextmanager
def _replace_download(state: dict[str, Tensor] | None) -> Iterator[None]:
    """Have torchvision's builders load `state` instead of a download, or nothing at all."""
    download, load = WeightsEnum.get_state_dict, nn.Module.load_state_dict
    WeightsEnum.get_state_dict = lambda *_, **__: dict(state or {})
    if state is None:
        nn.Module.load_state_dict = lambda *_, **__: None
    try:
        yield
    finally:
        WeightsEnum.get_state_dict, nn.Module.load_state_dict = download, load


def get_weights_entry(architecture: str, weights: str, key: str) -> WeightsEnum:
    """Give torchvision's entry of a network's weights, by name."""
    known = models.get_model_weights(_check_model_name(architecture, key))
    name = weights.removeprefix(f"{known.__name__}.")
    if name not in known.__members__:
        raise UserError(
            f"{key}.weights: {architecture} has no weights {weights!r}; {suggest_nearest(name, [*known.__members__])}"
        )
    return known[name]


def _check_model_name(architecture: str, key: str) -> str:
    name = architecture.removeprefix(TORCHVISION_PREFIX)
    if name not in models.list_models():
        raise UserError(
            f"{key}.architecture: torchvision has no network {name!r}; {suggest_nearest(name, models.list_models())}"
        )
    return name


def get_input_settings(chosen: WeightsEnum) -> dict[str, Any]:
    """The preprocessing with which weights were tested; without crop, the middle of what is resized."""
    given = chosen.transforms()
    resize = getattr(given, "resize_size", None) or [IMAGENET_INPUT["size"]]
    size = getattr(given, "crop_size", None) or resize
    interpolation = getattr(given, "interpolation", None)
    return {
        "size": _get_side(size),
        "mean": list(getattr(given, "mean", [0.0] * 3)),
        "std": list(getattr(given, "std", [1.0] * 3)),
        "resize": _get_side(resize),
        "interpolation": interpolation.value if interpolation else "bilinear",
    }


def _get_side(size: int | list[int] | tuple[int, ...]) -> int:
    return int(size if isinstance(size, int) else size[0])


def describe_weights(architecture: str, weights: str, key: str) -> dict[str, Any]:
    """What torchvision says of weights: where they come from, their classes, what they were measured at."""
    chosen = get_weights_entry(architecture, weights, key)
    return {
        "architecture": architecture,
        "weights": chosen.name,
        "url": chosen.url,
        "categories": chosen.meta.get("categories") or [],
        "preprocessing": get_input_settings(chosen),
        "parameters": chosen.meta.get("num_params"),
        "metrics": chosen.meta.get("_metrics", {}),
        "recipe": chosen.meta.get("recipe"),
    }


def parse_hash_prefix(url: str) -> str:
    """The start of a file's SHA-256 that its name promises; "" where it promises none."""
    found = HASH_PATTERN.search(Path(url).name)
    return found.group(1) if found else ""
