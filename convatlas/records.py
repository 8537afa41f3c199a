"""The JSON files between the stages, as types: what each stage writes and what `Results` reads.

Shapes are lists without the batch axis, (channels, height, width) for maps. A key that may be absent is
`NotRequired`; one whose value is not known or does not apply holds null.
"""

from typing import Any, Literal, NotRequired, TypedDict

Split = Literal["train", "test"]
ClassSource = Literal["label", "predicted class"]
OutputKind = Literal[
    "softmax", "sigmoid", "multi-label", "log-softmax", "probabilities", "independent-probabilities", "none"
]
Kind = Literal["conv", "linear", "pool", "norm", "activation", "dropout", "reshape", "merge", "other"]


class Preprocessing(TypedDict):
    """How an image becomes the network's input."""

    size: int | list[int]  # pixels a side of a square, or (H, W); (L) or (D, H, W) of what is no image
    mean: list[float]  # of each channel, of values in 0..1
    std: list[float]
    resize: int | str  # pixels of the shorter side before the crop, "cover" or "stretch"
    interpolation: str
    channels: NotRequired[Literal["bgr"]]  # the order of the channels, if not RGB
    range: NotRequired[list[float]]  # the stored values that become 0 and 1, if configured
    display: NotRequired[
        list[int]
    ]  # channels that are shown, if configured: one in grey, or red, green, blue


class WeightsOrigin(TypedDict):
    """Where a network's weights come from."""

    origin: str
    name: str | None  # of torchvision's weights
    url: str | None
    source_sha256: str | None  # of the file that was loaded
    metrics: dict[str, Any] | None  # as published
    sha256: str  # of weights.safetensors


class WeightsDescription(TypedDict):
    """What torchvision says of trained weights of one of its networks."""

    architecture: str
    weights: str
    url: str
    categories: list[str]  # names of the classes
    preprocessing: Preprocessing
    parameters: int | None
    metrics: dict[str, Any]  # as published, by data set
    recipe: str | None  # address of the training recipe
    licence: NotRequired[str]  # of embedded weights


class DownloadedWeights(WeightsDescription):
    """data/weights/<model>-<weights>.json: downloaded or embedded weights."""

    sha256: str
    size: int  # bytes


class OutputDescription(TypedDict):
    """What the output of a network means."""

    kind: OutputKind  # how the main tensor is read as scores of classes
    path: str  # of the main tensor in the output: names and numbers, joined by dots; "" for the output itself
    shape: list[int]  # of the main tensor: (scores,), or (scores, height, width) of pixels; or empty
    reason: str  # how the kind is known


class NetworkDescription(TypedDict):
    """network.json."""

    architecture: str
    arguments: dict[str, Any]
    source: str | None  # where the architecture was published
    parameters: int
    converted_from: NotRequired[str]  # precision of its weights as built, if not float32, such as "float16"
    non_finite_weights: NotRequired[list[str]]  # parameters and buffers with NaN or infinity, if any
    weights: WeightsOrigin
    dataset: str | None
    dataset_sha256: str | None
    dataset_classes: list[str] | None
    classes: list[str]
    output: OutputDescription
    preprocessing: Preprocessing
    training: dict[str, Any] | None  # `training` of the config, with best_epoch, precision and images
    snapshots: NotRequired[list[int]]  # the epochs of views.evolution whose weights were to be saved
    seed: int
    device: str
    versions: dict[str, str]


class Timing(TypedDict):
    """timing.json."""

    started: str  # ISO 8601
    finished: str
    training_seconds: float | None
    images_per_second: int | None
    resumed_after_epoch: int | None
    threads: int


class ClassificationMetrics(TypedDict):
    """metrics.json of a classifier: measured once on the test split."""

    accuracy: float
    class_accuracy: dict[str, float | None]
    confusion: list[list[int]]  # rows: true class; columns: predicted class
    images: int


class SegmentationMetrics(TypedDict):
    """metrics.json of a segmentation network: measured once on the pixels of the test split."""

    mean_iou: float
    iou: dict[str, float | None]
    dice: dict[str, float | None]
    pixel_accuracy: float
    confusion: list[list[int]]  # pixels; rows: true class; columns: predicted class
    images: int


