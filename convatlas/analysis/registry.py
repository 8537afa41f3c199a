"""The registry of the analyses that `views` of a network turns on: what each needs, reads and answers.

To add an analysis, describe it here, and write scripts/<name>.py, which Snakemake's rule of the same name
runs, its settings in convatlas/pipeline (`views.<name>` of config.schema.yaml, `ViewsConfig` of
config_types.py, the estimate of resources.py), and its page in convatlas/gallery/pages.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from convatlas.pipeline.config_types import Config, DatasetConfig, NetworkConfig

ObstacleFinder = Callable[[NetworkConfig, DatasetConfig | None], str | None]


def find_no_obstacle(network: NetworkConfig, dataset: DatasetConfig | None) -> None:
    """Return None: the analysis works with every network.

    Args:
        network: The network's section of the config.
        dataset: The section of its data set; None without one.
    """


@dataclass(frozen=True)
class Analysis:
    """An analysis of a network, a stage of its own: rule, script and folder have its name.

    Attributes:
        name: Of its settings `views.<name>`, scripts/<name>.py and results/<network>/<name>/.
        title: Of its page, networks/<network>-<name>.html with dashes.
        question: What it answers, one sentence for the overview.
        find_obstacle: Returns what the config lacks and what to set, as a clause such as "it needs labels:
            set `dataset`"; None if nothing. What only a run can tell is `undefined` of its JSON file.
        files: What it reads in results/<network>/ besides weights.safetensors, network.json and layers.json.
        reads_dataset: Whether it reads the network's data set.
        reads_statistics: Whether it reads the statistics over the data set, where there are some.
        is_shared: Whether one job computes it for all networks, into results/_<name>/, by a rule of its own.
        projects: Whether it projects with the deconvnet, and so takes `rectify` of `views.deconv`.
    """

    name: str
    title: str
    question: str
    find_obstacle: ObstacleFinder = find_no_obstacle
    files: tuple[str, ...] = ()
    reads_dataset: bool = True
    reads_statistics: bool = False
    is_shared: bool = False
    projects: bool = False

    @property
    def slug(self) -> str:
        """Return its name in file names of the gallery."""
        return self.name.replace("_", "-")


def find_size_of_no_image(network: NetworkConfig) -> list[int] | None:
    """Return the size of a network's input where it has one axis or three; None of images.

    Args:
        network: The network's section of the config.
    """
    size = network["input"].get("size")
    return size if isinstance(size, list) and len(size) != 2 else None


def require_dataset(network: NetworkConfig, dataset: DatasetConfig | None) -> str | None:
    """Return what an analysis over a data set lacks.

    Args:
        network: The network's section of the config.
        dataset: The section of its data set; None without one.
    """
    return "it needs the images of a data set: set `dataset`" if dataset is None else None


def require_images(network: NetworkConfig, dataset: DatasetConfig | None) -> str | None:
    """Return what an analysis of the pixels of a data set's images lacks.

    Args:
        network: The network's section of the config.
        dataset: The section of its data set; None without one.
    """
    return require_image_inputs(network, dataset) or require_dataset(network, dataset)


def require_image_inputs(network: NetworkConfig, dataset: DatasetConfig | None) -> str | None:
    """Return that the inputs of the network are no images, where the config tells.

    Args:
        network: The network's section of the config.
        dataset: The section of its data set; None without one.
    """
    return "it needs images as input, with two axes" if find_size_of_no_image(network) else None


def find_missing_labels(network: NetworkConfig, dataset: DatasetConfig | None) -> str | None:
    """Return that the analysis lacks labels, where the config tells, and what to set.

    Args:
        network: The network's section of the config.
        dataset: The section of its data set; None without one.
    """
    if dataset is None:
        return "it needs images with labels: set `dataset` to a data set of the network's classes"
    if dataset["format"] == "images" and dataset["source"] == "embedded":
        return "the embedded photographs have no labels: set `dataset` to a data set of the network's classes"
    return None


def find_evolution_obstacle(network: NetworkConfig, dataset: DatasetConfig | None) -> str | None:
    """Return what the evolution of units lacks: a training in this run, of images.

    Args:
        network: The network's section of the config.
        dataset: The section of its data set; None without one.
    """
    if network.get("weights"):
        return (
            "its weights are loaded, so there are none of earlier epochs: remove `weights` to train it here"
        )
    if not dataset:
        return "it is not trained: set `dataset`"
    if find_size_of_no_image(network):
        return "it takes no images, and the pages draw projections of images only: set `evolution: null`"
    return None


def find_missing_concepts(network: NetworkConfig, dataset: DatasetConfig | None) -> str | None:
    """Return what the naming of units lacks: a data set, whose classes, subclasses and masks are concepts.

    Args:
        network: The network's section of the config.
        dataset: The section of its data set; None without one.
    """
    return None if dataset is not None else "it needs a data set with classes or masks: set `dataset`"


def find_invariance_obstacle(network: NetworkConfig, dataset: DatasetConfig | None) -> str | None:
    """Return why images cannot be moved, scaled and rotated: the input is no image, or no change is chosen.

    Args:
        network: The network's section of the config.
        dataset: The section of its data set; None without one.
    """
    if size := find_size_of_no_image(network):
        return f"it moves, scales and rotates images, and input.size {size} is no image"
    settings = network["views"]["invariance"]
    if settings and all(settings[name] is None for name in ("vertical", "horizontal", "scale", "rotation")):
        return "no change of the image is chosen: set vertical, horizontal, scale or rotation"
    return None


def find_missing_boxes(network: NetworkConfig, dataset: DatasetConfig | None) -> str | None:
    """Return that the analysis lacks boxes of a part, or images, where the config tells, and what to set.

    Args:
        network: The network's section of the config.
        dataset: The section of its data set; None without one.
    """
    if dataset is None or dataset["format"] != "oxford-iiit-pet":
        return "it needs images with boxes of heads: set `dataset` to one of the format oxford-iiit-pet"
    if size := find_size_of_no_image(network):
        return f"it occludes boxes in images, and input.size {size} is no image"
    return None


# In the order of the overview of a network's analyses.
ANALYSES: tuple[Analysis, ...] = (
    Analysis(
        "occlusion",
        "Occlusion",
        "Which parts of an image does the prediction depend on, and which does the strongest map?",
        files=("images.json", "activations"),
        projects=True,
    ),
    Analysis(
        "evolution",
        "Evolution",
        "When does a unit learn what it detects?",
        find_evolution_obstacle,
        files=("snapshots", "images.json", "activations"),
        projects=True,
    ),
    Analysis(
        "ablation",
        "Ablation",
        "What does the network lose without a unit, or without a layer?",
        find_missing_labels,
    ),
    Analysis(
        "feature_visualisation",
        "Feature visualisation",
        "Which image activates a unit, or raises the logit of a class, most?",
        require_image_inputs,
        files=("images.json", "deconv"),
        reads_dataset=False,
        reads_statistics=True,
    ),
    Analysis(
        "similarity",
        "Similarity",
        "Which layers have similar representations, within the network and in other networks?",
        require_dataset,
        is_shared=True,
    ),
    Analysis(
        "effective_receptive_field",
        "Effective receptive field",
        "Which pixels do layers depend on in effect, within the field that their kernels allow?",
        require_images,
    ),
    Analysis(
        "invariance",
        "Invariance",
        "How do features and the prediction change as an image is moved, scaled or rotated?",
        find_invariance_obstacle,
        files=("images.json", "activations"),
    ),
    Analysis(
        "concepts",
        "Concepts",
        "Which region of the images, or which kind of image, does each unit separate best?",
        find_missing_concepts,
    ),
    Analysis(
        "correspondence",
        "Correspondence",
        "Does occluding the same part, the head, change features similarly in different images?",
        find_missing_boxes,
    ),
)
BY_NAME: Mapping[str, Analysis] = {analysis.name: analysis for analysis in ANALYSES}


def find_obstacle(config: Config, network: str, analysis: Analysis) -> str | None:
    """Return what an analysis lacks for a network, and what to set; None if nothing.

    Args:
        config: The resolved config.
        network: Name of the network.
        analysis: An entry of ANALYSES.
    """
    settings = config["networks"][network]
    dataset = settings.get("dataset")
    return analysis.find_obstacle(settings, config["datasets"][dataset] if dataset else None)


def is_requested(config: Config, network: str, analysis: Analysis) -> bool:
    """Return whether the config turns an analysis of a network on.

    Args:
        config: The resolved config.
        network: Name of the network.
        analysis: An entry of ANALYSES.
    """
    views: Mapping[str, object] = {**config["networks"][network]["views"]}
    return views.get(analysis.name) is not None


def is_computed(config: Config, network: str, analysis: Analysis) -> bool:
    """Return whether a run computes an analysis of a network: it is turned on and lacks nothing.

    Args:
        config: The resolved config.
        network: Name of the network.
        analysis: An entry of ANALYSES.
    """
    return is_requested(config, network, analysis) and find_obstacle(config, network, analysis) is None


def list_computed(config: Config, network: str) -> list[Analysis]:
    """Return the analyses that a run computes of a network, in the order of the registry.

    Args:
        config: The resolved config.
        network: Name of the network.
    """
    return [analysis for analysis in ANALYSES if is_computed(config, network, analysis)]


def describe_obstacles(config: Config) -> Iterator[str]:
    """Yield a line for each analysis that is turned on for a network and lacks something: what to set.

    Args:
        config: The resolved config.
    """
    for network in config["networks"]:
        for analysis in ANALYSES:
            obstacle = find_obstacle(config, network, analysis)
            if obstacle and is_requested(config, network, analysis):
                yield f"networks.{network}.views.{analysis.name}: not computed: {obstacle}"
