"""Model cards: a README.md per network, with the front matter of Hugging Face's model cards."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from convatlas import __version__
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.references import Reference

SEGMENTATION_AXES = 3  # of an output (classes, height, width)
METRIC_TITLES = {
    "accuracy": "Test accuracy",
    "mean_iou": "Test mean IoU",
    "pixel_accuracy": "Test pixel accuracy",
}
INTENDED_USE = (
    "Teaching, studying and auditing convolutional networks: this card belongs to a gallery that shows every "
    "layer of the network. Not for decisions about people, and not for medical or safety-critical use."
)


def name_card(network: str) -> str:
    """Return the place of a network's model card in the site.

    Args:
        network: Name of the network.
    """
    return f"cards/{network}/README.md"


def format_model_card(network: NetworkData, reference: Reference | None, run: Reference) -> str:
    """Write the model card of a network.

    Args:
        network: The network.
        reference: Its publication, where it is known.
        run: The reference of the run.
    """
    front_matter = yaml.safe_dump(_list_metadata(network), sort_keys=False, allow_unicode=True)
    citations = [item.bibtex for item in (reference, run) if item]
    loading_code = f'convatlas.Results("results/{network.name}").layers'
    sections = {
        f"# {escape_markdown(network.name)}": _describe_network(network),
        "## Intended use": INTENDED_USE,
        "## Training and data": _describe_data(network),
        "## Evaluation": _describe_evaluation(network),
        "## Limits": "\n".join(f"- {line}" for line in _list_limits(network)),
        "## Loading": f"```python\nimport convatlas\n\n{loading_code}\n```",
        "## Citation": "```bibtex\n" + "\n\n".join(citations) + "\n```",
    }
    body = "\n\n".join(f"{heading}\n\n{text}" for heading, text in sections.items())
    return f"---\n{front_matter}---\n\n{body}\n"


def escape_markdown(text: str) -> str:
    """Return text in which Markdown reads each character as it is.

    Args:
        text: The text.
    """
    return re.sub(r"([\\`*_{}\[\]<>#|&])", r"\\\1", text)


def _list_metadata(network: NetworkData) -> dict[str, Any]:
    """Return the front matter; keys without a value are left out."""
    description = network.description
    task = _find_task(network)
    metrics = list_metrics(network)
    licence = "mit" if "(MIT" in description["weights"]["origin"] else "other"
    metadata: dict[str, Any] = {
        "license": licence,
        "license_name": "not-stated" if licence == "other" else None,
        "library_name": "pytorch",
        "pipeline_tag": task,
        "tags": ["convatlas", "interpretability", "feature-visualization", "deconvnet"],
        "metrics": list(metrics),
    }
    if metrics and network.dataset:
        dataset = {"name": network.dataset["title"], "type": description["dataset"], "split": "test"}
        values = [{"type": key, "name": METRIC_TITLES[key], "value": value} for key, value in metrics.items()]
        result = {"task": {"type": task or "other"}, "dataset": dataset, "metrics": values}
        metadata["model-index"] = [{"name": network.name, "results": [result]}]
    return {key: value for key, value in metadata.items() if value}


def _find_task(network: NetworkData) -> str | None:
    """Return the task as Hugging Face names it; None where the output is none of class scores."""
    output = network.description["output"]
    if output["kind"] == "none" or not network.takes_images:
        return None
    return "image-segmentation" if len(output["shape"]) == SEGMENTATION_AXES else "image-classification"


def list_metrics(network: NetworkData) -> dict[str, float]:
    """Return the metrics that were measured, by their names in metrics.json.

    Args:
        network: The network.
    """
    metrics: Mapping[str, Any] = network.metrics
    return {key: metrics[key] for key in METRIC_TITLES if metrics.get(key) is not None}


def _describe_network(network: NetworkData) -> str:
    description = network.description
    published = description.get("source")
    source = f", after {escape_markdown(published)}" if published else ""
    origin, sha256 = description["weights"]["origin"], description["weights"]["sha256"]
    return (
        f"{escape_markdown(description['architecture'])}{source}: {description['parameters']:,} parameters, "
        f"{len(network.layers)} layers. Weights: {escape_markdown(origin)}, SHA-256 `{sha256}`. Described by "
        f"convatlas {__version__}."
    )


def _describe_data(network: NetworkData) -> str:
    training, dataset = network.description["training"], network.dataset
    lines = []
    if training:
        lines.append(
            f"Trained on {training['images']:,} images: {training['epochs']} epochs, batch size "
            f"{training['batch_size']}, optimiser {training['optimizer']}, learning rate {training['lr']}, "
            f"seed {network.description['seed']}."
        )
    else:
        lines.append("Not trained in this run.")
    if dataset:
        title, text, licence = map(
            escape_markdown, (dataset["title"], dataset["description"], dataset["licence"])
        )
        lines += [f"Data set: {title}. {text}", f"Licence of the data: {licence}."]
    return "\n\n".join(line for line in lines if line.strip())


def _describe_evaluation(network: NetworkData) -> str:
    metrics = list_metrics(network)
    if not metrics:
        return "Nothing was measured in this run."
    rows = [f"| {METRIC_TITLES[key]} | {value:.4f} |" for key, value in metrics.items()]
    count = f"On {network.metrics['images']:,} test images, once, after training."
    return "\n".join([count, "", "| metric | value |", "|---|---|", *rows])


def _list_limits(network: NetworkData) -> list[str]:
    """Return what the network and the numbers cannot do."""
    lines = ["Metrics hold for the test split of the data set above; other data may give other numbers."]
    if network.dataset and network.dataset["source"] == "embedded":
        lines.append("The data set is a small stand-in that needs no download, not the official data set.")
    if network.is_untrained:
        lines.append("The weights are random: nothing was learned.")
    if network.rectified:
        lines.append("Deconvnet projections are rectified at activations that are not ReLUs: a heuristic.")
    lines += [f"NaN or infinite values. {escape_markdown(line)}" for line in network.non_finite_values]
    return lines
