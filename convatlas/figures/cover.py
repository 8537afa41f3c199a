"""The first figure of a network: sample images above the projections of their strongest activations."""

from collections.abc import Sequence

from convatlas.attribution.unit_selection import unit_maxima
from convatlas.figures.context import Caption, CaptionedFigure, FigureContext, symmetric_range
from convatlas.figures.tiles import CLIPPING_NOTE, MontageOptions, make_colour_bar, make_projection_tile
from convatlas.plotting.colormap import LayerScales
from convatlas.plotting.montage import TILE_SIZE, TileRow
from convatlas.records import SampleImage
from convatlas.results import list_projection_keys, projected_units

MAX_IMAGES = 5


def draw_cover(context: FigureContext, images: Sequence[SampleImage]) -> CaptionedFigure:
    """Draw each image, and below it the projection of the most active unit of the deepest projected layer.

    Args:
        context: The network's results and views.
        images: Entries of images.json whose projections are present, at least one; a column each.

    Returns:
        A figure of kind "cover".

    Raises:
        UserError: A file of the results is missing or damaged.
    """
    names = [image["name"] for image in images]
    first_keys: dict[str, str] = {}
    for key in list_projection_keys(context.projections(names[0])):
        first_keys.setdefault(key.partition("@")[0], key)
    layer, key = list(first_keys.items())[-1]
    top_units, projections = [], []
    for name in names:
        units = projected_units(context.projections(name), layer)
        maxima = unit_maxima(context.activations(name)[layer])[units]
        top_units.append(units[int(maxima.argmax())])
        projections.append(context.projections(name)[key][int(maxima.argmax())])
    as_rgb = len(projections[0]) == 3
    ranges = [symmetric_range(projection) for projection in projections] if as_rgb else projections
    scales = LayerScales("per_layer", {key: ranges}, signed=True, as_rgb=as_rgb)
    tiles: TileRow = [
        make_projection_tile(scales, key, projection, unit, unit in context.find_inactive_units(name, layer))
        for name, projection, unit in zip(names, projections, top_units, strict=True)
    ]
    inputs: TileRow = [context.make_input_tile(name, context.image_titles[name]) for name in names]
    location = "strongest location" if "@" in key else "whole map"
    caption = Caption(
        f"{layer}: deconvnet projections of the most active unit, {location}, on "
        f"{f'{len(names)} images' if len(names) > 1 else context.image_titles[names[0]]}, "
        f"{scales.describe_extent(key)}",
        f"Below each image the projection of the strongest activation of {layer}: {location} of the most "
        f"active unit. {scales.describe(key, 'projections')}{f' {CLIPPING_NOTE}' if as_rgb else ''}"
        f"{context.display_note}",
    )
    return context.make_montage(
        "cover",
        "",
        [inputs, tiles],
        ["input", f"most active\nunit of\n{layer}"],
        [make_colour_bar(scales, key, 1, 1, "projection")],
        caption,
        MontageOptions(tile_size=2 * TILE_SIZE),
    )
