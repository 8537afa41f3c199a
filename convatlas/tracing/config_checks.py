"""Check the names in the config against the layers of its networks, before they are trained."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from convatlas import UserError
from convatlas.datasets.sample_images import find_file_errors
from convatlas.layer_selection import choose_layers, choose_projected_layers, match_names
from convatlas.models import build
from convatlas.models.preprocessing import Preprocessing
from convatlas.names import name_images, suggest_nearest
from convatlas.pipeline.config_types import LayerSelection, NetworkConfig
from convatlas.records import Layer
from convatlas.tracing.calls import composite_modules
from convatlas.tracing.layers import list_layers

log = logging.getLogger(__name__)

GLOB_CHARACTERS = "*?["
MAX_LISTED_MATCHES = 8  # names that the log lists of those that a glob matches


# From a network, its preprocessing, its section of the config and the key of it to what is wrong with it.
Check = Callable[[nn.Module, Preprocessing, NetworkConfig, str], Iterable[str]]


def check_networks(
    networks: Mapping[str, NetworkConfig], seed: int, further_checks: Sequence[Check] = ()
) -> None:
    """Check every name of a layer, unit or sample image in the networks' sections of the config.

    Sample images from files must have the channels and values that the network takes. The networks are
    untrained: their layers do not depend on weights or data. One that cannot be built before its data set is
    known is not checked.

    Args:
        networks: The networks' sections of the config by name; `images.files` without folders.
        seed: Seed of their weights.
        further_checks: What else is checked of each network, by packages that this one does not know.

    Raises:
        UserError: Lists all errors of all networks: the key, the name, what is allowed, the nearest name.
    """
    errors: list[str] = []
    for name, settings in networks.items():
        key = f"networks.{name}"
        try:
            network, preprocessing = _build_untrained(settings, seed, key)
        except UserError as error:  # its own job reports it, when the number of classes is known
            log.info("%s is not checked before its data set is prepared: %s", key, error)
            continue
        errors += find_name_errors(network, preprocessing, settings, key)
        errors += find_file_errors(settings["images"], preprocessing, f"{key}.images")
        for check in further_checks:
            errors += check(network, preprocessing, settings, key)
    if errors:
        raise UserError(
            "the config does not fit its networks:\n" + "\n".join(f"  - {error}" for error in errors)
        )


def _build_untrained(settings: NetworkConfig, seed: int, key: str) -> tuple[nn.Module, Preprocessing]:
    """Build a network, with two classes where their number comes from a data set."""
    is_trained = bool(settings.get("dataset")) and not settings.get("weights")
    return build.build_network(settings, ["0", "1"] if is_trained else None, seed, key)


def find_name_errors(
    network: nn.Module, preprocessing: Preprocessing, settings: NetworkConfig, key: str
) -> Iterator[str]:
    """Yield what is wrong with the names of layers, units and sample images in a network's config.

    Args:
        network: The network, trained or not.
        preprocessing: Its preprocessing.
        settings: Its section of the config; `images.files` without folders.
        key: Place of the section in the config.
    """
    selections = list_selections(settings)
    recorded = [selection for name, selection in selections.items() if name != "views.highlight"]
    entries = [entry for selection in recorded if selection != "all" for entry in selection]
    layers = list_selected_layers(network, preprocessing.shape, settings["downsample_name"], entries)
    composite = composite_modules(network)
    for name, selection in selections.items():
        suggested = composite if selection in recorded else []  # figures show what is recorded
        for entry in selection if selection != "all" else []:
            try:
                chosen = choose_layers(layers, [entry], f"{key}.{name}", suggested)
            except UserError as error:
                yield str(error)
                continue
            _log_matches(f"{key}.{name}", entry, chosen, composite)
    yield from _find_view_errors(layers, settings, key)


def list_selections(settings: NetworkConfig) -> dict[str, LayerSelection]:
    """Return every selection of layers in a network's section of the config, by its key.

    Args:
        settings: The section.
    """
    views = settings["views"]
    strongest = views["strongest"] if settings.get("dataset") else None
    selections: dict[str, Any] = {
        "views.layers": views["layers"],
        "views.highlight": views["highlight"],
        "views.deconv.steps.layer": _as_list((views["deconv"]["steps"] or {}).get("layer")),
        "views.remark.ordinal": _as_list(views.get("remark", {}).get("ordinal")),
        "views.occlusion.layer": _as_list(views["occlusion"]["layer"] if views["occlusion"] else None),
        "views.strongest.project": strongest["project"] if strongest else [],
    }
    sections: dict[str, Any] = {**views, "strongest": strongest}
    for name, section in sections.items():
        if isinstance(section, Mapping):
            selections[f"views.{name}.layers"] = section.get("layers")
    return {key: selection for key, selection in selections.items() if selection}


def _as_list(value: Any) -> list[Any]:
    """Return a value as a list of one; None as an empty list."""
    return [] if value is None else [value]


def list_selected_layers(
    network: nn.Module, shape: tuple[int, ...], downsample_name: str, entries: Sequence[str | int]
) -> list[Layer]:
    """List the layers of a network, with the composite modules that selections name.

    Args:
        network: The network.
        shape: Shape of one input, (C, H, W).
        downsample_name: Name of the submodules that down-sample shortcuts.
        entries: Names, globs and ordinals of all selections.
    """
    layers = list_layers(network, shape, downsample_name)
    blocks = choose_blocks(network, layers, entries)
    return list_layers(network, shape, downsample_name, blocks) if blocks else layers


def choose_blocks(network: nn.Module, layers: Sequence[Layer], entries: Sequence[str | int]) -> list[str]:
    """Return the composite modules that entries of selections name, or match by globs that match no layer.

    Args:
        network: The network.
        layers: Its layers, without composite modules.
        entries: Names, globs and ordinals of all selections.
    """
    composite = composite_modules(network)
    names = [layer["name"] for layer in layers if layer["called"]]
    chosen = {
        name
        for entry in entries
        if isinstance(entry, str)
        for name in match_names(entry, names, composite)
        if name in composite
    }
    return [name for name in composite if name in chosen]


def _log_matches(key: str, entry: str | int, chosen: Sequence[str], composite: Sequence[str]) -> None:
    """Log what a glob matches, as it selects layers or, where it matches none, composite modules."""
    if not isinstance(entry, str) or not any(character in entry for character in GLOB_CHARACTERS):
        return
    kind = "composite modules" if chosen[0] in composite else "layers"
    listed = ", ".join(chosen[:MAX_LISTED_MATCHES]) + (", ..." if len(chosen) > MAX_LISTED_MATCHES else "")
    log.info("%s: %r matches %d %s: %s", key, entry, len(chosen), kind, listed)


def _find_view_errors(layers: Sequence[Layer], settings: NetworkConfig, key: str) -> Iterator[str]:
    """Yield errors of units, of sample images, and of layers that are projected without being tracked."""
    by_name = {layer["name"]: layer for layer in layers}
    steps = settings["views"]["deconv"]["steps"] or {}
    images = name_images(settings["images"])
    if "image" in steps and steps["image"] not in images:
        hint = suggest_nearest(steps["image"], images)
        yield f"{key}.views.deconv.steps.image: no image {steps['image']!r}; {hint}"
    if "unit" in steps:
        yield from _find_step_unit_error(layers, settings, key)
    notes = settings.get("notes")
    if isinstance(notes, Mapping):
        for name in notes.get("layers", {}):
            if name not in by_name:
                yield f"{key}.notes.layers: no layer {name!r}; {suggest_nearest(name, list(by_name))}"
        for unit_name in notes.get("units", {}):
            name, _, number = unit_name.rpartition(" ")
            if name not in by_name:
                yield f"{key}.notes.units: no layer {name!r}; {suggest_nearest(name, list(by_name))}"
            elif int(number) >= (count := _count_units(by_name[name])):
                yield f"{key}.notes.units: no unit {unit_name!r}; {name} has {count}, counted from 0"
    yield from _find_untracked_layers(layers, settings, key)


def _find_step_unit_error(layers: Sequence[Layer], settings: NetworkConfig, key: str) -> Iterator[str]:
    """Yield what is wrong with the unit of `views.deconv.steps`."""
    deconv = settings["views"]["deconv"]
    steps = deconv["steps"] or {}
    selection = [steps["layer"]] if "layer" in steps else deconv["layers"]
    try:
        chosen = choose_projected_layers(layers, selection, key)
    except UserError:  # reported with its own key
        return
    layer = next((layer for layer in layers if layer["name"] == chosen[-1]), None) if chosen else None
    if layer and steps["unit"] >= _count_units(layer):
        yield (
            f"{key}.views.deconv.steps.unit: no unit {steps['unit']}; {layer['name']} has "
            f"{_count_units(layer)}, counted from 0"
        )


def _find_untracked_layers(layers: Sequence[Layer], settings: NetworkConfig, key: str) -> Iterator[str]:
    """Yield the layers of `views.strongest.project` that are not among `views.strongest.layers`."""
    strongest = settings["views"]["strongest"] if settings.get("dataset") else None
    if not strongest or not strongest["project"] or "all" in (strongest["project"], strongest["layers"]):
        return
    try:
        tracked = choose_layers(layers, strongest["layers"], key)
        projected = choose_layers(layers, strongest["project"], key)
    except UserError:  # reported with its own key
        return
    for name in projected:
        if name not in tracked:
            hint = suggest_nearest(name, tracked)
            yield f"{key}.views.strongest.project: {name!r} is not among views.strongest.layers; {hint}"


def _count_units(layer: Layer) -> int:
    """Return the number of units of a layer; 0 of one that is never called."""
    return layer["output_shape"][0] if layer["output_shape"] else 0
