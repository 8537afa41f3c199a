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

from convatlas.blocks import BlockDrawing, draw_blocks
from convatlas.drawing import Drawing, draw
from convatlas.files import Npz, read_json, whole
from convatlas.names import choose_layers

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
    "segmentation": "Truth and prediction",
    "mask": "Where the mask appears",
}
CLEAR = 0.05  # how far above chance an IoU is said to be an agreement
HEADS = 1.5  # times the box's share of the area, from which a unit is said to see heads
SEPARATES = 0.1  # how far from 0.5 an AUC is said to separate


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
    blocks: list[BlockDrawing]
    findings: list[str]
    masks: dict[str, Any] | None
    emergence: list[str]
    road: list[str]

    @classmethod
    def read(
        cls, results: Path, data: Path, name: str, rectified: bool, road: list[str | int] | None = None
    ) -> "Page":
        folder = results / name
        network = read_json(folder / "network.json")
        layers = read_json(folder / "layers.json")
        images = read_json(folder / "images.json")
        metrics = read_json(folder / "metrics.json")
        plates = [
            plate | {"number": n} for n, plate in enumerate(read_json(folder / "figures/plates.json"), 1)
        ]
        given = folder / "masks/masks.json"  # of a network whose data set has masks
        masks = read_json(given) if given.is_file() else None
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
            draw_blocks(layers),
            findings(folder, layers, images, metrics, network["classes"]),
            masks,
            emergence(masks) if masks else [],
            choose_layers(layers, road, f"networks.{name}.views.road") if road else [],
        )

    def of(self, kind: str, subject: str | None = None) -> list[dict[str, Any]]:
        """The plates of a kind, and of one layer or image where `subject` names it."""
        return [p for p in self.plates if p["kind"] == kind and subject in (None, p["subject"])]

    @property
    def shown(self) -> list[dict[str, Any]]:
        """The layers that have plates."""
        subjects = {plate["subject"] for plate in self.plates}
        return [layer for layer in self.layers if layer["name"] in subjects]

    @property
    def aside(self) -> list[tuple[str, list[dict[str, Any]]]]:
        """The layers that have plates and are not of the main road, by the stages of the drawing."""
        there = {layer["name"]: layer for layer in self.shown if layer["name"] not in self.road}
        stages = [[name for _, names in block.layers for name in names] for block in self.drawing.blocks]
        grouped = [[there.pop(name) for name in names if name in there] for names in stages]
        grouped.append(list(there.values()))
        return [(_span([layer["name"] for layer in layers]), layers) for layers in grouped if layers]


def build(
    output: Path, results: Path, data: Path, names: list[str], config: dict[str, Any], run: dict[str, Any]
) -> None:
    """Write the whole site to `output`, replacing what was there.

    `run` holds what may differ between two clean runs (dates, durations, machine, commit);
    it appears on provenance.html alone.
    """
    pages = []
    for name in names:
        views = config["networks"][name]["views"]
        pages.append(Page.read(results, data, name, views["deconv"]["rectify"], views.get("road")))
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
        if any(page.masks for page in pages):
            _write(templates, "masks.html", site / "masks.html", shared)
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
    counts = np.array(metrics["confusion"], dtype=np.int64)
    wrong = counts - np.diag(counts.diagonal())
    true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
    if wrong.max() < 2 or (wrong == wrong.max()).sum() > 1:
        return None
    if "mean_iou" in metrics:  # of pixels
        return (
            f"The commonest mistake is {classes[true]} taken for {classes[predicted]}: "
            f"{100 * wrong.max() / wrong.sum():.0f} % of the pixels that are wrong on the "
            f"{metrics['images']:,} test images."
        )
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


def emergence(masks: dict[str, Any]) -> list[str]:
    """Say at most three things about where the mask appears, each only where the measurements bear it out.

    `masks` is masks.json.
    """
    if not masks["layers"]:
        return []
    said = [_reached(masks), _detail_first(masks), _heads_and_pets(masks["layers"])]
    return [sentence for sentence in said if sentence]


