"""A network's results, read for its page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convatlas.datasets import formats
from convatlas.files import read_json
from convatlas.gallery.diagrams.blocks import BlockDiagram, draw_blocks
from convatlas.gallery.diagrams.data_flow import NetworkDiagram, draw_network
from convatlas.gallery.pages.findings import list_emergence_findings, list_findings
from convatlas.gallery.pages.notes import Notes
from convatlas.names import choose_layers

MAX_COVER_BYTES = 200_000  # bytes of a picture; a page may take half a megabyte before anything is seen


@dataclass(frozen=True)
class NetworkData:
    """What the pages show of one network: results/<name>/, read."""

    name: str
    network: dict[str, Any]
    metrics: dict[str, Any]
    layers: list[dict[str, Any]]
    images: list[dict[str, Any]]
    figures: list[dict[str, Any]]
    timing: dict[str, Any]
    dataset: dict[str, Any] | None
    matches: dict[str, Any]
    rectified: bool
    diagram: NetworkDiagram
    block_diagrams: list[BlockDiagram]
    findings: list[str]
    masks: dict[str, Any] | None
    emergence_findings: list[str]
    highlighted_layers: list[str]
    notes: Notes

    @classmethod
    def read(
        cls,
        results: Path,
        data: Path,
        name: str,
        rectified: bool,
        highlight: list[str | int] | None = None,
        notes: str | dict[str, Any] | None = None,
    ) -> "NetworkData":
        folder = results / name
        network = read_json(folder / "network.json")
        layers = read_json(folder / "layers.json")
        images = read_json(folder / "images.json")
        metrics = read_json(folder / "metrics.json")
        plates = [
            plate | {"number": n, "shown": _choose_image_file(plate, folder / "figures")}
            for n, plate in enumerate(read_json(folder / "figures/plates.json"), 1)
        ]
        dataset = read_json(data / network["dataset"] / "dataset.json") if network["dataset"] else None
        has_masks = dataset is not None and formats.has_masks(dataset)
        masks = read_json(folder / "masks/masks.json") if has_masks else None
        return cls(
            name,
            network,
            metrics,
            [layer | {"arithmetic": format_output_size(layer)} for layer in layers],
            images,
            plates,
            read_json(folder / "timing.json"),
            dataset,
            read_matches(folder),
            rectified,
            draw_network(layers),
            draw_blocks(layers),
            list_findings(folder, layers, images, metrics, network["classes"]),
            masks,
            list_emergence_findings(masks) if masks else [],
            choose_layers(layers, highlight, f"networks.{name}.views.road") if highlight else [],
            Notes.from_config(notes, layers, f"networks.{name}.notes"),
        )

    def get_figures(self, kind: str, subject: str | None = None) -> list[dict[str, Any]]:
        """The plates of a kind, and of one layer or image where `subject` names it."""
        return [p for p in self.figures if p["kind"] == kind and subject in (None, p["subject"])]

    @property
    def layers_with_figures(self) -> list[dict[str, Any]]:
        """The layers that have plates."""
        subjects = {plate["subject"] for plate in self.figures if plate["kind"] != "strongest"}
        return [layer for layer in self.layers if layer["name"] in subjects]

    @property
    def other_layers_by_stage(self) -> list[tuple[str, list[dict[str, Any]]]]:
        """The layers that have plates and are not of the main road, by the stages of the drawing."""
        there = {
            layer["name"]: layer
            for layer in self.layers_with_figures
            if layer["name"] not in self.highlighted_layers
        }
        stages = [[name for _, names in block.layers for name in names] for block in self.diagram.stages]
        grouped = [[there.pop(name) for name in names if name in there] for names in stages]
        grouped.append(list(there.values()))
        return [
            (_format_layer_range([layer["name"] for layer in layers]), layers) for layers in grouped if layers
        ]


def format_output_size(layer: dict[str, Any]) -> str | None:
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


def read_matches(folder: Path) -> dict[str, Any]:
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


def _choose_image_file(plate: dict[str, Any], folder: Path) -> str:
    """The file that a page shows of a plate: a light one of a frontispiece, with which pages open."""
    path = folder / plate["file"]
    heavy = plate["kind"] == "cover" and path.stat().st_size > MAX_COVER_BYTES
    return path.with_suffix(".webp").name if heavy else path.name


def _format_layer_range(names: list[str]) -> str:
    """Name layers that follow one another by the first and the last."""
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
