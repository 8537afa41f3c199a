"""The checked and completed config as types, after config.schema.yaml, which describes each key.

A key with a default is always there; one without is `NotRequired`.
"""

from typing import Any, Literal, NotRequired, TypedDict

from convatlas.records import FigureFormat, OutputKind, Split

LayerSelection = str | list[str | int]  # "all", or names, globs and ordinals of convolutions
CountOrAll = int | str  # a number, or "all"
UnitSelection = int | str | list[int]  # a number, "all", or the numbers of units
TargetSelection = str | list[str | int]  # "predicted", "label", "top3", or numbers and names of classes
ImageSelection = int | str | list[str]  # a number, "all", or names of sample images
OnBadImage = Literal["error", "skip"]


class SingleFileConfig(TypedDict):
    """`publish.single_file`: what the gallery in one file holds."""

    layers: LayerSelection  # or "highlight"
    megabytes: float


class PublishConfig(TypedDict):
    """`publish`: what is published with the gallery."""

    tensors: bool
    weights: bool
    single_file: SingleFileConfig


class DatasetConfig(TypedDict):
    """A data set, `datasets.<name>`."""

    format: Literal["mnist", "oxford-iiit-pet", "images"]
    source: str  # "embedded", "download" or a directory
    mirrors: list[str]
    target: Literal["breed", "species"]
    test_share: float
    on_bad_image: OnBadImage


class WeightsConfig(TypedDict):
    """A checkpoint of the user's, `weights` as a mapping."""

    path: str
    key: NotRequired[str]
    strip_prefix: NotRequired[str]
    ignore: NotRequired[list[str]]  # globs of names


class InputConfig(TypedDict, total=False):
    """`input`: what overrides the preprocessing of the architecture or the weights."""

    size: int | list[int]  # pixels a side of a square, or (H, W); (L) or (D, H, W) of what is no image
    resize: int | str  # pixels of the shorter side before the crop, "cover" or "stretch"
    mean: list[float]
    std: list[float]
    channels: int | Literal["grey", "rgb", "bgr"]
    range: list[float]  # the values of files that become 0 and 1
    display: list[int]  # the channels that are shown, one or three


class OutputConfig(TypedDict, total=False):
    """`output`: what the output of a network means."""

    kind: OutputKind
    path: str | int | float  # 1.0 is the first tensor of the second part


class NotesConfig(TypedDict, total=False):
    """`notes` of a network as a mapping: Markdown."""

    text: str
    layers: dict[str, str]
    units: dict[str, str]  # by "<layer> <unit>"


class RecordConfig(TypedDict):
    """`record`: how activations are recorded."""

    dtype: Literal["float32", "float16"]
    compress: bool
    verify: bool  # by default whether the network is of the user's own


class ProgressiveResize(TypedDict):
    """`training.progressive_resize`: smaller images in the first epochs."""

    size: int  # pixels of the shorter side
    share: float  # of the epochs


class TrainingConfig(TypedDict):
    """`training` of a network."""

    epochs: int
    max_steps: int | None
    batch_size: int
    lr: float
    optimizer: Literal["adamw", "adam", "sgd"]
    schedule: Literal["one_cycle", "cosine", "constant"]
    weight_decay: float
    progressive_resize: ProgressiveResize | None
    ema_decay: float
    validation: float  # share of the training images
    shift: int  # pixels
    flip: bool
    crop: float  # smallest share of a side
    scale: float  # largest share of a side
    stretch: float
    rotate: float  # degrees
    colour: float
    precision: Literal["auto", "float32", "bfloat16"]


class ImagesConfig(TypedDict, total=False):
    """`images`: the sample images of a network."""

    digits: list[int]
    first: int
    indices: list[int]
    photographs: list[str]
    files: list[str]
    on_bad_image: OnBadImage


class RemarkConfig(TypedDict):
    """`views.remark`: a remark at a convolution on the curve of segmentation by layer."""

    ordinal: int
    text: str


class MaskViews(TypedDict):
    """`views.masks`: images on which segmentation by layer is measured."""

    train: int
    test: int


class AtlasViews(TypedDict):
    """`views.atlas`: what the explorer shows."""

    levels: int
    layers: LayerSelection | None


class StrongestViews(TypedDict):
    """`views.strongest`: the top activations over the data set."""

    layers: LayerSelection
    k: int
    split: Split
    batch: int | None
    project: LayerSelection | None
    units: CountOrAll
    relevance: list[int | str] | None  # numbers and names of classes


class StepsViews(TypedDict, total=False):
    """`views.deconv.steps`: the unit whose projection is drawn step by step."""

    layer: str | int
    unit: int
    image: str


class DeconvViews(TypedDict):
    """`views.deconv`: the deconvnet projections."""

    layers: LayerSelection
    units: CountOrAll
    select: list[Literal["map", "peak"]]
    rectify: bool
    steps: StepsViews | None


class SmoothGradViews(TypedDict):
    """`views.attribution.smoothgrad`: its noise."""

    samples: int
    noise: float  # standard deviation, as a share of the range of the image's values


class OcclusionViews(TypedDict):
    """`views.attribution.occlusion`: the grey square."""

    size: int | None  # pixels
    stride: int | None


