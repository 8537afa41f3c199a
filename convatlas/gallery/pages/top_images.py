"""The page of a network's top-activating images: one row per unit, with the images of its data set."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.dataset_thumbnails import DatasetThumbnails, PageThumbnail
from convatlas.gallery.explorer_data import dump_script_json
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.pages.errors import list_explored_images
from convatlas.gallery.top_image_scripts import describe_group, format_scripts, split_layers
from convatlas.gallery.top_images import LayerTopImages, TopImages
from convatlas.image_io import as_size, compute_visible_box
from convatlas.names import make_printable
from convatlas.records import ImagePrediction, Preprocessing, Split

MAX_BYTES = 2_000_000  # of the thumbnails of a data set's split; those of fewer units are left out
BOX_DIGITS = 4  # of a share of an image's side

SplitKey = tuple[str, Split]  # a data set and its split


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the page of each network whose units are tracked over its data set.

    Args:
        context: The run that the site shows.
    """
    thumbnails = make_thumbnails(context)
    for network in context.networks:
        top_images = context.top_images.get(network.name)
        if top_images is None:
            continue
        summary = top_images.summary
        shown = thumbnails[summary["dataset"], summary["split"]]
        groups = split_layers(top_images.layers)
        contents = {"index": describe_network(context, network, top_images, shown, groups)}
        contents |= {
            f"part-{number}": describe_group(group, top_images.marks)
            for number, group in enumerate(groups, 1)
        }
        generated_files: dict[str, str | bytes] = {**dict(format_scripts(network.name, contents))}
        generated_files |= {thumbnail.path: thumbnail.content for thumbnail in shown.values()}
        values = {
            "network": network,
            "top_images": top_images,
            "n_images": len(top_images.image_counts),
            "n_thumbnails": sum(number in shown for number in top_images.image_counts),
            "page_json": dump_script_json({"network": network.name}),
        }
        path = f"networks/{network.name}-top-images.html"
        title = f"{network.name}: top-activating images"
        yield SitePage(
            path,
            "top_images.html",
            title,
            values,
            generated_files=generated_files,
            network=network.name,
            tab="Top images",
        )


def make_thumbnails(context: GalleryContext) -> dict[SplitKey, dict[int, PageThumbnail]]:
    """Make the thumbnails of the images that are among the top-activating ones of most units.

    Args:
        context: The run that the site shows.

    Returns:
        The thumbnails of each split, by the number of the image, of at most about MAX_BYTES.
    """
    counts: dict[SplitKey, Counter[int]] = {}
    for top_images in context.top_images.values():
        key = top_images.summary["dataset"], top_images.summary["split"]
        counts.setdefault(key, Counter()).update(top_images.image_counts)
    thumbnails = {}
    for (name, split), image_counts in counts.items():
        source = DatasetThumbnails(
            name, context.data / name, context.get_previews_folder(name), context.datasets[name], split
        )
        thumbnails[name, split] = _select_thumbnails(source, image_counts)
    return thumbnails


def _select_thumbnails(source: DatasetThumbnails, counts: Counter[int]) -> dict[int, PageThumbnail]:
    """Make thumbnails in the order of the numbers of units, as far as there is room."""
    thumbnails: dict[int, PageThumbnail] = {}
    n_bytes = 0
    if source.dataset is None:
        return thumbnails
    for number, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        thumbnail = source.make(number)
        if thumbnail is None:
            continue
        n_bytes += len(thumbnail.content)
        if n_bytes > MAX_BYTES:
            break
        thumbnails[number] = thumbnail
    return thumbnails


