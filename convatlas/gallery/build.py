"""The gallery: a static site, built from results/ without torch, that opens from a file."""

import base64
import gzip
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from convatlas.figure_kinds import FIGURE_KINDS
from convatlas.files import atomic_write
from convatlas.gallery.ablation_data import describe_unit_costs, read_ablation
from convatlas.gallery.concept_data import read_named_units
from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.dataset_thumbnails import load_split
from convatlas.gallery.diagram_maps import draw_diagram_maps
from convatlas.gallery.explorer_data import read_explorer_data
from convatlas.gallery.figure_numbers import NUMBER_MARK, mark_figure_range, number_figures
from convatlas.gallery.figure_settings import FigureSettings, format_loading_code
from convatlas.gallery.glossary import mark_terms
from convatlas.gallery.metadata import CRATE_FILE, build_crate, describe_page
from convatlas.gallery.navigation import list_menus, list_subtabs, list_tabs, render_search_index
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.pages import (
    ablation,
    analyses,
    attribution,
    cite,
    classical,
    compare,
    concepts,
    correspondence,
    datasets,
    digits,
    effective_receptive_field,
    errors,
    evolution,
    feature_visualisation,
    glossary,
    index,
    invariance,
    layers,
    lecture,
    masks,
    network,
    occlusion,
    primer,
    provenance,
    similarity,
    top_images,
    units,
)
from convatlas.gallery.preview import make_preview
from convatlas.gallery.published_files import link_files
from convatlas.gallery.references import cite_run
from convatlas.gallery.run_info import RunInfo, compute_run_id
from convatlas.gallery.sheet_scripts import format_sheet_script
from convatlas.gallery.top_images import TopImages, read_top_images
from convatlas.names import describe_output, describe_prediction, is_multi_label

# Each makes the pages of one kind; the navigation lists pages in this order.
PAGE_MAKERS: list[Callable[[GalleryContext], Iterator[SitePage]]] = [
    index.make_pages,
    network.make_pages,
    lecture.make_pages,
    layers.make_pages,
    units.make_pages,
    top_images.make_pages,
    attribution.make_pages,
    analyses.make_pages,
    evolution.make_pages,
    ablation.make_pages,
    occlusion.make_pages,
    feature_visualisation.make_pages,
    similarity.make_pages,
    effective_receptive_field.make_pages,
    invariance.make_pages,
    concepts.make_pages,
    correspondence.make_pages,
    errors.make_pages,
    compare.make_pages,
    classical.make_pages,
    masks.make_pages,
    digits.make_pages,
    datasets.make_pages,
    primer.make_pages,
    glossary.make_pages,
    cite.make_pages,
    provenance.make_pages,
]


def build_gallery(
    output: Path, results: Path, data: Path, names: Sequence[str], config: Mapping[str, Any], run: RunInfo
) -> None:
    """Build the site, replacing an older one.

    Args:
        output: The folder to write.
        results: The folder of the networks' folders.
        data: The folder of the data sets.
        names: The networks to show.
        config: The resolved config.
        run: What may differ between two clean runs; shown on provenance.html alone.

    Raises:
        UserError: A file is missing or damaged, or the config names a layer that is not there.
    """
    context = read_context(results, data, names, config, run)
    pages = [page for make_pages in PAGE_MAKERS for page in make_pages(context)]
    preview = make_preview(context)
    run_id = compute_run_id(config, [network.description for network in context.networks])
    shared_values = {
        "title": config["title"],
        "networks": context.networks,
        "datasets": context.datasets,
        "figure_kinds": FIGURE_KINDS,
        "run_id": run_id,
        "run_reference": cite_run(config, run_id),
        "structured_data": {page.path: describe_page(context, page, run_id) for page in pages},
        "config": config,
        "pages": pages,
        "preview": preview,
    }
    templates = _load_templates(config, {path for page in pages for path in page.files})
    with atomic_write(output) as site:
        with resources.as_file(resources.files("convatlas.gallery") / "static") as static:
            shutil.copytree(static, site / "static")
        search_index = render_search_index(pages, context.explorers)
        (site / "static/search_index.js").write_text(search_index, encoding="utf-8")
        (site / ".nojekyll").touch()  # without it GitHub Pages omits names that start with _
        if preview:
            (site / "preview.jpg").write_bytes(preview.jpeg)
        for page in pages:
            _write_page(site, page, templates, shared_values)
        if published := config.get("published"):
            paths = [path.relative_to(site).as_posix() for path in site.rglob("*.*") if path.is_file()]
            crate = build_crate(context, run_id, paths, published)
            (site / CRATE_FILE).write_text(crate, encoding="utf-8")