class ImagePrediction(TypedDict):
    """A row of predictions.csv: one test image.

    `prediction` and `probability` are those of a classifier, the other keys those of a segmentation network,
    with a number of pixels for each class.
    """

    split: Split
    index: int  # in the split
    file: str | None  # relative to data/<dataset>/; null where the image has no file of its own
    label: int | None  # number of the image's class in the data set
    prediction: int | None  # number of the class with the highest score
    probability: float | None  # of the prediction
    loss: float | None  # null where no pixel has a class
    mean_iou: NotRequired[float | None]  # of the classes that are there or predicted
    intersections: NotRequired[list[int]]  # pixels of each class that are predicted as it
    unions: NotRequired[list[int]]  # pixels that are of each class, or predicted as it


class Layer(TypedDict):
    """An entry of layers.json: one call of a leaf module, a function or a chosen composite module."""

    name: str
    module: str
    type: str
    kind: Kind
    input_shape: list[int]  # null, as `output_shape`, of a module that is never called
    output_shape: list[int]
    inputs: list[str]  # the layers that it is computed from, or "input"
    within: list[str]  # the types of the modules around it, the outermost first
    kernel: list[int] | None
    stride: list[int] | None
    padding: list[int] | list[list[int]] | str | None  # [near, far] per axis where the sides differ
    dilation: list[int] | None
    groups: int | None
    parameters: int  # 0 on repeated calls of one module
    receptive_field: list[int] | None  # pixels
    receptive_start: list[int] | None  # first row and column of the field of the output's first pixel
    receptive_step: list[int] | None  # pixels between the fields of neighbouring outputs
    ordinal: int | None  # of convolutions, from 1
    role: str | None
    called: bool
    notes: list[str]
    computed_in: NotRequired[str]  # precision of its output, if not float32, such as "bfloat16" of autocast


class NonFiniteLayer(TypedDict):
    """How many values of a layer's output, or of the input, are NaN or infinite."""

    layer: str  # or "input"
    nan: int
    infinite: int
    values: int  # of the layer, finite or not


class ImageValues(TypedDict):
    """The values of an image file that are not plain 8 bits, and the range of them that became 0..1."""

    dtype: str
    min: float
    max: float
    range: list[float]
    source: str  # of the range: "data type", a tag of the file, or the config


ClassProbability = TypedDict("ClassProbability", {"class": int, "probability": float})  # "class" is a keyword


class SampleImage(TypedDict):
    """An entry of images.json."""

    name: str
    split: Split | None
    index: int | None  # in the split
    path: str | None
    label: int | None
    prediction: int | None
    probability: float | None
    predictions: NotRequired[list[ClassProbability]]  # above 0.5, of a multi-label network; descending
    non_finite: NotRequired[list[NonFiniteLayer]]  # in execution order; only where there are any
    values: NotRequired[ImageValues]  # of a file that is not plain 8 bits


class HistoryRow(TypedDict):
    """A row of history.csv: one epoch."""

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    validation_mean_iou: NotRequired[float | None]


class SkippedFile(TypedDict):
    """A file of a data set that was skipped."""

    path: str
    reason: str


class DatasetValues(ImageValues):
    """The images of a data set whose values have the same data type, range and number of channels."""

    channels: int
    has_alpha: bool  # whether the last channel is opacity
    reduced_bits: int | None  # bits of a value in the files, where they are read as 8
    images: int


class PhotographCredit(TypedDict):
    """The origin of a photograph of which a data set has crops."""

    name: str
    subject: str
    author: str
    licence: str
    url: str  # of its source
    crops: int


class DatasetDescription(TypedDict):
    """dataset.json."""

    format: str
    source: str
    title: str
    description: str
    licence: str
    classes: list[str]
    counts: dict[str, list[int]]  # images of each class, by split; one number without classes
    image_shape: list[int] | None
    image_sizes: dict[str, list[int]] | None  # smallest, median and largest: (height, width)
    target: str | None
    sha256: str
    skipped: NotRequired[list[SkippedFile]]
    values: NotRequired[list[DatasetValues]]  # absent where all images are plain grey or RGB of 8 bits
    credits: NotRequired[list[PhotographCredit]]  # of embedded photographs


