"""The site: built from results/ alone, without torch, opened by a double click."""

import csv
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml

from convatlas.drawing import Drawing, draw
from convatlas.files import Npz, read_json, whole

SITE = Path(__file__).resolve().parent.parent / "workflow/site"
KINDS = {
    "cover": "Frontispiece",
    "filters": "Filters",
    "maps": "Feature maps",
    "values": "Values",
    "pairs": "Filters beside their maps",
    "classical": "Classical features",
    "deconv": "What caused it",
    "curves": "Training curves",
    "confusion": "Confusion matrix",
}


@dataclass(frozen=True)
class Page:
    """What the pages show of one network: results/<name>/, read."""

    name: str
    network: dict[str, Any]
    metrics: dict[str, Any]
    layers: list[dict[str, Any]]
    images: list[dict[str, Any]]
    plates: list[dict[str, Any]]
    timing: dict[str, Any]
    dataset: dict[str, Any] | None
    matched: dict[str, Any]
    rectified: bool
    drawing: Drawing
    findings: list[str]

    @classmethod
    def read(cls, results: Path, data: Path, name: str, rectified: bool) -> "Page":
        folder = results / name
        network = read_json(folder / "network.json")
        layers = read_json(folder / "layers.json")
        images = read_json(folder / "images.json")
        metrics = read_json(folder / "metrics.json")
        plates = [
            plate | {"number": n} for n, plate in enumerate(read_json(folder / "figures/plates.json"), 1)
        ]
        return cls(
            name,
            network,
            metrics,
            [layer | {"arithmetic": arithmetic(layer)} for layer in layers],
            images,
            plates,
            read_json(folder / "timing.json"),
            read_json(data / network["dataset"] / "dataset.json") if network["dataset"] else None,
            matched(folder),
            rectified,
            draw(layers),
            findings(folder, layers, images, metrics, network["classes"]),
        )

    def of(self, kind: str, subject: str | None = None) -> list[dict[str, Any]]:
        """The plates of a kind, and of one layer or image where `subject` names it."""
        return [p for p in self.plates if p["kind"] == kind and subject in (None, p["subject"])]

    @property
    def shown(self) -> list[dict[str, Any]]:
        """The layers that have plates."""
        subjects = {plate["subject"] for plate in self.plates}
        return [layer for layer in self.layers if layer["name"] in subjects]


