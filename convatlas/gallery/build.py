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

from convatlas.files import whole
from convatlas.gallery.pages import browser, classical, datasets, digits, layers, primer, share
from convatlas.gallery.pages.network import Page
from convatlas.gallery.pages.notes import rendered
from convatlas.gallery.pages.site import KINDS, Atlas, Sheet


def build(
    output: Path, results: Path, data: Path, names: list[str], config: dict[str, Any], run: dict[str, Any]
) -> None:
    """Write the whole site to `output`, replacing what was there.

    `run` holds what may differ between two clean runs (dates, durations, machine, commit);
    it appears on provenance.html alone.
    """
    atlas = read(results, data, names, config)
    sheets = list(sheets_of(atlas, run))
    published = {place for sheet in sheets for place in sheet.files}
    preview = share.preview(atlas)
    shared = {
        "title": config["title"],
        "pages": atlas.pages,
        "datasets": atlas.datasets,
        "kinds": KINDS,
        "run_id": run_id(config, atlas.pages),
        "config": config,
        "sheets": sheets,
        "places": {page.name: layers.places(page) for page in atlas.pages},
        "preview": preview,
    }
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("convatlas.gallery"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["numbers"] = partial(share.linked, published=published)
    with whole(output) as site:
        with resources.as_file(resources.files("convatlas.gallery") / "static") as static:
            shutil.copytree(static, site / "static")
        (site / ".nojekyll").touch()  # GitHub Pages would leave out names that start with _
        if preview:
            (site / "preview.jpg").write_bytes(preview.picture)
        for sheet in sheets:
            for place, source in sheet.files.items():
                _copy(source, site / place)
            values = shared | {"here": sheet.address, "root": sheet.root} | sheet.values
            page = templates.get_template(f"{sheet.template}.j2").render(values)
            for place, text in (sheet.written | {sheet.address: page}).items():
                path = site / place
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(text.encode() if isinstance(text, str) else text)


def read(results: Path, data: Path, names: list[str], config: dict[str, Any]) -> Atlas:
    """Read all that the pages show."""
    pages = []
    for name in names:
        views = config["networks"][name]["views"]
        notes = config["networks"][name].get("notes")
        pages.append(Page.read(results, data, name, views["deconv"]["rectify"], views.get("road"), notes))
    datasets = {page.network["dataset"]: page.dataset for page in pages if page.dataset}
    return Atlas(results, data, config, pages, datasets)


def sheets_of(atlas: Atlas, run: dict[str, Any]) -> Iterator[Sheet]:
    """Every page of the site, in the order in which they are named on each."""
    noted = {"notes": rendered(atlas.config.get("notes", ""), "")}
    yield Sheet("index.html", "index.html", "Contents", noted)
    for page in atlas.pages:
        yield from layers.sheets(atlas, page)
    yield from browser.sheets(atlas)
    yield from classical.sheets(atlas)
    if any(page.masks for page in atlas.pages):
        yield Sheet("masks.html", "masks.html", "Where the mask appears", group="Across networks")
    yield from digits.sheets(atlas)
    yield from datasets.sheets(atlas)
    yield from primer.sheets(atlas)
    text = yaml.safe_dump(json.loads(json.dumps(atlas.config)), sort_keys=False, allow_unicode=True)
    values = {"run": run, "config_text": text}
    yield Sheet("provenance.html", "provenance.html", "Provenance", values, group="About")


def run_id(config: dict[str, Any], pages: list[Page]) -> str:
    """Hash what decides the results: the config, the weights and the versions."""
    parts = [config, *([page.network["weights"]["sha256"], page.network["versions"]] for page in pages)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def durations(logs: Path, names: list[str]) -> list[dict[str, Any]]:
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