Preview = TypedDict(  # a call, for "class" is a keyword
    "Preview",
    {
        "class": int | None,  # index of the class; None without classes
        "name": str,
        "file": str,
        "size": list[int],  # height, width in pixels
        "trimap": str | None,  # its file
        "head_box": list[float] | None,  # left, top, right, bottom, in shares of the sides
    },
)


class Previews(TypedDict):
    """examples.json: the previews of a data set."""

    classes: list[int]  # indices of the classes that are shown
    has_subclasses: NotRequired[bool]  # of which as many as there are are shown
    train: list[Preview]
    test: list[Preview]


class SkippedImage(TypedDict):
    """An image of a split that a pass over the data set skipped."""

    image: int
    name: str
    reason: str


class NonFiniteUnits(TypedDict):
    """The units of a layer with NaN or infinite values on any image."""

    non_finite: NotRequired[list[int]]  # only where there are any


class LayerStatistics(NonFiniteUnits):
    """A layer whose units are tracked over a data set, in statistics.json."""

    name: str
    units: int
    dead: list[int]  # units that are never above zero on any image


class DatasetStatistics(TypedDict):
    """statistics.json: what statistics.npz was computed on."""

    dataset: str
    dataset_sha256: str
    split: Split
    images: int
    skipped: list[SkippedImage]
    k: int  # top activations of each unit
    class_source: ClassSource
    classes: list[str]
    class_images: list[int]
    layers: list[LayerStatistics]


class FeatureMatch(TypedDict):
    """The classical feature that a unit's maps correlate with most."""

    feature: str
    description: str
    r: float  # Pearson's correlation


class LayerMatches(TypedDict):
    """The classical features that the units of a layer match."""

    baseline: float  # 95th percentile of the untrained network
    units: list[FeatureMatch | None]


class UnitMatches(TypedDict):
    """classical/units.json."""

    threshold: float
    layers: dict[str, LayerMatches]


class FilterMatches(TypedDict):
    """classical/filters.json: the filters of the first convolution against classical kernels."""

    layer: str
    baseline: float
    r: list[list[float]] | None
    kernels: list[list[str]] | None
    channel_correlations: list[list[float]] | None
    colour_classes: list[str] | None


class ChanceLevel(TypedDict):
    """The distribution of a measurement over permutations of the masks among the test images."""

    mean: float
    low: float  # the central 95 % of the permutations
    high: float
    p: float  # adjusted for all layers


class SelectiveUnit(TypedDict):
    """A unit that separates pet and background."""

    unit: int
    auc: float  # area under the ROC curve, below 0.5 for a unit that is lower on the pet
    interval: list[float]  # 95 %, bootstrap over the test images
    chance: ChanceLevel
    above_chance: bool  # significant, and `min_auc_effect` from chance in the direction of training images


class HeadUnit(TypedDict):
    """The unit with the largest share of its activation in the head's bounding box."""

    unit: int
    share: float  # of the activation
    area: float  # share of the image that the box covers
    pet: float  # share of the pet that the box covers: that of a unit that is equally active all over the pet
    interval: list[float]  # of the share, 95 %, bootstrap over the test images
    chance: ChanceLevel  # with the boxes of other images
    above_chance: bool  # significant, `min_head_ratio` times area and chance, and the interval is above `pet`


class ExcludedValues(TypedDict):
    """What a layer's measurements leave out, because values are NaN or infinite."""

    units: list[int]
    train: int  # number of images
    test: int


class UnitSegmentation(TypedDict):
    """How well the units of a layer segment the pet."""

    iou: float  # on test images, of the unit and threshold chosen on training images
    train_iou: float
    chance_iou: float  # of the unit and threshold chosen with the masks of other images, on such masks
    interval: list[float]  # of the IoU, 95 %, bootstrap over the test images
    chance: ChanceLevel
    above_chance: bool  # significant, and `min_iou_effect` above chance, `chance_iou` and `pet_share`
    unit: int
    threshold: float
    at_least: bool  # whether the pet is where values are at least the threshold, or below it
    high_frequency_share: float
    edge_correlation: float
    edge_unit: int
    edge_magnitude: bool  # whether the magnitude of the unit is correlated, not its value
    selective_units: list[SelectiveUnit]
    head: HeadUnit | None
    excluded: ExcludedValues


