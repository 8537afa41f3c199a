"""Words about attribution maps: scores, values, checks and citations."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from convatlas.names import format_number, join_names
from convatlas.plotting.colormap import find_non_finite, select_finite
from convatlas.records import AttributionTarget

CHECK_LABELS = {
    "agreement": "correlation between halves of the samples",
    "change": "change of the score",
    "size": "square of side",
}


def format_quantity(value: float) -> str:
    """Return a number with three significant digits, thousands as whole numbers rather than with an exponent.

    Args:
        value: The number.
    """
    return format_number(value, ",.0f" if 1000 <= abs(value) < 1e6 else ".3g")


def describe_score(target: AttributionTarget) -> str:
    """Describe the score of a target class: its probability and its logit.

    Args:
        target: The class; of a segmentation network the score is a sum over pixels.
    """
    name, mean = "logit", ""
    if target["pixels"] is not None:
        name = f"sum of its logits over the {target['pixels']:,} pixels predicted as this class"
        mean = "mean "
    score = f"{name} {format_quantity(target['score'])}"
    if target["probability"] is None:
        return score
    return f"{mean}probability {100 * target['probability']:.1f} %, {score}"


def describe_values(plane: np.ndarray) -> str:
    """Describe the range of a map.

    Args:
        plane: The map (H, W).
    """
    finite = select_finite(plane)
    non_finite = find_non_finite(plane)
    if not finite.size:
        return f"all values are {join_names(non_finite)}"
    text = f"values {format_quantity(finite.min())} to {format_quantity(finite.max())}"
    if not finite.any():
        text = "all values are 0"
    return f"{text}, some {join_names(non_finite)}" if non_finite else text


def describe_strongest(plane: np.ndarray) -> str:
    """Describe where the magnitude of a map is largest; "" where the map is zero.

    Args:
        plane: The map (H, W).
    """
    magnitudes = np.nan_to_num(np.abs(plane), nan=0, posinf=0)
    if not magnitudes.any():
        return ""
    row, column = np.unravel_index(magnitudes.argmax(), plane.shape)
    return f"; the largest magnitude is at row {row}, column {column}, counted from 0"


def describe_checks(checks: Mapping[str, Any]) -> list[str]:
    """Describe what was checked of a map.

    Args:
        checks: `checks` of its entry, such as {"completeness_gap": 0.012, "steps": 64}.
    """
    remaining = {key: value for key, value in checks.items() if key != "layer"}  # which the map's title names
    texts = []
    if "completeness_gap" in remaining:
        gap = remaining.pop("completeness_gap")
        text = "completeness gap " + ("undefined" if gap is None else f"{100 * gap:.1f} %")
        steps = remaining.pop("steps", None)
        texts.append(f"{text} ({steps} steps)" if steps else text)
    return [*texts, *describe_settings(remaining)]


def describe_settings(settings: Mapping[str, Any]) -> list[str]:
    """Write settings of a method, or results of checks; those that are null or false are left out.

    Args:
        settings: The settings by name.
    """
    return [
        label if value is True else f"{label} {_format_setting(value)}"
        for name, value in settings.items()
        if value is not None and value is not False
        for label in [CHECK_LABELS.get(name, name.replace("_", " "))]
    ]


def _format_setting(value: Any) -> str:
    """Write a value of JSON."""
    if isinstance(value, float):
        return format_quantity(value)
    return join_names([_format_setting(item) for item in value]) if isinstance(value, list) else str(value)


def link_papers(text: str) -> Markup:
    """Turn references to arXiv, such as "arXiv 1312.6034", into links.

    Args:
        text: A citation.
    """
    parts = re.split(r"arXiv:? ?(\d{4}\.\d{4,5})", text)
    link = Markup('<a href="https://arxiv.org/abs/{0}">arXiv {0}</a>')
    return Markup("").join(
        link.format(part) if number % 2 else escape(part) for number, part in enumerate(parts)
    )