def read_context(
    results: Path, data: Path, names: Sequence[str], config: Mapping[str, Any], run: RunInfo
) -> GalleryContext:
    """Read what the pages show.

    Args:
        results: The folder of the networks' folders.
        data: The folder of the data sets.
        names: The networks to show.
        config: The resolved config.
        run: What may differ between two clean runs.
    """
    networks = []
    explorers = {}
    statistics: dict[str, TopImages] = {}
    for name in names:
        views = config["networks"][name]["views"]
        network_data = NetworkData.read(
            results,
            data,
            name,
            rectified=views["deconv"]["rectify"],
            highlight=views.get("highlight"),
            notes=config["networks"][name].get("notes"),
        )
        networks.append(network_data)
        named, ablation = read_named_units(network_data, views), read_ablation(config, network_data)
        unit_costs = describe_unit_costs(ablation) if ablation else {}
        has_optimised = views.get("feature_visualisation") is not None
        explorer = read_explorer_data(network_data, views["scale"], named, unit_costs, has_optimised)
        if explorer:
            explorers[name] = explorer
        dataset_name = network_data.description["dataset"]
        if dataset_name and views.get("strongest") is not None:
            split = network_data.results.dataset_statistics["split"]
            statistics[name] = read_top_images(network_data, load_split(data / dataset_name, split))
    datasets = {
        network.description["dataset"]: network.dataset
        for network in networks
        if network.dataset and network.description["dataset"]
    }
    maps = {network.name: draw_diagram_maps(network) for network in networks}
    return GalleryContext(results, data, config, networks, datasets, explorers, statistics, maps, run)


def _load_templates(config: Mapping[str, Any], published: set[str]) -> jinja2.Environment:
    """Load the templates, with functions for texts, and the filter that links result files in the site."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("convatlas.gallery"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        optimized=False,  # folding constants takes a sixth of the time of compiling, and saves none
    )
    functions = (describe_output, describe_prediction, format_loading_code, is_multi_label, mark_figure_range)
    templates.globals |= {function.__name__: function for function in functions}
    templates.globals["describe_settings"] = FigureSettings(config).describe
    templates.globals["figure_number"] = NUMBER_MARK
    templates.filters["link_files"] = partial(link_files, published=published)
    templates.filters["compress"] = _compress_text
    return templates


def _compress_text(text: str) -> str:
    """Compress text with gzip, as base 64, for a script that the browser unpacks."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _write_page(
    site: Path, page: SitePage, templates: jinja2.Environment, shared_values: Mapping[str, Any]
) -> None:
    """Write a page with its files."""
    for path, source in page.files.items():
        _copy(source, site / path)
    for path, sheet in page.sheets.items():
        _write(site / f"{path}.js", format_sheet_script(path, sheet.read_bytes()))
    values = {
        **shared_values,
        "current_path": page.path,
        "menus": list_menus(shared_values["pages"], page),
        "tabs": list_tabs(shared_values["pages"], page),
        "subtabs": list_subtabs(shared_values["pages"], page),
        "page_network": page.network,
        "root": page.relative_root,
        **page.context,
    }
    html = number_figures(templates.get_template(f"{page.template}.j2").render(values))
    if page.path != glossary.PATH:
        html = mark_terms(html, page.relative_root)
    for path, content in {**page.generated_files, page.path: html}.items():
        _write(site / path, content.encode() if isinstance(content, str) else content)


def _write(target: Path, content: bytes) -> None:
    """Write a file and the folders that hold it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def _copy(source: Path, target: Path) -> None:
    """Copy a file, or a folder without its data and hidden files, such as Snakemake's time stamps."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.json", "*.npz", ".*"))
    else:
        shutil.copyfile(source, target)