class SegmentationLayer(UnitSegmentation):
    """A layer in masks/masks.json."""

    name: str
    ordinal: int
    role: str | None
    shape: list[int]


class FinalLayer(TypedDict):
    """The last layer that is measured."""

    layer: str
    ordinal: int
    iou: float


class EmergenceLayer(FinalLayer):
    """The layer at which segmentation emerges."""

    interval: list[int]  # of its ordinal, 95 %, bootstrap over the test images


class UnmeasuredLayer(TypedDict):
    """A layer of which too few values are finite."""

    name: str
    ordinal: int


class ChanceTest(TypedDict):
    """How chance levels and intervals are computed."""

    permutations: int
    resamples: int
    confidence: float  # of intervals, and share of the permutations between `low` and `high`
    significance: float  # largest p-value of what is above chance
    min_iou_effect: float
    min_auc_effect: float
    min_head_ratio: float


class SegmentationExample(TypedDict):
    """An image of masks/examples.npz, with its truth and prediction."""

    rank: str  # first, best, median, worst
    index: int
    name: str
    iou: dict[str, float | None]
    mean_iou: float


class SegmentationAnalysis(TypedDict):
    """masks/masks.json."""

    size: list[int]
    images: dict[str, int]
    pet_share: float
    cutoff_frequency: float
    test: ChanceTest
    final: FinalLayer | None  # null if the last convolution is not measured
    emergence: EmergenceLayer | None  # null if the last convolution is not above chance
    detail_first: float  # share of the resamples in which fine detail is greatest before the IoU is
    layers: list[SegmentationLayer]
    unmeasured: list[UnmeasuredLayer]
    examples: list[SegmentationExample]
    is_segmentation: bool


class ConceptEntry(TypedDict):
    """A concept in concepts/concepts.json."""

    name: str
    type: Literal["region", "image"]
    group: str  # "mask", "head", "class", "subclass", "breed" or "species"
    train: int  # images that show it
    test: int
    share: float | None  # of the pixels of the test images on which it is known, or of the test images
    tested: bool  # whether both splits have enough images
    units: int  # that it names


class ConceptLayer(TypedDict):
    """A layer in concepts/concepts.json."""

    name: str
    units: int
    regions: int  # units named by a region
    kinds: int  # units named by a kind of image
    excluded: list[int]  # units with NaN or infinite values


class ConceptImage(TypedDict):
    """A test image on which a named unit is most active."""

    index: int  # in the split
    name: str
    label: str  # its kind in the group of the concept; of a region its class
    value: float  # what stands for the unit's map
    shows: bool  # whether it shows the concept


class ConceptExample(TypedDict):
    """A named unit whose images are in concepts/examples.npz."""

    layer: str
    unit: int
    concept: int  # number in `concepts`
    images: list[ConceptImage]


class ConceptTestSettings(TypedDict):
    """How units are named."""

    significance: float
    min_auc_effect: float
    confidence: float  # of intervals
    permutations: int
    resamples: int
    families: int  # by which p-values are multiplied
    min_examples: int  # images that show a concept


class ConceptAnalysis(TypedDict):
    """concepts/concepts.json."""

    undefined: str | None
    images: dict[str, int]  # by split
    grid: list[int]  # height and width at which regions are compared; empty without regions
    image_value: Literal["mean", "max"]
    test: ConceptTestSettings
    concepts: list[ConceptEntry]
    layers: list[ConceptLayer]
    examples: list[ConceptExample]


class DeconvStep(TypedDict):
    """One step of a projection on its way to the pixels, in steps/steps.json."""

    layer: str
    passed_layers: list[str]  # between this step and the one before
    shape: list[int]
    min: float | None  # null where the signal has NaN or infinite values
    max: float | None
    nonzero_count: int
    value_count: int


class DeconvSteps(TypedDict):
    """steps/steps.json."""

    image: str
    layer: str
    unit: int
    steps: list[DeconvStep]


class StartSimilarity(TypedDict):
    """How similar an optimised image is to that of another start; the controls are other units' images."""

    responses: float | None  # Pearson's r of the maxima of the layer's other units
    responses_control: float | None  # median over the images of the other units
    pixels: float | None  # Pearson's r at the best shift
    pixels_control: float | None