class FeatureVisualisationViews(TypedDict):
    """`views.feature_visualisation`: images optimised for units and classes."""

    layers: LayerSelection | None
    units: CountOrAll | list[int]
    classes: CountOrAll | list[int | str]
    objective: Literal["channel", "neuron"]
    steps: int
    size: int | None  # pixels of the shorter side
    robust: bool
    second_start: CountOrAll  # units of each layer


class AttributionViews(TypedDict):
    """`views.attribution`: the attribution maps of the sample images."""

    methods: list[str]
    targets: TargetSelection
    images: ImageSelection
    layers: list[str | int] | None  # of Grad-CAM and Grad-CAM++
    baseline: Literal["black", "mean", "blurred"]  # of integrated gradients
    steps: int  # of integrated gradients, at least
    smoothgrad: SmoothGradViews
    occlusion: OcclusionViews
    randomisation: int  # images


class EvolutionViews(TypedDict):
    """`views.evolution`: units through training."""

    epochs: list[int]
    layers: LayerSelection | None
    units: UnitSelection
    images: int | None  # of the training split, at most


class TransformViews(TypedDict):
    """A change of `views.invariance`."""

    range: list[float]  # shares of the height or width, factors, or degrees
    steps: int


class InvarianceViews(TypedDict):
    """`views.invariance`: features and prediction under changes of the image."""

    images: int
    layers: list[str | int] | None
    padding: Literal["edge", "reflect", "zero"]
    vertical: TransformViews | None
    horizontal: TransformViews | None
    scale: TransformViews | None
    rotation: TransformViews | None


class ConceptViews(TypedDict):
    """`views.concepts`: the concepts by which units are named."""

    layers: LayerSelection | None  # null: convolutions and linear layers
    train: int  # images
    test: int
    image_value: Literal["mean", "max"]


class SimilarityViews(TypedDict):
    """`views.similarity`: the similarity of layers by CKA."""

    images: int  # of the test split
    layers: LayerSelection | None


class ComparedNetworkSettings(SimilarityViews):
    """What the analysis of similarity takes from the section of a network."""

    dataset: str


class SimilaritySettings(TypedDict):
    """What the job takes that compares the layers of all networks."""

    seed: int
    networks: dict[str, ComparedNetworkSettings]  # in the order of the config
    skip_unreadable: dict[str, bool]  # by data set


class AblationViews(TypedDict):
    """`views.ablation`: what the network loses without units and layers."""

    layers: LayerSelection | None
    units: CountOrAll  # of a layer
    images: CountOrAll
    random_orders: int


class EffectiveFieldViews(TypedDict):
    """`views.effective_receptive_field`: the pixels that the centres of layers depend on."""

    images: CountOrAll  # of the test split
    layers: LayerSelection | None


class EffectiveFieldSettings(EffectiveFieldViews):
    """What the analysis of effective receptive fields takes."""

    seed: int


class CorrespondenceViews(TypedDict):
    """`views.correspondence`: how alike features change as the same part is occluded in several images."""

    images: int  # of a set
    sets: int
    draws: int
    layers: list[str | int] | None
    classes: list[str | int] | None


class OcclusionStudyViews(TypedDict):
    """`views.occlusion`: what a grey square over each part of a sample image changes."""

    layer: str | int | None
    size: int | None  # pixels
    stride: int | None
    images: CountOrAll


class ViewsConfig(TypedDict):
    """`views` of a network."""

    n_images: CountOrAll
    n_filters: CountOrAll
    layers: LayerSelection
    show: Literal["filters", "maps", "both"]
    scale: Literal["per_tile", "per_layer", "shared"]
    match: float
    highlight: list[str | int]
    remark: NotRequired[RemarkConfig]
    masks: MaskViews
    atlas: AtlasViews
    formats: list[FigureFormat]  # besides PNG, which is always written
    strongest: StrongestViews | None
    deconv: DeconvViews
    feature_visualisation: FeatureVisualisationViews | None
    attribution: AttributionViews | None
    occlusion: OcclusionStudyViews | None
    evolution: EvolutionViews | None
    ablation: AblationViews | None
    concepts: ConceptViews | None
    similarity: SimilarityViews | None
    effective_receptive_field: EffectiveFieldViews | None
    invariance: InvarianceViews | None
    correspondence: CorrespondenceViews | None


class NetworkConfig(TypedDict):
    """A network, `networks.<name>`."""

    architecture: str
    arguments: dict[str, Any]
    weights: NotRequired[str | WeightsConfig]
    mirrors: list[str]
    dataset: NotRequired[str]
    classes: NotRequired[str | list[str]]
    output: NotRequired[OutputConfig]
    downsample_name: str
    input: InputConfig
    notes: NotRequired[str | NotesConfig]
    citation: NotRequired[str]
    shards: NotRequired[int]
    record: RecordConfig
    training: TrainingConfig
    images: ImagesConfig
    views: ViewsConfig


class Config(TypedDict):
    """The whole config, after `resolve_config`."""

    seed: int
    shards: int
    device: Literal["auto", "cpu", "cuda"]
    title: str
    author: NotRequired[str]
    notes: NotRequired[str]
    site_url: NotRequired[str]
    licence: NotRequired[str]  # SPDX identifier or address
    published: NotRequired[str]  # YYYY-MM-DD
    publish: PublishConfig
    datasets: dict[str, DatasetConfig]
    networks: dict[str, NetworkConfig]
    only: list[str]
