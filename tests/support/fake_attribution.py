"""The attribution maps of the fake network's sample images, with every measure that the pages show."""

from pathlib import Path
from typing import Any

import numpy as np

from convatlas.files import write_json, write_npz
from tests.support.fake_results import CLASSES, FakeResults, make_results

FRACTIONS = [round(0.1 * step, 1) for step in range(11)]
STAGES = [["fc"], ["neck"], ["block.conv2"], ["conv1"]]
# (name, layer, returns, why it is not defined)
METHODS: list[tuple[str, str | None, str, str | None]] = [
    ("gradient", None, "pixels", None),
    ("guided_backpropagation", None, "pixels", None),
    ("integrated_gradients", None, "pixels", None),
    ("grad_cam", "relu_2", "map", None),
    ("grad_cam", "conv1", "map", None),
    ("occlusion", None, "map", None),
    ("deconvnet", None, "pixels", "neck is no ReLU: set views.deconv.rectify"),
]


def make_member(method: str, layer: str | None, class_number: int) -> str:
    """Return the name of a map in attribution/<image>.npz; relu_2 is the default layer."""
    return f"{method}:{layer}@{class_number}" if layer == "conv1" else f"{method}@{class_number}"


def make_curve(rng: np.random.Generator, falling: bool) -> dict[str, Any]:
    """Return a noisy curve of a probability over FRACTIONS."""
    values = np.clip(np.linspace(0.8, 0.1, len(FRACTIONS)) + rng.normal(0, 0.05, len(FRACTIONS)), 0, 1)
    values = values if falling else values[::-1]
    return {"auc": float(values.mean()), "values": values.tolist()}


def make_curves(rng: np.random.Generator) -> dict[str, Any]:
    """Return a deletion and an insertion curve."""
    return {"deletion": make_curve(rng, True), "insertion": make_curve(rng, False)}


def make_method(name: str, layer: str | None, returns: str, undefined: str | None) -> dict[str, Any]:
    """Return the entry of a method in attribution.json."""
    similarity = [0.9, 0.6, 0.3, 0.1]
    return {
        "name": name,
        "title": name.replace("_", " ").capitalize(),
        "layer": layer,
        "returns": returns,
        "citation": f"Author et al. {2010 + len(name)}",
        "caveat": f"The caveat of {name}.",
        "check": f"The check of {name}.",
        "settings": {"size": 4, "stride": 2} if name == "occlusion" else {},
        "undefined": undefined,
        "randomisation": None
        if undefined
        else {"image": "first", "layers": STAGES, "similarity": similarity},
    }


def make_attribution(
    results: FakeResults, targets: int = 2
) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """Return attribution.json and the maps of each image, for its most probable classes."""
    rng = np.random.default_rng(13)
    images: dict[str, Any] = {}
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for name, array in results.inputs.items():
        channels, *plane = array.shape
        classes = list(range(len(CLASSES)))[-targets:]
        maps = []
        arrays[name] = {}
        for method, layer, returns, undefined in METHODS:
            for number in [] if undefined else classes:
                values = rng.normal(size=(channels if returns == "pixels" else 1, *plane)).astype(np.float32)
                if method == "grad_cam":
                    values = values.clip(0)
                member = make_member(method, layer, number)
                arrays[name][member] = values
                checks = {"completeness_gap": 0.012, "steps": 64} if method == "integrated_gradients" else {}
                extremes = {"min": float(values.min()), "max": float(values.max())}
                entry = {"member": member, "method": method, "layer": layer, "class": number}
                maps.append(entry | extremes | {"checks": checks} | make_curves(rng))
        images[name] = {
            "targets": [
                {
                    "class": number,
                    "name": CLASSES[number],
                    "score": 12.3 - number,
                    "probability": 0.387,
                    "pixels": None,
                }
                for number in classes
            ],
            "maps": maps,
            "random_order": {str(number): make_curves(rng) for number in classes},
        }
    specificity = [
        {
            "layer": layer,
            "method": method,
            "value": value,
            "randomised": 0.3,
            "pairs": 24,
            "reason": None,
            "randomisation": {"layers": [[layer], ["conv0"]], "similarity": [0.7, 0.5]},
        }
        for layer, value in (("conv1", 0.42), ("pool", 0.03))
        for method in ("deconvnet", "gradient")
    ]
    analysis = {
        "undefined": None,
        "methods": [make_method(*method) for method in METHODS],
        "images": images,
        "fractions": FRACTIONS,
        "specificity": specificity,
    }
    return analysis, arrays


def write_attribution(folder: Path, results: FakeResults | None = None, **changes: Any) -> Path:
    """Write attribution/ into results/<network>/; `changes` are keys of attribution.json."""
    analysis, arrays = make_attribution(results or make_results())
    write_json(folder / "attribution/attribution.json", analysis | changes)
    for name, members in arrays.items():
        write_npz(folder / f"attribution/{name}.npz", members)
    return folder