def build(
    output: Path, results: Path, data: Path, names: list[str], config: dict[str, Any], run: dict[str, Any]
) -> None:
    """Write the whole site to `output`, replacing what was there.

    `run` holds what may differ between two clean runs (dates, durations, machine, commit);
    it appears on provenance.html alone.
    """
    pages = [
        Page.read(results, data, name, config["networks"][name]["views"]["deconv"]["rectify"])
        for name in names
    ]
    shared = {
        "title": config["title"],
        "pages": pages,
        "datasets": {page.network["dataset"]: page.dataset for page in pages if page.dataset},
        "kinds": KINDS,
        "run_id": run_id(config, pages),
        "config": config,
        "root": "",  # from the page to the site's top, so that every link is relative
    }
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(SITE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = yaml.safe_dump(json.loads(json.dumps(config)), sort_keys=False, allow_unicode=True)
    with whole(output) as site:
        shutil.copytree(SITE / "static", site / "static")
        for page in pages:
            plates = site / "plates" / page.name
            shutil.copytree(results / page.name / "figures", plates, ignore=shutil.ignore_patterns("*.json"))
            own = {"page": page, "root": "../"}
            _write(templates, "network.html", site / f"networks/{page.name}.html", shared | own)
        _write(templates, "index.html", site / "index.html", shared)
        _write(
            templates, "provenance.html", site / "provenance.html", shared | {"run": run, "config_text": text}
        )


def run_id(config: dict[str, Any], pages: list[Page]) -> str:
    """Hash what decides the results: the config, the weights and the versions."""
    parts = [config, *([page.network["weights"]["sha256"], page.network["versions"]] for page in pages)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def arithmetic(layer: dict[str, Any]) -> str | None:
    """Write out O = floor((I + 2P - D(K-1) - 1) / S) + 1 with a layer's numbers.

    The output size of a convolution or pooling layer (Dumoulin & Visin, arXiv 1603.07285,
    relationship 15). None for a layer that it does not describe.
    """
    numbers = all(isinstance(layer[key], list) for key in ("kernel", "stride", "padding"))
    if not numbers or not layer["called"] or len(layer["output_shape"]) != 3:
        return None
    size, padding, kernel = (layer[key][-1] for key in ("input_shape", "padding", "kernel"))
    stride, dilation = layer["stride"][-1], (layer["dilation"] or [1])[-1]
    result = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    if result != layer["output_shape"][-1]:
        return None  # transposed, or rounded up
    return f"⌊({size} + 2·{padding} − {dilation}·({kernel} − 1) − 1) / {stride}⌋ + 1 = {result}"


def matched(folder: Path) -> dict[str, Any]:
    """How many units of each layer resemble a classical feature, and the three likest."""
    given = read_json(folder / "classical/units.json")
    rows = []
    for layer, like in given["layers"].items():
        found = [(unit, match) for unit, match in enumerate(like["units"]) if match]
        found.sort(key=lambda pair: -abs(pair[1]["r"]))
        rows.append(
            {"layer": layer, "units": len(like["units"]), "matched": len(found)}
            | {"baseline": like["baseline"], "best": found[:3]}
        )
    return {"threshold": given["threshold"], "rows": rows}


def findings(
    folder: Path,
    layers: list[dict[str, Any]],
    images: list[dict[str, Any]],
    metrics: dict[str, Any],
    classes: list[str],
) -> list[str]:
    """Say at most three things about this run, each only where its data bear it out."""
    said = [_confused(metrics, classes), *_silent(folder, layers, images)]
    return [finding for finding in said if finding][:3]


def _confused(metrics: dict[str, Any], classes: list[str]) -> str | None:
    if "confusion" not in metrics:
        return None
    counts = np.array(metrics["confusion"])
    wrong = counts - np.diag(counts.diagonal())
    true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
    if wrong.max() < 2 or (wrong == wrong.max()).sum() > 1:
        return None
    return (
        f"The commonest mistake is a {classes[true]} taken for a {classes[predicted]}: {wrong.max()} of the "
        f"{wrong.sum()} mistakes on {counts.sum():,} test images."
    )


def _silent(folder: Path, layers: list[dict[str, Any]], images: list[dict[str, Any]]) -> list[str]:
    """Units that stay at zero on every image looked at, and the sparsest layer, after the activations."""
    names = [layer["name"] for layer in layers if layer["kind"] == "activation" and layer["called"]]
    arrays = [Npz(folder / f"activations/{image['name']}.npz") for image in images]
    said, zeros = [], {}
    for name in names:
        values = np.stack([_flat(a[name]) for a in arrays], axis=1)
        if values.min() < 0:
            continue
        silent = np.flatnonzero(values.max(axis=(1, 2)) == 0)
        zeros[name] = float((values == 0).mean())
        if 0 < len(silent) < len(values):
            listed = ", ".join(map(str, silent[:12])) + (" and others" if len(silent) > 12 else "")
            said.append(
                f"{len(silent)} of the {len(values)} units of {name} {'is' if len(silent) == 1 else 'are'} "
                f"silent on all {len(images)} images looked at: {listed}."
            )
    if zeros and max(zeros.values()) > 0.5:
        sparsest = max(zeros, key=lambda name: zeros[name])
        said.append(
            f"{sparsest} is the sparsest layer: {100 * zeros[sparsest]:.0f} % of its values are zero here."
        )
    return said


def _flat(output: np.ndarray) -> np.ndarray:
    return output.reshape(len(output), -1)


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


def _write(templates: jinja2.Environment, template: str, path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(templates.get_template(f"{template}.j2").render(values), encoding="utf-8")
