"""Sentences about attribution maps: scores, values, checks and the specificity of projections."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from convatlas.names import format_number, join_names
from convatlas.plotting.colormap import find_non_finite, select_finite
from convatlas.records import AttributionTarget, LayerSpecificity

LOW_SPECIFICITY = 0.1  # below: the projections of different units have a rank correlation of at least 0.9


def describe_score(target: AttributionTarget) -> str:
    """Describe the score of a target class: its probability and its logit.

    Args:
        target: The class; of a segmentation network the score is a sum over pixels.
    """
    if target["pixels"] is not None:
        return (
            f"the sum of its logits over the {target['pixels']:,} pixels predicted as this class: "
            f"{format_number(target['score'])}"
        )
    logit = f"logit {format_number(target['score'])}"
    if target["probability"] is None:
        return logit
    return f"probability {100 * target['probability']:.1f} %, {logit}"


def describe_values(plane: np.ndarray) -> str:
    """Describe the range of a map.

    Args:
        plane: The map (H, W).
    """
    finite = select_finite(plane)
    non_finite = find_non_finite(plane)
    if not finite.size:
        return f"all values are {join_names(non_finite)}"
    text = f"values {format_number(finite.min())} to {format_number(finite.max())}"
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
    return f"; the largest magnitude is in row {row} of {plane.shape[0]}, column {column} of {plane.shape[1]}"


def describe_checks(checks: Mapping[str, Any]) -> list[str]:
    """Describe what was checked of a map.

    Args:
        checks: `checks` of its entry, such as {"completeness_gap": 0.012, "steps": 64}.
    """
    remaining = dict(checks)
    texts = []
    if "completeness_gap" in remaining:
        gap = remaining.pop("completeness_gap")
        text = "completeness gap " + ("undefined" if gap is None else f"{100 * gap:.1f} %")
        steps = remaining.pop("steps", None)
        texts.append(f"{text} ({steps} steps)" if steps else text)
    return texts + [f"{key.replace('_', ' ')} {format_setting(value)}" for key, value in remaining.items()]


def format_setting(value: Any) -> str:
    """Write a setting of a method, or the result of a check.

    Args:
        value: A value of JSON.
    """
    if isinstance(value, float):
        return format_number(value)
    return join_names([format_setting(item) for item in value]) if isinstance(value, list) else str(value)


def describe_low_specificity(rows: Sequence[LayerSpecificity], titles: Mapping[str, str]) -> list[str]:
    """Name the layers where projections of different units hardly differ, a sentence each.

    Args:
        rows: The specificity by layer and method.
        titles: The methods' titles by name.
    """
    by_layer: dict[str, list[LayerSpecificity]] = {}
    for row in rows:
        if row["value"] is not None and row["value"] < LOW_SPECIFICITY:
            by_layer.setdefault(row["layer"], []).append(row)
    return [
        f"In {layer} projections show where, hardly which unit: specificity "
        + join_names(
            [
                f"{format_number(row['value'] or 0, '.2f')} "
                f"({titles.get(row['method'], row['method'].replace('_', ' '))})"
                for row in layer_rows
            ]
        )
        + "."
        for layer, layer_rows in by_layer.items()
    ]


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
