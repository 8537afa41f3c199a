"""The JSON files of the explorer: results/<network>/atlas/ and what its scripts read in the site.

Lists of numbers are by unit, in the order of the layer's output channels, unless stated otherwise.
"""

from typing import Literal, NotRequired, TypedDict

from convatlas.records import Kind, Split

ProjectionKind = Literal["map", "peak"]
ViewKind = Literal["maps", "filters", "projections", "peaks"]


class SpriteSheets(TypedDict):
    """How tiles are laid out on sprite sheets, one tile per unit."""

    tile_size: list[int]  # (height, width) in pixels
    suffix: str
    columns: int
    rows: int
    sheets: NotRequired[int]  # absent where it is 1


class FilterSheets(SpriteSheets):
    """The sprite sheets of a layer's filters."""

    rgb: bool  # whether tiles show the three input channels as colours


class ProjectionSheets(SpriteSheets):
    """The sprite sheets of a layer's deconvnet projections."""

    kinds: list[ProjectionKind]  # in the order of the tiles
    units: dict[str, list[int]]  # the units that are projected, by image
    rgb: bool


class TopActivationSheets(SpriteSheets):
    """The sprite sheets of a layer's top-activating patches, beside their projections."""

    units: list[int]  # in the order of the tiles
    patch_size: list[int]  # (height, width) in pixels of the data set's images
    rgb: bool
    max_abs: list[float]  # the largest magnitude on each tile's colour scale


class ExplorerImage(TypedDict):
    """A sample image: its name, its title with its class, and this with the prediction."""

    name: str
    title: str
    label: str


class ExplorerInput(TypedDict):
    """The network's input, without its normalisation."""

    file: str
    size: list[int]  # (height, width) in pixels


class ExplorerDataset(TypedDict):
    """The data set over which units are tracked."""

    dataset: str
    split: Split
    images: int
    class_source: Literal["label", "predicted class"]
    classes: list[str]
    class_images: list[int]
    k: int  # top activations per unit
    bin_edges: list[float]  # magnitudes that bound the bins of the histograms, without infinity


class SpriteLayer(SpriteSheets):
    """An entry of `layers` of atlas.json; its own sheets are those of its feature maps."""

    name: str
    slug: str  # of its files' names
    stage: str
    type: str
    kind: Kind
    role: str | None
    ordinal: int | None
    receptive_field: list[int] | None
    parameters: int
    within: list[str]
    inputs: list[str]
    shape: list[int]
    units: int
    signed: bool  # whether a map has negative values
    filters: FilterSheets | None
    deconv: ProjectionSheets | None
    top_activations: TopActivationSheets | None


class ExplorerIndex(TypedDict):
    """atlas.json."""

    levels: int  # grey levels of a sprite
    images: list[ExplorerImage]
    inputs: dict[str, ExplorerInput]  # by image
    dataset_pass: ExplorerDataset | None
    layers: list[SpriteLayer]


class MapRange(TypedDict):
    """The values of a layer's maps on one image."""

    min: list[float | None]  # of the finite values; null without any
    max: list[float | None]
    mean: list[float | None]  # null with NaN or infinite values
    zero_fraction: list[float]
    non_finite: NotRequired[list[int]]  # values that are NaN or infinite, only where there are any
    infinite: NotRequired[list[int]]  # those that are infinite


class FilterRange(TypedDict):
    """The weights of a layer's filters."""

    max_abs: list[float]
    channels: list[list[int]] | None  # the input channels that a tile shows
    non_finite: NotRequired[list[int]]  # as of the maps


class WeightSummary(TypedDict):
    """The weights of a layer that has one weight per input and unit: a histogram, and the largest ones."""

    inputs: int
    max_abs: float  # the end of the histogram, which is centred on zero
    histogram: list[int]
    largest_inputs: list[list[int]]  # by unit, in descending order of magnitude
    largest: list[list[float | None]]


class MatchSummary(TypedDict):
    """The classical feature that a unit matches."""

    description: str
    r: float


class UnitHistograms(TypedDict):
    """The histograms of a layer's units over the data set."""

    values: int  # that are counted of a unit
    largest: list[int]  # the number of the last bin of magnitudes with a value, from 1; 0 where all are zero
    levels: list[
        str
    ]  # the heights of the bars, one digit to the base 36 each; without negative ones half as many


class UnitStatistics(TypedDict):
    """The statistics of a layer's units over the data set; null where one is not defined."""

    mean: list[float | None]
    std: list[float | None]
    max: list[float | None]
    zero_fraction: list[float | None]
    selectivity: list[float | None]
    dead: list[int]  # unit numbers
    preferred_classes: NotRequired[dict[str, tuple[int, float | None]]]  # by unit: class, effect size
    histogram: NotRequired[UnitHistograms]


class LayerUnits(TypedDict):
    """units/<slug>.json: the numbers of a layer's units."""

    maps: dict[str, MapRange]  # by image
    filters: FilterRange | None
    weights: NotRequired[WeightSummary]  # where they are not drawn as filters
    deconv: dict[str, dict[str, list[float]]] | None  # largest magnitude, by image and kind
    matches: list[MatchSummary | None] | None
    concepts: NotRequired[dict[str, str]]  # by unit, those that it separates better than chance
    non_finite_deconv: NotRequired[list[str]]  # images with NaN or infinity in a projection
    dataset_pass: NotRequired[UnitStatistics]
    ablation: NotRequired[dict[int, str]]  # what the network loses without a unit, as a sentence


class OptimisedUnits(TypedDict):
    """The units of a layer that have an optimised image."""

    slug: str  # of the layer in the names of its pictures
    units: list[int]


class ExplorerLayer(TypedDict, total=False):
    """A layer as the explorer's scripts read it; absent keys are null, false, empty or as usual."""

    name: str
    slug: str
    module: str  # absent where it is the name
    type: str
    kind: Kind
    role: str
    ordinal: int
    stage: str
    receptive_field: list[int]
    receptive_start: list[int]
    receptive_step: list[int]
    shape: list[int]
    parameters: int
    units: int
    signed: bool
    tile_size: list[int]
    columns: int
    rows: int
    sheets: int
    filters: FilterSheets
    deconv: ProjectionSheets
    top_activations: TopActivationSheets
    optimised: OptimisedUnits  # on the page of feature visualisation
    kernel: list[int]
    notes: list[str]
    is_class_score: bool
    is_never_positive: bool
    figures: int  # number of the page that has them, from 1, in figure_files


class InitialView(TypedDict):
    """What the explorer shows first."""

    layer: str
    unit: int
    image: str


class ExplorerNetwork(TypedDict):
    """A network as the explorer's scripts read it."""

    name: str
    levels: int  # of grey of a sprite
    images: list[ExplorerImage]
    inputs: dict[str, ExplorerInput]
    value_ranges: dict[ViewKind, list[float]]  # (min, max) over the whole network
    initial: InitialView
    classes: list[str]
    dataset_pass: ExplorerDataset | None
    figure_files: list[str]  # pages with figures of layers, in networks/; "" is the network's own
    layers: list[ExplorerLayer]
