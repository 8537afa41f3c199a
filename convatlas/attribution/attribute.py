"""Explain the scores of classes by the pixels, with any method of the registry."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from convatlas import UserError
from convatlas.attribution.backward_rules import is_activation, is_rectifier
from convatlas.attribution.class_scores import ClassScores
from convatlas.attribution.inplace_writes import all_nodes
from convatlas.attribution.methods.method import Checks, Explanation, Maps, Method
from convatlas.attribution.methods.registry import get_method
from convatlas.models.outputs import LOGITS, Output
from convatlas.models.preprocessing import Preprocessing
from convatlas.names import suggest_nearest
from convatlas.tracing.calls import is_single_image


@dataclass(frozen=True)
class Attribution:
    """The maps of one method.

    Attributes:
        maps: The maps of N images and T targets, float32: (N, T, C, H, W) signed in the input's scale of
            values where the method returns pixels, (N, T, 1, H, W) where it returns a map; of one image (T,
            ...).
        checks: What was measured of each map, per image and target: the completeness gap and the steps of
            integrated gradients, the number of pixels of a class in a segmentation. One image has one list.
    """

    maps: Tensor
    checks: list[list[Checks]]


class MethodProbe(NamedTuple):
    """What a run of a method on noise shows.

    Attributes:
        undefined: Why the method is not defined for the network; None where it is.
        layer: The layer by whose maps it explains; None of other methods, and where it is not defined.
    """

    undefined: str | None
    layer: str | None


def attribute(
    network: nn.Module,
    x: Tensor,
    method: str,
    targets: Sequence[int] | Tensor,
    *,
    output: Output = LOGITS,
    layer: str | None = None,
    preprocessing: Preprocessing | None = None,
    **settings: Any,
) -> Attribution:
    """Explain the scores of classes by the pixels.

    The score of a class is its logit: where the network's last operation is a softmax, a log-softmax or a
    sigmoid, its input. A network with one score for the second of two classes has the scores -logit and
    logit. In a segmentation the score is the sum of the class's logits over the pixels that are predicted as
    the class. The network runs in evaluation mode and is left as it was.

    Args:
        network: Any network.
        x: A preprocessed image (C, H, W), or a batch (N, C, H, W).
        method: Name of a method, such as "gradient" or "grad_cam"; an unknown name lists them.
        targets: Numbers of classes, from 0, the same for all images; or a tensor (N, T) of them.
        output: What the output of the network means; by default it holds the scores of classes.
        layer: Of methods that explain by the maps of a layer its name, as in layers.json; None chooses one.
        preprocessing: That of the images, by which methods know the values of black and grey; None of images
            in 0..1.
        **settings: Settings of the method; an unknown name lists them.

    Returns:
        The maps, and what was measured of each.

    Raises:
        UserError: There is no such method, setting, class or layer, the network does not take the input, the
            method is not defined for it, or the values are not finite.

    Examples:
        >>> import convatlas as ca
        >>> import torch
        >>> from torch import nn
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))
        >>> attribution = ca.attribute(network, torch.rand(2, 3, 8, 8), "gradient", targets=[3, 5, 7])
        >>> tuple(attribution.maps.shape)
        (2, 3, 3, 8, 8)
    """
    entry = get_method(method)
    _check_settings(entry, settings)
    _check_input(x)
    is_image = is_single_image(network, x)
    images = (x[None] if is_image else x).detach()
    classes = _expand_targets(targets, len(images)).to(images.device)
    explanation = Explanation(ClassScores(network, output), images, classes, layer, preprocessing)
    maps, checks = explain(explanation, entry, settings)
    return Attribution(maps[0] if is_image else maps, checks)


def explain(explanation: Explanation, method: Method, settings: Mapping[str, Any]) -> Maps:
    """Return the maps of a method, (N, T, C, H, W) or (N, T, 1, H, W), and leave the network as it was.

    Args:
        explanation: What is to be explained.
        method: The method.
        settings: Its settings.

    Raises:
        UserError: The method is not defined for the network, or the maps are not finite.
    """
    with preserve_state(explanation.scores.network, explanation.images):
        values, checks = method.compute(explanation, **settings)
    maps = values.float()
    _check_finite(method, maps, explanation.classes)
    return Maps(maps, checks)


def check_method(
    network: nn.Module,
    x: Tensor,
    method: str,
    output: Output = LOGITS,
    layer: str | None = None,
    **settings: Any,
) -> str | None:
    """Return why a method is not defined for a network; None where it is.

    Args:
        network: Any network.
        x: An input of the network, (C, H, W) or (N, C, H, W), of which the shape counts: the network runs on
            noise.
        method: Name of the method.
        output: What the output of the network means.
        layer: As in `attribute`.
        **settings: Settings of the method.

    Raises:
        UserError: There is no such method or setting.
    """
    return probe_method(network, x, method, output, layer, **settings).undefined


def probe_method(
    network: nn.Module,
    x: Tensor,
    method: str,
    output: Output = LOGITS,
    layer: str | None = None,
    **settings: Any,
) -> MethodProbe:
    """Run a method on noise, to learn whether it is defined for a network, and at which layer.

    Args:
        network: Any network.
        x: As in `check_method`.
        method: Name of the method.
        output: What the output of the network means.
        layer: As in `attribute`.
        **settings: Settings of the method.

    Raises:
        UserError: There is no such method or setting.
    """
    entry = get_method(method)
    _check_settings(entry, settings)
    images = (x[None] if is_single_image(network, x) else x[:1]).detach()
    classes = torch.zeros(1, 1, dtype=torch.int64, device=images.device)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)).to(images)
    try:
        explanation = Explanation(ClassScores(network, output), noise, classes, layer)
        with preserve_state(network, images):
            maps = (entry.probe or entry.compute)(explanation, **settings)
            if "rectifiers" in entry.requires and not _has_rule(explanation, **settings):
                return MethodProbe(f"the network has no ReLU, so that {entry.name} is the gradient", None)
    except UserError as error:
        return MethodProbe(str(error), None)
    return MethodProbe(None, maps.checks[0][0].get("layer"))


def _has_rule(explanation: Explanation, rectify: bool = False) -> bool:
    """Return whether a rectifier, or with `rectify` an activation, contributes to the scores."""
    nodes = all_nodes(explanation.scores.record(explanation.images).top)
    return any(is_activation(node) and (rectify or is_rectifier(node)) for node in nodes)


@contextmanager
def preserve_state(network: nn.Module, x: Tensor) -> Iterator[None]:
    """Restore the buffers of a network and the state of the random number generators after the block.

    Args:
        network: The network.
        x: Its input, whose device has a generator of its own.
    """
    buffers = [
        (m, n, b, b.clone()) for m in network.modules() for n, b in m._buffers.items() if b is not None
    ]
    devices = [x.device] if x.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        for module, name, buffer, values in buffers:
            module._buffers[name] = buffer
            if not torch.equal(buffer, values):
                buffer.data.copy_(values)


def _check_settings(method: Method, settings: dict[str, Any]) -> None:
    """Raise UserError where a method has no setting of a name."""
    for name in settings:
        if name not in method.settings:
            hint = suggest_nearest(name, list(method.settings))
            raise UserError(f"the attribution method {method.name!r} has no setting {name!r}; {hint}")


def _check_input(x: Tensor) -> None:
    """Raise UserError where the input is no tensor, is empty or has no floats."""
    if not isinstance(x, Tensor):
        raise UserError(f"x is of the type {type(x).__name__}; give preprocessed images, a torch.Tensor")
    if not x.numel():
        raise UserError(f"x has the shape {tuple(x.shape)}; give one image (C, H, W) or a batch (N, C, H, W)")
    if not x.is_floating_point():
        raise UserError(f"x has the type {x.dtype}; give preprocessed images, of floats")


def _expand_targets(targets: Sequence[int] | Tensor, images: int) -> Tensor:
    """Return target classes as (N, T); raise UserError where they are none."""
    if isinstance(targets, int) or (isinstance(targets, Tensor) and targets.ndim == 0):
        raise UserError(f"targets is a list of class numbers, such as [{int(targets)}], not {int(targets)}")
    try:
        classes = torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError) as error:  # such as of names of classes
        raise UserError(f"targets is a list of class numbers, such as [0, 3], not {targets!r}") from error
    if classes.ndim == 1:
        classes = classes.expand(images, -1)
    is_integer = not classes.is_floating_point() and classes.dtype != torch.bool
    if classes.ndim != 2 or len(classes) != images or not classes.shape[1] or not is_integer:
        raise UserError(
            f"targets has the shape {tuple(classes.shape)} and the type {classes.dtype}; give class numbers, "
            f"such as [0, 3] for all images, or a tensor of shape ({images}, targets) and type torch.int64"
        )
    return classes.long()


def _check_finite(method: Method, maps: Tensor, classes: Tensor) -> None:
    """Raise UserError where maps of finite scores are not finite."""
    low, high = maps.aminmax()  # NaN where any value is
    if not (low.isfinite() and high.isfinite()):
        is_finite = maps.isfinite().flatten(2).all(2)
        image, target = (~is_finite).nonzero()[0].tolist()
        raise UserError(
            f"{method.name} of class {int(classes[image, target])} for image {image} is not finite, though "
            "the score is: an intermediate value overflowed float32, or has no derivative"
        )
