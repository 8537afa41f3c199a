"""Write docs/zoo.md from the rows of a sweep."""

import datetime
import importlib.metadata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.zoo.catalogue import PACKAGES, Entry

INTRODUCTION = """\
# Networks of other packages

`make zoo` builds the networks below in an environment of its own (`requirements-zoo.lock`), checks each, and
writes this page. Weights are drawn at random, apart from those that packages ship. Checked are:

- the layers: the convolutions listed are those that torch ran, and the extractor has every convolution and
  linear layer;
- the records, equal to plain forward hooks on the modules, bit for bit;
- that weights, buffers, modes, hooks, memory layout and random numbers are afterwards as before;
- `project` of three layers, two units each, maps and peaks, against a second deconvnet in float64 that runs
  the ATen operations again and shares no code with the first;
- receptive fields, against the lines of each layer's maps that become NaN where one line of the input is;
  where a field leaves such a line out, changes of the input decide. A field may be larger, or null where it
  is not known.

"refused" means that the product says why it does not project the network, in the words at the end. "rectify"
marks activations that are not ReLUs, for which `views.deconv.rectify: true` is needed. Where a projection
overflows float32, which random weights make likelier than trained ones, it is compared in float64 (Notes). Of
detectors the backbone and the heads before the boxes are projected. Of segmentation_models_pytorch each
encoder is taken with Unet and with another decoder, and each decoder with ResNet-18. "difference" is the
largest of a network's projections, in float32, as a share of the largest value. Seconds are those of one
processor core, the megabytes those of the process.
"""
HEADER = (
    "| network | result | input | parameters, millions | layers | fields equal, larger, null | rectify | "
    "difference | s | MB |\n|---|---|---|---|---|---|---|---|---|---|\n"
)
RESULTS = ("ok", "refused", "wrong", "error")


def write_table(path: Path, rows: dict[str, dict[str, Any]], entries: Sequence[Entry]) -> None:
    """Write the page.

    Args:
        path: The file.
        rows: The rows of the networks that ran, by their keys.
        entries: All networks, in the order of the table.
    """
    ordered = [rows[entry.key] for entry in entries if entry.key in rows]
    path.write_text("".join(_format_page(ordered, len(entries))), encoding="utf-8")


def _format_page(rows: Sequence[dict[str, Any]], planned: int) -> Iterator[str]:
    """Yield the parts of the page."""
    yield INTRODUCTION
    counts = {result: sum(row["result"] == result for row in rows) for result in RESULTS}
    sums = {key: sum(row[f"fields{key}"] for row in rows) for key in ("", "_equal", "_larger", "_null")}
    if len(rows) < planned:
        yield f"\nThis sweep ended after {len(rows)} of {planned} networks; `make zoo` goes on with it.\n"
    yield (
        f"\n**{counts['ok']} of {len(rows)} are ok ({counts['ok'] / max(1, len(rows)):.1%})**, "
        f"{counts['refused']} are refused, {counts['wrong']} wrong, {counts['error']} ended otherwise. "
        f"Of {sums['']:,} layers with maps, the field of {sums['_equal']:,} equals what is measured, that of "
        f"{sums['_larger']:,} is larger and that of {sums['_null']:,} is null. "
        f"{datetime.date.today():%d %B %Y}; {_versions()}.\n"
    )
    for package in PACKAGES:
        own = [row for row in rows if row["package"] == package]
        if own:
            yield f"\n## {package}\n\n{HEADER}" + "".join(map(_format_row, own))
    failed = [row for row in rows if row["result"] != "ok"]
    if failed:
        yield "\n## Reasons\n\n| network | result | reason |\n|---|---|---|\n"
        yield from (f"| {row['name']} | {row['result']} | {_escape(row['reason'])} |\n" for row in failed)
    notes = [(row["name"], note) for row in rows for note in row["notes"]]
    if notes:
        yield "\n## Notes\n\n"
        yield from (f"- {name}: {note}; float64 agrees.\n" for name, note in notes)


def _format_row(row: dict[str, Any]) -> str:
    """Return the row of one network."""
    is_done = row["layers"] > 0
    fields = f"{row['fields_equal']}, {row['fields_larger']}, {row['fields_null']}" if row["fields"] else ""
    cells = [
        row["name"],
        row["result"],
        row["input"],
        f"{row['parameters'] / 1e6:.2f}" if is_done else "",
        str(row["layers"]) if is_done else "",
        fields,
        "yes" if row["rectify"] else "",
        f"{row['error']:.0e}" if row["error"] else "",
        f"{row['seconds']:.0f}",
        f"{row['megabytes']:,}",
    ]
    return f"| {' | '.join(cells)} |\n"


def _versions() -> str:
    names = ("torch", *(package for package in PACKAGES))
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def _escape(text: str) -> str:
    """Return a reason as one cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")[:600]
