"""What the page of a network's correspondence shows: a chart and a table by layer, and occluded images."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from convatlas.gallery.line_chart import Axis, LineChart, Series, draw_line_chart
from convatlas.gallery.network_data import NetworkData
from convatlas.names import join_names, title_images
from convatlas.records import CorrespondenceAnalysis, CorrespondenceLayer

WEBP_QUALITY = 70
BAND = (0.025, 0.975)  # quantiles of the draws
MAX_NAMED_LAYERS = 3
ROWS = ("unchanged", "head occluded", "random place occluded")


@dataclass(frozen=True)
class LayerRow:
    """A layer in the table.

    Attributes:
        entry: Its entry of correspondence.json.
        part: Mean sign distance over the sets, with the part occluded.
        part_std: Standard deviation over the sets; None of one set.
        random: Mean over the sets and draws, with random places occluded.
        interval: The central 95 % of the draws, of the mean over the sets.
        moved_difference: Mean of moved boxes less the part's, over the sets that have them; None without any.
        is_corresponding: Whether features change more similarly for the part than for random places and for
            moved boxes, as far as these exist.
    """

    entry: CorrespondenceLayer
    part: float
    part_std: float | None
    random: float
    interval: tuple[float, float]
    moved_difference: float | None
    is_corresponding: bool


@dataclass(frozen=True)
class CorrespondenceData:
    """The correspondence of a network.

    Attributes:
        network: The network.
        analysis: correspondence.json.
    """

    network: NetworkData
    analysis: CorrespondenceAnalysis

    @cached_property
    def rows(self) -> list[LayerRow]:
        """The layers whose values are finite, from early to late."""
        return [
            self._make_row(entry)
            for entry in self.analysis["layers"]
            if entry["name"] not in self.analysis["non_finite"]
        ]

    def _make_row(self, entry: CorrespondenceLayer) -> LayerRow:
        """Return a layer's row."""
        arrays, name, limit = (
            self.network.results.correspondence_arrays,
            entry["name"],
            self.analysis["significance"],
        )
        part, random, moved = (arrays[f"{name}@{kind}"].astype(float) for kind in ("part", "random", "moved"))
        low, high = np.quantile(random.mean(0), BAND).tolist()
        has_moved = ~np.isnan(moved).any(1)
        difference = float((moved[has_moved].mean(1) - part[has_moved]).mean()) if has_moved.any() else None
        return LayerRow(
            entry,
            float(part.mean()),
            float(part.std(ddof=1)) if len(part) > 1 else None,
            float(random.mean()),
            (low, high),
            difference,
            entry["p_value"] <= limit and (difference is None or entry["moved_p_value"] <= limit),
        )

    @cached_property
    def image_titles(self) -> list[str]:
        """Titles of the images of the first set."""
        images = [entry["image"] for entry in self.analysis["sets"][0]]
        titles = title_images(images, self.network.description)
        return [titles[image["name"]] for image in images]

    @property
    def sheet_file(self) -> str:
        """The place in the site of the picture of the first set."""
        return f"correspondence/{self.network.name}.webp"

    @cached_property
    def sheet(self) -> tuple[bytes, tuple[int, int]]:
        """The picture of the first set, a row per kind and a column per image, and the size of an image."""
        images = self.network.results.correspondence_arrays["images"]
        kinds, count, channels, height, width = images.shape
        pixels = images.transpose(0, 3, 1, 4, 2).reshape(kinds * height, count * width, channels)
        buffer = io.BytesIO()
        rgb = np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
        Image.fromarray(rgb).save(buffer, "webp", quality=WEBP_QUALITY, method=6)
        return buffer.getvalue(), (width, height)

    def draw_chart(self) -> LineChart:
        """Draw the sign distance by layer, of the head and of random places."""
        rows = self.rows
        positions = list(range(1, len(rows) + 1))
        stds = [row.part_std or 0.0 for row in rows]
        part = [row.part for row in rows]
        series = [
            Series(
                "random places",
                [row.random for row in rows],
                7,
                [row.interval[0] for row in rows],
                [row.interval[1] for row in rows],
                dashed=True,
            ),
            Series(
                "head",
                part,
                0,
                [value - std for value, std in zip(part, stds, strict=True)],
                [value + std for value, std in zip(part, stds, strict=True)],
            ),
        ]
        alt = "; ".join(
            f"{row.entry['name']}: head {row.part:.3f}, random places {row.random:.3f}" for row in rows
        )
        ticks = [(float(n), str(n)) for n in positions]
        return draw_line_chart(
            series, positions, Axis("layer, from early to late", ticks=ticks), Axis("sign distance"), alt
        )


def summarise(network: NetworkData) -> str:
    """Return the result of a network's analysis in one sentence.

    Args:
        network: A network with the analysis.
    """
    analysis = network.results.correspondence
    if analysis is None:
        return "Not computed."
    if analysis["undefined"]:
        return f"Not defined for this network: {analysis['undefined']}."
    return describe_rows(CorrespondenceData(network, analysis).rows)


def describe_rows(rows: Sequence[LayerRow]) -> str:
    """Say in which layers features change more similarly for the part than for its controls.

    Args:
        rows: The layers.
    """
    corresponding = [row for row in rows if row.is_corresponding]
    if not corresponding:
        return (
            "In no layer do features change more similarly as the head is occluded than as other places are."
        )
    best = min(corresponding, key=lambda row: row.part - row.random)
    names = [row.entry["name"] for row in corresponding]
    where = join_names(names) if len(names) <= MAX_NAMED_LAYERS else f"{len(names)} of {len(rows)} layers"
    numbers = f"a sign distance of {best.part:.3f} against {best.random:.3f}"
    return (
        f"In {where} features change more similarly as the head is occluded than as other places are: most "
        f"in the layer {best.entry['name']}, with {numbers}."
    )
