"""How specific the projections of a layer are to their unit: rows of a table, and sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convatlas.gallery.attribution_charts import draw_similarity
from convatlas.gallery.diagrams.small_chart import SmallChart
from convatlas.names import format_number, join_names
from convatlas.records import LayerSpecificity

LOW_SPECIFICITY = 0.1  # below: the projections of different units have a rank correlation of at least 0.9


@dataclass(frozen=True)
class SpecificityRow:
    """The specificity of a layer's projections by a method.

    Attributes:
        title: Title of the method.
        entry: Its numbers.
        chart: The similarity of a unit's projection to the trained network's as weights are redrawn.
    """

    title: str
    entry: LayerSpecificity
    chart: SmallChart | None


def list_specificity(entries: Sequence[LayerSpecificity], titles: Mapping[str, str]) -> list[SpecificityRow]:
    """List the rows of the table.

    Args:
        entries: The specificity by layer and method.
        titles: The methods' titles by name; others are named as in the config.
    """
    return [
        SpecificityRow(
            _get_title(entry["method"], titles),
            entry,
            draw_similarity(test["layers"], test["similarity"]) if (test := entry["randomisation"]) else None,
        )
        for entry in entries
    ]


def describe_low_specificity(rows: Sequence[SpecificityRow]) -> list[str]:
    """Name the layers where projections of different units hardly differ, a sentence each.

    Args:
        rows: The rows of the table.
    """
    by_layer: dict[str, list[str]] = {}
    for row in rows:
        value = row.entry["value"]
        if value is not None and value < LOW_SPECIFICITY:
            text = f"{row.title} {format_number(value, '.2f')}"
            by_layer.setdefault(row.entry["layer"], []).append(text)
    return [
        f"In {layer}, projections of different units hardly differ. Specificity: {join_names(texts)}."
        for layer, texts in by_layer.items()
    ]


def _get_title(method: str, titles: Mapping[str, str]) -> str:
    return titles.get(method) or method.replace("_", " ").capitalize()
