"""Figures of classical features, beside the feature maps that match them."""

from convatlas.analysis.feature_captions import FEATURE_CAPTIONS
from convatlas.figures.context import Caption, CaptionedFigure, FigureContext
from convatlas.figures.tiles import MontageOptions
from convatlas.names import format_number
from convatlas.plotting.colormap import ColourScale
from convatlas.plotting.montage import Tile, TileRow
from convatlas.records import SampleImage

MAX_MATCHES = 7  # feature maps beside each classical feature
DUPLICATE_TOLERANCE = 0.005  # a unit's r in two layers differs by more where both are shown
GREY_FEATURES = ("brightness", "erosion", "dilation")  # whose values are grey levels in 0..1


def draw_classical(context: FigureContext, image: SampleImage) -> CaptionedFigure:
    """Draw a classical feature of the image per row, and the feature maps that match it best.

    Args:
        context: The network's results and views.
        image: The sample image, an entry of images.json.

    Returns:
        A figure of kind "classical". Below the image it has a row for each entry of FEATURE_CAPTIONS, with at
        most MAX_MATCHES feature maps in order of the magnitude of their correlation.

    Raises:
        UserError: A file of the results is missing or damaged.
    """
    features = context.results.classical(image["name"])
    rows: list[TileRow] = [[context.make_input_tile(image["name"])]]
    labels = [""]
    for feature, description in FEATURE_CAPTIONS.items():
        values = features[feature]
        is_grey = feature in GREY_FEATURES
        scale = ColourScale(0.0, 1.0, "gray") if is_grey else ColourScale.from_values(values)
        rows.append([Tile(values, scale), *_make_match_tiles(context, image["name"], feature)])
        labels.append(description.replace(" (", "\n("))
    caption = Caption(
        f"all layers: classical features of {context.image_titles[image['name']]} and the most similar "
        "feature maps, a scale per tile",
        f"{context.describe_image(image, ', ')}. A row per classical feature: the feature, then the most "
        "similar feature maps: layer, unit and correlation r over all sample images. A match needs "
        f"|r| ≥ {context.results.unit_matches['threshold']:g} and above the 95th percentile of the untrained "
        "network; rows without feature maps have none. A unit that a normalisation only rescales is shown "
        "once. Each tile has its own colour scale; signed ones are white at 0.",
    )
    options = MontageOptions(tile_size=context.labelled_tile_size, group_starts=(1,))
    return context.make_montage("classical", image["name"], rows, labels, [], caption, options)


def _make_match_tiles(context: FigureContext, image: str, feature: str) -> list[Tile]:
    """Return the feature maps that match a feature or one of its halves, most similar first."""
    matches = [
        (match["r"], layer, unit)
        for layer, layer_matches in context.results.unit_matches["layers"].items()
        for unit, match in enumerate(layer_matches["units"])
        if match and match["feature"].rstrip("+-") == feature
    ]
    matches.sort(key=lambda entry: -abs(entry[0]))
    tiles: list[Tile] = []
    drawn: list[tuple[float, int]] = []
    for r, layer, unit in matches:
        if len(drawn) == MAX_MATCHES:
            break
        if any(unit == u and abs(abs(r) - abs(other)) < DUPLICATE_TOLERANCE for other, u in drawn):
            continue  # such as a batch normalisation's, which rescales the convolution's output
        drawn.append((r, unit))
        values = context.activations(image)[layer][unit]
        scale = ColourScale.from_values(values)
        tiles.append(Tile(values, scale, f"unit {unit}", format_number(r, ".2f"), layer))
    return tiles
