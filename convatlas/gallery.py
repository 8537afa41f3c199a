"""The site: built from results/ alone, without torch, opened by a double click."""

import csv
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import yaml

from convatlas.files import whole
from convatlas.pages import KINDS, Atlas, Sheet
from convatlas.pages.network import Page

SITE = Path(__file__).resolve().parent.parent / "workflow/site"


def build(
    output: Path, results: Path, data: Path, names: list[str], config: dict[str, Any], run: dict[str, Any]
) -> None:
    """Write the whole site to `output`, replacing what was there.

    `run` holds what may differ between two clean runs (dates, durations, machine, commit);
    it appears on provenance.html alone.
    """
    atlas = read(results, data, names, config)
    sheets = list(sheets_of(atlas, run))
    shared = {
        "title": config["title"],
        "pages": atlas.pages,
        "datasets": atlas.datasets,
        "kinds": KINDS,
        "run_id": run_id(config, atlas.pages),
        "config": config,
        "sheets": sheets,
    }
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(SITE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    with whole(output) as site:
        shutil.copytree(SITE / "static", site / "static")
        for sheet in sheets:
            for place, source in sheet.files.items():
                _copy(source, site / place)
            path = site / sheet.address
            path.parent.mkdir(parents=True, exist_ok=True)
            values = shared | {"here": sheet.address, "root": sheet.root} | sheet.values
            path.write_text(templates.get_template(f"{sheet.template}.j2").render(values), encoding="utf-8")


def read(results: Path, data: Path, names: list[str], config: dict[str, Any]) -> Atlas:
    """Read all that the pages show."""
    pages = []
    for name in names:
        views = config["networks"][name]["views"]
        pages.append(Page.read(results, data, name, views["deconv"]["rectify"], views.get("road")))
    datasets = {page.network["dataset"]: page.dataset for page in pages if page.dataset}
    return Atlas(results, data, config, pages, datasets)


def sheets_of(atlas: Atlas, run: dict[str, Any]) -> Iterator[Sheet]:
    """Every page of the site, in the order in which they are named on each."""
    yield Sheet("index.html", "index.html", "Contents")
    for page in atlas.pages:
        figures = {f"plates/{page.name}": atlas.results / page.name / "figures"}
        address = f"networks/{page.name}.html"
        yield Sheet(address, "network.html", page.name, {"page": page}, "Networks", figures)
    if any(page.masks for page in atlas.pages):
        yield Sheet("masks.html", "masks.html", "Where the mask appears", group="Across networks")
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
