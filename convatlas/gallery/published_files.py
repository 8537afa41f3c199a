"""The result files that the gallery offers for download, and the links to them."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from markupsafe import Markup, escape

from convatlas.analysis.registry import ANALYSES, Analysis
from convatlas.files import format_json, read_json
from convatlas.gallery.context import GalleryContext
from convatlas.gallery.local_paths import hide_local_paths

RESULT_FILES = (
    "filters.npz",
    "activations",
    "deconv",
    "attribution",
    "classical",
    "masks",
    "steps",
    *(analysis.name for analysis in ANALYSES if not analysis.is_shared),
    "statistics.npz",
    "strongest.npz",
    "statistics.json",
    "history.csv",
    "metrics.json",
    "predictions.csv",
    "layers.json",
    "images.json",
    "network.json",
)
WEIGHTS_FILE = "weights.safetensors"


def list_published_files(context: GalleryContext, network: str) -> dict[str, Path]:
    """List the files of results/<network>/ that `publish` of the config copies into the site.

    Args:
        context: The run that the site shows.
        network: Name of the network.

    Returns:
        The source of each file, by its place in the site, arrays/<network>/<file>.
    """
    settings = context.config.get("publish", {})
    names: list[str] = []
    if settings.get("tensors"):
        names += RESULT_FILES
    if settings.get("weights"):
        names.append(WEIGHTS_FILE)
    folder = context.results / network
    paths = [path for name in names for path in (folder / name, *sorted((folder / name).rglob("[!.]*")))]
    return {
        f"arrays/{network}/{path.relative_to(folder).as_posix()}": path for path in paths if path.is_file()
    }


def list_shared_files(context: GalleryContext, analysis: Analysis) -> dict[str, Path]:
    """List the files of an analysis of all networks that `publish` of the config copies into the site.

    Args:
        context: The run that the site shows.
        analysis: An entry of the registry that one job computes for all networks.

    Returns:
        The source of each file, by its place in the site, arrays/_<name>/<file>.
    """
    if not context.config.get("publish", {}).get("tensors"):
        return {}
    folder = context.results / f"_{analysis.name}"
    return {f"arrays/{folder.name}/{path.name}": path for path in sorted(folder.glob("*.*"))}


def hide_paths_in_json(files: Mapping[str, Path]) -> dict[str, str]:
    """Return the new content of those JSON files that hold absolute paths of this machine.

    Args:
        files: The source of each published file, by its place in the site.

    Returns:
        The content by the file's place, without such paths.
    """
    contents = {}
    for place, source in files.items():
        value = read_json(source) if source.suffix == ".json" else None
        public = hide_local_paths(value)
        if public != value:
            contents[place] = format_json(public)
    return contents


def link_files(text: str, root: str, published: Collection[str]) -> Markup:
    """Turn names of result files into links to those that are in the site.

    Args:
        text: Words with names as "results/<network>/<file>, <key>". A name with `<image>` in it links to the
            list of files on the network's page.
        root: The relative path from the page's folder to the site's root.
        published: The places of the published files.
    """

    def link(match: re.Match[str]) -> Markup:
        network, file = match.groups()
        place, folder = f"arrays/{network}/{file}", file.partition("<image>")[0]
        if place in published:
            return Markup('<a href="{}{}">{}</a>').format(root, place, match.group())
        if folder != file and any(path.startswith(f"arrays/{network}/{folder}") for path in published):
            return Markup('<a href="{}networks/{}.html#downloads">{}</a>').format(
                root, network, match.group()
            )
        return escape(match.group())

    parts: list[Markup] = []
    end = 0
    for match in re.finditer(r"results/([\w-]+)/([^\s,]+)", text):
        parts += [escape(text[end : match.start()]), link(match)]
        end = match.end()
    return Markup("").join([*parts, escape(text[end:])])