class OptimisedImage(TypedDict):
    """An image that was optimised for a unit or a class."""

    start: float  # the objective in the first step
    end: float  # in the last step
    objective: float  # of the image itself, without the transformations of the steps
    control: float  # the largest of the start's and of images with the same amplitudes and random phases
    reached: bool  # whether `objective` is above `control`
    second_start: StartSimilarity | None


class OptimisedUnit(OptimisedImage):
    """The optimised image of a unit."""

    unit: int
    maximum: (
        float | None
    )  # largest output over the positions, of the image at the size of the network's input
    dataset_maximum: float | None  # over the images of the data set
    dead: bool  # never above zero over the data set


OptimisedClass = TypedDict(  # a call, for "class" is a keyword
    "OptimisedClass",
    {  # the keys of OptimisedImage, and its own
        "start": float,
        "end": float,
        "objective": float,  # the logit
        "control": float,
        "reached": bool,
        "second_start": StartSimilarity | None,
        "class": int,
        "name": str,
        "probability": float | None,  # of pixels, the mean
        "predicted": int,  # the most probable class
        "predicted_name": str,
        "predicted_probability": float | None,
    },
)


class OptimisedLayer(TypedDict):
    """The optimised images of a layer's units."""

    layer: str
    undefined: str | None  # why there is none
    units: list[OptimisedUnit]


class OptimisedClasses(TypedDict):
    """The optimised images of classes."""

    undefined: str | None
    classes: list[OptimisedClass]


class FeatureVisualisation(TypedDict):
    """feature_visualisation/feature_visualisation.json."""

    undefined: str | None  # why no image is optimised for this network
    objective: Literal["channel", "neuron"]
    steps: int
    size: list[int]  # height and width of the images
    input_size: list[int]  # of the network's input, at which the maxima are measured
    learning_rate: float
    robust: bool
    seed: int
    layers: list[OptimisedLayer]
    logits: OptimisedClasses


class AttributionRandomisation(TypedDict):
    """How similar a method's map stays as the network's weights are redrawn, from the output down."""

    image: str
    layers: list[list[str]]  # the layers that are redrawn at each stage, beside those of the stages before
    similarity: list[float | None]  # Spearman correlation of the magnitudes; null where one is constant


class AttributionMethod(TypedDict):
    """A method of attribution, at one layer where it has layers, in attribution/attribution.json."""

    name: str  # as in `views.attribution.methods`
    title: str
    layer: str | None  # of Grad-CAM and Grad-CAM++
    returns: Literal["pixels", "map"]  # (C, H, W), signed, or (1, H, W)
    citation: str
    caveat: str
    check: str
    settings: dict[str, Any]
    undefined: str | None  # why it is not defined for this network
    randomisation: AttributionRandomisation | None


AttributionTarget = TypedDict(  # a call, for "class" is a keyword
    "AttributionTarget",
    {
        "class": int,
        "name": str,
        "score": float,  # the logit; of a segmentation network summed over the pixels of the class
        "probability": float | None,
        "pixels": int | None,  # predicted as the class, of a segmentation network
    },
)


class PerturbationCurve(TypedDict):
    """The target's probability as pixels are deleted or inserted, at the analysis's `fractions`."""

    auc: float
    values: list[float]


class PerturbationCurves(TypedDict):
    """Both curves of one order of the pixels."""

    deletion: PerturbationCurve
    insertion: PerturbationCurve


AttributionMap = TypedDict(
    "AttributionMap",
    {
        "member": str,  # of attribution/<image>.npz
        "method": str,
        "layer": str | None,
        "class": int,
        "min": float | None,  # null where the map has NaN or infinite values
        "max": float | None,
        "checks": dict[str, Any],  # of the method, such as {"completeness_gap": 0.012, "steps": 64}
        "deletion": PerturbationCurve | None,
        "insertion": PerturbationCurve | None,
    },
)


class AttributionImage(TypedDict):
    """The maps of a sample image in attribution/attribution.json."""

    targets: list[AttributionTarget]
    maps: list[AttributionMap]
    random_order: dict[str, PerturbationCurves]  # by class number, the mean of several random orders
    missing: NotRequired[list[str]]  # the methods and classes of which it has no map, and why


