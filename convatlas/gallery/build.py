"""The site: built from results/ alone, without torch, opened by a double click."""

import csv
import hashlib
import json
import shutil
from collections.abc import Iterator
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import yaml

from convatlas.files import atomic_write
from convatlas.gallery.pages import browser, classical, datasets, digits, layers, primer, share
from convatlas.gallery.pages.network import NetworkData
from convatlas.gallery.pages.notes import render_markdown
from convatlas.gallery.pages.site import FIGURE_KINDS, GalleryContext, SitePage


def build_gallery(
    output: Path, results: Path, data: Path, names: list[str], config: dict[str, Any], run: dict[str, Any]
) -> None:
    """Write the whole site to `output`, replacing what was there.

    `run` holds what may differ between two clean runs (dates, durations, machine, commit);
    it appears on provenance.html alone.
    """
    atlas = read_context(results, data, names, config)
    sheets = list(make_all_pages(atlas, run))
    published = {place for sheet in sheets for place in sheet.files}
    preview = share.make_preview(atlas)
    shared = {
        "title": config["title"],
        "pages": atlas.networks,
        "datasets": atlas.datasets,
        "kinds": FIGURE_KINDS,
        "run_id": compute_run_id(config, atlas.networks),
        "config": config,
        "sheets": sheets,
        "places": {page.name: layers.find_figure_pages(page) for page in atlas.networks},
        "preview": preview,
    }
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("convatlas.gallery"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["numbers"] = partial(share.link_files, published=published)
    with atomic_write(output) as site:
        with resources.as_file(resources.files("convatlas.gallery") / "static") as static:
            shutil.copytree(static, site / "static")
        (site / ".nojekyll").touch()  # GitHub Pages would leave out names that start with _
        if preview:
            (site / "preview.jpg").write_bytes(preview.jpeg)
        for sheet in sheets:
            for place, source in sheet.files.items():
                _copy(source, site / place)
            values = shared | {"here": sheet.path, "root": sheet.relative_root} | sheet.context
            page = templates.get_template(f"{sheet.template}.j2").render(values)
            for place, text in (sheet.generated_files | {sheet.path: page}).items():
                path = site / place
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(text.encode() if isinstance(text, str) else text)


def read_context(results: Path, data: Path, names: list[str], config: dict[str, Any]) -> GalleryContext:
    """Read all that the pages show."""
    pages = []
    for name in names:
        views = config["networks"][name]["views"]
        notes = config["networks"][name].get("notes")
        pages.append(
            NetworkData.read(results, data, name, views["deconv"]["rectify"], views.get("road"), notes)
        )
    datasets = {page.network["dataset"]: page.dataset for page in pages if page.dataset}
    return GalleryContext(results, data, config, pages, datasets)


def make_all_pages(atlas: GalleryContext, run: dict[str, Any]) -> Iterator[SitePage]:
    """Every page of the site, in the order in which they are named on each."""
    noted = {"notes": render_markdown(atlas.config.get("notes", ""), "")}
    yield SitePage("index.html", "index.html", "Contents", noted)
    for page in atlas.networks:
        yield from layers.make_pages(atlas, page)
    yield from browser.make_pages(atlas)
    yield from classical.make_pages(atlas)
    if any(page.masks for page in atlas.networks):
        yield SitePage("masks.html", "masks.html", "Where the mask appears", group="Across networks")
    yield from digits.make_pages(atlas)
    yield from datasets.make_pages(atlas)
    yield from primer.make_pages(atlas)
    text = yaml.safe_dump(json.loads(json.dumps(atlas.config)), sort_keys=False, allow_unicode=True)
    values = {"run": run, "config_text": text}
    yield SitePage("provenance.html", "provenance.html", "Provenance", values, group="About")


def compute_run_id(config: dict[str, Any], pages: list[NetworkData]) -> str:
    """Hash what decides the results: the config, the weights and the versions."""
    parts = [config, *([page.network["weights"]["sha256"], page.network["versions"]] for page in pages)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def read_durations(logs: Path, names: list[str]) -> list[dict[str, Any]]:
    """Read the benchmark files of the stages: one row a stage, with seconds and peak memory in MB."""
    rows = []
    for name in names:
        for path in sorted((logs / name).glob("*.tsv"), key=lambda path: path.stat().st_mtime):
            with path.open() as file:
                for row in csv.DictReader(file, delimiter="\t"):
                    rows.append(
                        {"name": name, "stage": path.stem, "seconds": row["s"], "memory": row["max_rss"]}
                    )
    return rows


def _copy(source: Path, place: Path) -> None:
    """Copy a file, or a folder but for the JSON that told about it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, place, ignore=shutil.ignore_patterns("*.json"))
    else:
        shutil.copyfile(source, place)