def _reached(masks: dict[str, Any]) -> str | None:
    """Which layer first reaches 90 % of the last one's agreement, where that is more than chance."""
    last = masks["layers"][-1]
    if not _is_clear(last):
        return _lost(masks["layers"])
    first = next(layer for layer in masks["layers"] if layer["ordinal"] == masks["reached"]["ordinal"])
    if first is last:
        return (
            f"Only the last convolution reaches 90 % of its own agreement with the mask: {_called(last)}, "
            f"IoU {last['iou']:.2f} where chance gives {last['chance']:.2f}."
        )
    return (
        f"{_called(first)} is the first of {len(masks['layers'])} convolutions whose best map reaches 90 % "
        f"of the last one's agreement with the mask: IoU {first['iou']:.2f} of {last['iou']:.2f}, where "
        f"chance gives {first['chance']:.2f}."
    )


def _lost(layers: list[dict[str, Any]]) -> str | None:
    """Where the mask is best seen, in a network whose last layer does not agree with it."""
    best, last = max(layers, key=lambda layer: layer["iou"]), layers[-1]
    if not _is_clear(best):
        return None
    return (
        f"The last convolution does not make the mask: {_called(last)} agrees with it by an IoU of "
        f"{last['iou']:.2f}, where chance gives {last['chance']:.2f}; the best is {_called(best)}, by "
        f"{best['iou']:.2f} where chance gives {best['chance']:.2f}."
    )


def _is_clear(layer: dict[str, Any]) -> bool:
    """Whether a layer agrees with the mask by more than chance."""
    return layer["iou"] >= layer["chance"] + CLEAR


def _detail_first(masks: dict[str, Any]) -> str | None:
    """Whether fine detail is greatest in an earlier layer than agreement with the mask."""
    layers = masks["layers"]
    fine = max(layers, key=lambda layer: layer["high_frequency"])
    best = max(layers, key=lambda layer: layer["iou"])
    if fine["ordinal"] >= best["ordinal"] or not _is_clear(best):
        return None
    return (
        f"Fine detail comes first: the share of energy above {masks['frequency']:g} cycles per image is "
        f"greatest in {_called(fine)} ({fine['high_frequency']:.2f}), the agreement with the mask in "
        f"{_called(best)} (IoU {best['iou']:.2f})."
    )


def _heads_and_pets(layers: list[dict[str, Any]]) -> str | None:
    """The unit that sees heads most, and the one that best tells pet from background."""
    said = []
    heads = [(layer["head"]["share"] / layer["head"]["area"], layer) for layer in layers
             if layer["head"] and layer["head"]["area"]]  # fmt: skip
    ratio, layer = max(heads, key=lambda pair: pair[0], default=(0.0, layers[0]))
    if ratio >= HEADS:
        head = layer["head"]
        said.append(
            f"Unit {head['unit']} of {_called(layer)} sees heads: {100 * head['share']:.0f} % of its "
            f"activation lies in their boxes, which take {100 * head['area']:.0f} % of the area."
        )
    pairs = [(one, layer) for layer in layers for one in layer["separation"]]
    if pairs:
        one, layer = max(pairs, key=lambda pair: abs(pair[0]["auc"] - 0.5))
        if abs(one["auc"] - 0.5) >= SEPARATES:
            lower = ", lower on the pet" if one["auc"] < 0.5 else ""
            said.append(
                f"Unit {one['unit']} of {_called(layer)} separates pet from background best "
                f"(AUC {one['auc']:.2f}{lower})."
            )
    return " ".join(said) or None


def _called(layer: dict[str, Any]) -> str:
    return f"{layer['name']} ({layer['ordinal']})"


def _span(names: list[str]) -> str:
    """Name layers that follow one another by the first and the last."""
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


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