class UnitRandomisation(TypedDict):
    """How similar the projections of units stay as weights are redrawn, their own first, then those below."""

    layers: list[list[str]]  # the layers that are redrawn at each stage, beside those of the stages before
    similarity: list[float | None]  # median |Spearman|; null where the projections are zero


class LayerSpecificity(TypedDict):
    """How much the projections of a layer's units differ where their peaks nearly coincide."""

    layer: str
    method: str
    value: float | None  # 1 - median |Spearman| between units; null without enough pairs
    randomised: float | None  # the same between a unit and itself with its layer's weights redrawn
    pairs: int
    reason: str | None  # why `value` is null
    randomisation: UnitRandomisation | None


class AttributionAnalysis(TypedDict):
    """attribution/attribution.json."""

    undefined: str | None  # why no method is defined for this network
    methods: list[AttributionMethod]
    images: dict[str, AttributionImage]
    left_out: NotRequired[dict[str, str]]  # why a sample image has no maps, by its name
    fractions: list[float]  # of the pixels, from 0 to 1
    specificity: list[LayerSpecificity]


class MeanSimilarity(TypedDict):
    """The mean CKA over pairs of different layers, with standard errors; null where not known."""

    trained: float | None
    trained_error: float | None
    untrained: float | None  # of the same pairs in the untrained networks
    untrained_error: float | None
    difference_error: float | None  # of trained - untrained, on the same images


class NetworkSimilarity(TypedDict):
    """A network in _similarity/similarity.json.

    Its arrays in similarity.npz are (layers, layers): <network>@trained of the trained network with itself,
    <network>@untrained of the untrained one, <network>@trained_untrained (trained rows, untrained columns),
    each with <...>_error, its standard error; and <network>@difference_error of trained - untrained.
    """

    undefined: str | None  # why its layers were not compared
    control_undefined: str | None  # why there is no untrained network
    dataset: str
    images: int
    layers: list[str]
    left_out: list[str]  # selected layers without features of each image
    mean: MeanSimilarity | None


class PairSimilarity(TypedDict):
    """Two networks in _similarity/similarity.json.

    Their arrays in similarity.npz are (layers, other layers): <key>@trained and <key>@untrained with
    <...>_error, and <key>@difference_error.
    """

    networks: list[str]  # two
    key: str
    undefined: str | None  # why they were not compared
    dataset: str  # whose images both see
    images: int
    layers: list[list[str]]  # of each
    mean: MeanSimilarity | None


class SimilarityAnalysis(TypedDict):
    """_similarity/similarity.json, of all networks with `views.similarity`."""

    split: Split
    batch: int  # images, over which HSIC1 is averaged
    networks: dict[str, NetworkSimilarity]
    pairs: list[PairSimilarity]


class AblationCost(TypedDict):
    """What the ablation of all units of a layer costs a network."""

    value: float | None  # of the measure, with the ablation; null where it is not finite, as below
    effect: float | None  # how much worse that is than without
    interval: list[float | None]  # of the effect, 95 %
    p: float | None  # adjusted for the number of layers
    class_effects: list[float | None]  # of each class; null without images
    class_p: list[float | None]  # adjusted for the number of layers and classes
    loss_change: float | None  # of the mean loss; null where it is infinite


class AblationCurve(TypedDict):
    """A measure against the number of a layer's units that are ablated together."""

    counts: list[int]  # of ablated units, from 0 to all that were measured
    important_first: list[float | None]  # null where the measure is not finite
    important_last: list[float | None]
    random: list[list[float | None]]  # in each random order


class LayerAblation(TypedDict):
    """The ablation of a layer: of all of its units, in order, and of how many single ones matters."""

    layer: str
    units: int  # of the layer
    measured: int  # of them that were ablated
    significant: dict[str, int]  # units whose ablation raises the loss beyond noise, by what replaces them
    costs: dict[str, AblationCost]  # of all units, by what replaces them: "zero" or "mean"
    curves: dict[str, AblationCurve]