def describe_network(
    context: GalleryContext,
    network: NetworkData,
    top_images: TopImages,
    thumbnails: Mapping[int, PageThumbnail],
    groups: list[Any],
) -> dict[str, Any]:
    """Describe a network's layers and the images for the scripts of the pages.

    Args:
        context: The run that the site shows.
        network: The network.
        top_images: Its top-activating images.
        thumbnails: The thumbnails of its data set, by the number of the image.
        groups: The layers by script.
    """
    summary = top_images.summary
    explorer = context.explorers.get(network.name)
    explored = explorer.slugs if explorer else {}
    weighted = [n for n, layer in enumerate(network.layers) if layer["kind"] in ("conv", "linear")]
    score_layers = {layer["name"] for layer in network.layers[max(weighted, default=0) :]}
    layers = [
        describe_layer(layer, part)
        | {
            "explored": layer.name in explored,
            "scores": layer.name in score_layers and len(layer.values) == len(network.description["classes"]),
        }
        for part, group in enumerate(groups, 1)
        for layer in group
    ]
    return {
        "dataset": summary["dataset"],
        "split": summary["split"],
        "n_images": summary["images"],
        "input_size": list(as_size(network.description["preprocessing"]["size"])),
        "classes": context.datasets[summary["dataset"]]["classes"],
        "predicted_classes": network.description["classes"],
        "layers": layers,
        "images": describe_images(network, top_images, thumbnails),
    }


def describe_layer(layer: LayerTopImages, part: int) -> dict[str, Any]:
    """Describe a layer, with the receptive fields of its positions where they lie on a grid.

    Args:
        layer: The layer.
        part: The number of the script with its units.
    """
    entry = layer.layer
    grid = [entry[key] for key in ("receptive_field", "receptive_start", "receptive_step")]
    is_map = len(entry["output_shape"]) == 3
    has_grid = is_map and all(numbers is not None and len(numbers) == 2 for numbers in grid)
    return {
        "name": layer.name,
        "part": part,
        "units": len(layer.values),
        "shape": entry["output_shape"][1:],
        "receptive_field": entry["receptive_field"],
        "receptive_start": entry["receptive_start"] if has_grid else None,
        "receptive_step": entry["receptive_step"] if has_grid else None,
    }


def describe_images(
    network: NetworkData, top_images: TopImages, thumbnails: Mapping[int, PageThumbnail]
) -> dict[int, dict[str, Any]]:
    """Describe the images that are among the top-activating ones of any unit, by their numbers.

    Args:
        network: The network.
        top_images: Its top-activating images.
        thumbnails: The thumbnails of its data set, by the number of the image.
    """
    split, dataset = top_images.summary["split"], top_images.dataset
    predictions = {row["index"]: row for row in network.results.predictions if row["split"] == split}
    samples = list_explored_images(network, split)
    preprocessing = network.description["preprocessing"]
    descriptions = {}
    for number in sorted(top_images.image_counts):
        description: dict[str, Any] = _describe_prediction(predictions.get(number))
        if dataset is not None and number < len(dataset):
            label, path = int(dataset.labels[number]), dataset.paths[number]
            description["label"] = label if label >= 0 else None
            description["file"] = make_printable(PurePosixPath(path).name) if path else None
            description["subclass"] = dataset.subclasses[number] if dataset.subclasses else None
        description["sample"] = samples.get(number)
        if thumbnail := thumbnails.get(number):
            description |= {"thumbnail": thumbnail.path, "size": thumbnail.size}
            if thumbnail.size != thumbnail.image_size:
                description["file_size"] = thumbnail.image_size
            if network.takes_images:
                description["visible"] = _describe_visible_box(thumbnail.image_size, preprocessing)
        descriptions[number] = {key: value for key, value in description.items() if value is not None}
    return descriptions


def _describe_visible_box(size: tuple[int, int], preprocessing: Preprocessing) -> list[float] | None:
    """Return the part of an image of a (width, height) that a network sees; None where that is all of it."""
    box = compute_visible_box(size, as_size(preprocessing["size"]), preprocessing["resize"])
    return None if box == (0, 0, 1, 1) else [round(share, BOX_DIGITS) for share in box]


def _describe_prediction(row: ImagePrediction | None) -> dict[str, Any]:
    """Return what a network predicts for an image; nothing where it is not evaluated on the split."""
    if row is None:
        return {}
    keys = ("label", "prediction", "probability", "mean_iou")
    numbers: dict[str, Any] = {key: row.get(key) for key in keys}
    return {
        key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in numbers.items()
    }