class AblationAnalysis(TypedDict):
    """ablation/ablation.json; where `undefined` is a text, the other keys are absent."""

    undefined: str | None  # why nothing was measured for this network, and what to set
    measure: NotRequired[Literal["accuracy", "mean_iou", "loss"]]
    dataset: NotRequired[str | None]
    split: NotRequired[Split]
    split_images: NotRequired[int]
    images: NotRequired[int]  # of the split that were used
    half_images: NotRequired[list[int]]  # on which the order of the units, and the curves, were measured
    classes: NotRequired[list[str]]
    class_images: NotRequired[list[int]]  # of each class; 0 of a segmentation network
    value: NotRequired[float | None]  # of the measure, without ablation; null where it is not finite
    interval: NotRequired[list[float | None]]  # 95 %
    class_values: NotRequired[list[float | None]]
    curve_value: NotRequired[float | None]  # without ablation, on the images of the curves
    significance: NotRequired[float]
    random_orders: NotRequired[int]
    seed: NotRequired[int]
    layers: NotRequired[list[LayerAblation]]
    left_out: NotRequired[dict[str, str]]  # layers that were not ablated, and why


class EffectiveFieldSize(TypedDict):
    """The size of an effective receptive field, in pixels."""

    side: float  # of a square with as many pixels as are above the threshold
    side_error: float | None  # standard error over images
    spread: list[float]  # standard deviation [vertical, horizontal], the field's values as weights


class EffectiveFieldLayer(TypedDict):
    """A layer in effective_receptive_field/effective_receptive_field.json.

    Its arrays in effective_receptive_field.npz are <layer>@trained and <layer>@untrained, (H, W) of the
    input: the mean of the absolute gradient of its centre over images and channels.
    """

    name: str
    undefined: str | None  # why it has none
    position: list[int] | None  # [row, column] of the centre in its output
    theoretical: list[int] | None  # [height, width], as receptive_field in layers.json
    window: list[int] | None  # the theoretical field of the centre: top, left, bottom, right
    clipped: bool  # whether it exceeds the input
    trained: EffectiveFieldSize | None
    untrained: EffectiveFieldSize | None


class EffectiveFieldAnalysis(TypedDict):
    """effective_receptive_field/effective_receptive_field.json."""

    undefined: str | None  # why no layer was measured
    control_undefined: str | None  # why there is no untrained network
    dataset: str
    split: Split
    images: int
    input: list[int]  # [height, width]
    threshold: float  # share of the maximum
    layers: list[EffectiveFieldLayer]


class OcclusionImage(TypedDict):
    """What a grey square over each part of a sample image changes; its maps are in occlusion.npz."""

    name: str
    rows: list[int]  # first row of the square at each position; negative above the image
    columns: list[int]
    unit: int  # with the largest total activation in the image as it is
    activation: float  # that total
    has_truth: bool  # whether the class, or the mask, is that of the data set; else the network's prediction
    target: int | None  # the class of the probabilities; null of a segmentation network
    probability: float | None
    prediction: int | None
    iou: list[float | None] | None  # of each class for the image as it is; null of a classifier
    others: list[str]  # the sample images whose projections are beside its own
    no_projection: str | None  # why there are no projections


class OcclusionAnalysis(TypedDict):
    """occlusion/occlusion.json; where `undefined` is a text, the other keys are absent."""

    undefined: str | None  # why nothing was measured for this network, and what to set
    layer: NotRequired[str]
    size: NotRequired[int]  # of the square, pixels
    stride: NotRequired[int]
    classes: NotRequired[list[str]]
    is_segmentation: NotRequired[bool]
    images: NotRequired[list[OcclusionImage]]
    left_out: NotRequired[dict[str, str]]  # why nothing was measured of an image, by its name


class TileGroup(TypedDict):
    """The tiles of one layer's units in a figure, a column per unit."""

    layer: str
    units: list[int]
    left: int  # pixels, of the first column
    tops: list[int]  # pixels, of each row
    colour_bar: list[int]  # x, y, width and height of the part with the colour bar, in pixels


class TileLayout(TypedDict):
    """Where the tiles of a figure are, in pixels from its upper left corner; a row per image."""

    images: list[str]
    tile_size: int
    pitch: int  # pixels from one column to the next
    input: int  # left edge of the column of inputs
    groups: list[TileGroup]


FigureFormat = Literal["png", "pdf", "svg"]


class Figure(TypedDict):
    """An entry of figures/figures.json."""

    file: str
    formats: list[FigureFormat]  # of the files beside one another, PNG first
    kind: str
    subject: str  # the layer or the image that it shows; "" for the network
    caption: str  # one line: the network, the layer, what is drawn, the image, the scale
    explanation: str  # how to read it
    alt: str
    width: int  # pixels
    height: int
    caption_height: int
    tile_layout: NotRequired[TileLayout]  # of a figure whose tiles the pages rearrange


class InvarianceLayer(TypedDict):
    """A layer in invariance/invariance.json."""

    name: str
    shape: list[int]
    different_images: float | None  # mean distance between two of the unchanged images; null without one


class InvarianceTransform(TypedDict):
    """A change of the images in invariance/invariance.json."""

    name: Literal["vertical", "horizontal", "scale", "rotation"]
    unit: str
    steps: list[float]  # ascending, that of the unchanged image among them


class InvarianceAnalysis(TypedDict):
    """invariance/invariance.json: how features and prediction change with the image."""

    undefined: str | None  # why it is not defined for the network; the lists are empty then
    images: list[SampleImage]
    layers: list[InvarianceLayer]
    transforms: list[InvarianceTransform]
    padding: Literal["edge", "reflect", "zero"]
    quantity: Literal["probability", "iou"] | None
    no_quantity: str | None  # why there is none
    different_predictions: float | None  # mean IoU of the predictions for two of the unchanged images
    classes: list[int | None]  # whose probability it is, of each image; empty elsewhere
    class_sources: list[ClassSource]
    non_finite: list[str]  # what is NaN or infinite, as "<layer>@<transform>"


class EvolutionLayer(TypedDict):
    """The evolution of a layer's units, in evolution.json; lists hold a value for each epoch."""

    name: str
    n_units: int
    units: list[int]  # those that are projected
    filters: str | None  # the convolution whose filters they have
    correlation: list[float | None]  # mean of the units' projections with their own after the last epoch
    correlated_units: list[int]  # the units that it is the mean of
    between_units: float | None  # mean correlation of the projections of different units after the last epoch
    changed: list[float | None]  # share of all units with another strongest image than an epoch before
    inactive: list[int]  # units without a positive activation


class SkippedLayer(TypedDict):
    """A layer that an analysis leaves out."""

    name: str
    reason: str


class EvolutionAnalysis(TypedDict):
    """evolution/evolution.json: units through training."""

    undefined: str | None  # why there is no evolution
    epochs: list[int]  # of the snapshots; 0 is before training
    missing_epochs: list[int]  # of the config, that the training does not have
    best_epoch: int  # whose weights the trained network has
    averaged: bool  # whether the weights are moving averages
    images: int  # training images that were searched
    split_images: int  # training images of the data set
    samples: list[str]  # sample images whose maps were recorded
    image_classes: dict[str, str | None]  # class of each strongest training image, by its number
    rectified: bool  # whether projections are rectified at activations that are not ReLUs
    layers: list[EvolutionLayer]
    skipped: list[SkippedLayer]


class CorrespondenceImage(TypedDict):
    """An image in correspondence/correspondence.json."""

    image: SampleImage
    box: list[int]  # of the head, in pixels of the network's input: first row and column, height and width
    random: list[int] | None  # the box of the first random draw


class CorrespondenceLayer(TypedDict):
    """A layer in correspondence/correspondence.json; its numbers are in the npz."""

    name: str
    shape: list[int]
    changed: dict[str, float | None]  # share of its values: "part", "random" and "moved"
    p_value: float  # of "part" against "random", adjusted for all layers
    moved_p_value: float  # against "moved"


class CorrespondenceAnalysis(TypedDict):
    """correspondence/correspondence.json: how similarly features change as the head is occluded."""

    undefined: str | None  # why it is not defined for the network; the lists are empty then
    part: str
    split: Split | None  # of the data set
    classes: list[str]  # of the images; all where empty
    sets: list[list[CorrespondenceImage]]
    draws: int
    area: float  # mean share of the image that is occluded
    moved_sets: int  # whose boxes can be moved together
    layers: list[CorrespondenceLayer]
    significance: float
    non_finite: list[str]  # layers with NaN or infinite values
