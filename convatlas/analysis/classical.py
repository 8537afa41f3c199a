"""Classical operators beside learned ones: what a unit's map resembles.

A map is correlated with brightness, edges, corners and more of the same image (`correlations`, `pooled`).
A match is claimed only above a threshold and above what an untrained network reaches too (`matches`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.ndimage import correlate
from skimage.color import rgb2gray
from skimage.feature import corner_harris, local_binary_pattern
from skimage.filters import laplace, sobel
from skimage.morphology import dilation, erosion

from convatlas.analysis.features import FEATURE_CAPTIONS
from convatlas.analysis.kernels import pearson_correlation
from convatlas.analysis.sobel import SOBEL_DIAGONAL_DOWN, SOBEL_DIAGONAL_UP

MATCH_THRESHOLD = 0.5  # of |r|, below which no match is claimed: a quarter of the variance
MIN_MAP_SIZE = 4  # of a map's sides: with fewer than 16 cells something always fits
BORDER_DIVISOR = 14  # a map's outermost 1/14 on each side, where padding shows, does not count
BRIGHTNESS_TOLERANCE = 0.02  # what differs less from brightness is brightness, the plainest word

Size = tuple[int, int]


@dataclass(frozen=True)
class ClassicalFeature:
    """A classical operator: its name, a key of WORDS, and how it is computed.

    `of` maps brightness (H, W), float64 in 0..1, to (H, W). `toward` is for a signed one: where it is
    brighter when positive, so that the two halves, which are all that rectified maps can show, have words.
    """

    name: str
    compute: Callable[[np.ndarray], np.ndarray]
    bright_side: str = ""

    @property
    def caption(self) -> str:
        """What it is called in a caption."""
        return FEATURE_CAPTIONS[self.name]


def _diagonal_sobel(gray: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return correlate(gray, kernel / 4, mode="nearest")  # over 4, as scikit-image's own Sobel


def _local_binary_pattern(gray: np.ndarray) -> np.ndarray:
    """The rotation-invariant uniform pattern of 8 neighbours at radius 1: 0..8 of them as bright, or 9.

    In 256 steps of brightness, for differences by rounding would be patterns.
    Ojala, Pietikäinen, Mäenpää, Multiresolution gray-scale and rotation invariant texture
    classification with local binary patterns, PAMI 24 (2002).
    """
    return local_binary_pattern(np.round(255 * gray).astype(np.uint8), P=8, R=1, method="uniform")


# Brightness comes first, the rival of all others: erosion and dilation show little but bright and dark, and
# a map that is just the image must not be called after them. Harris's corners are in Noble's measure,
# 2 det/trace: nowhere negative, so that nothing else than a corner is one, and with no constant to choose.
FEATURES: dict[str, ClassicalFeature] = {
    feature.name: feature
    for feature in (
        ClassicalFeature("brightness", np.asarray),
        ClassicalFeature("sobel_x", partial(sobel, axis=1), "to the right"),
        ClassicalFeature("sobel_y", partial(sobel, axis=0), "below"),
        ClassicalFeature(
            "sobel_diagonal_down", partial(_diagonal_sobel, kernel=SOBEL_DIAGONAL_DOWN), "to the lower right"
        ),
        ClassicalFeature(
            "sobel_diagonal_up", partial(_diagonal_sobel, kernel=SOBEL_DIAGONAL_UP), "to the upper right"
        ),
        ClassicalFeature("sobel_magnitude", sobel),
        ClassicalFeature("laplacian", laplace, "than around it"),
        ClassicalFeature("harris", partial(corner_harris, method="eps", eps=1e-6, sigma=1)),
        ClassicalFeature("erosion", partial(erosion, footprint=np.ones((3, 3)))),
        ClassicalFeature("dilation", partial(dilation, footprint=np.ones((3, 3)))),
        ClassicalFeature("lbp", _local_binary_pattern),
    )
}


def _column_captions() -> dict[str, str]:
    """What maps are compared with, and its words: the features and the halves of signed ones."""
    words: dict[str, str] = {}
    for name, feature in FEATURES.items():
        words[name] = feature.caption
        if feature.bright_side:
            words[f"{name}+"] = f"{feature.caption}, brighter {feature.bright_side}"
            words[f"{name}-"] = f"{feature.caption}, darker {feature.bright_side}"
    return words


COLUMN_CAPTIONS: dict[str, str] = _column_captions()


def compute_features(image: np.ndarray) -> dict[str, np.ndarray]:
    """Compute every feature of an image (H, W) or (C, H, W) in 0..1, each (H, W) float32.

    Three channels count by their luminance (Rec. 709, as in scikit-image), others by their mean. The
    image goes on past its border as it ends there, so that the border itself is neither edge nor corner.
    """
    gray = np.clip(image, 0, 1).astype(np.float64)
    if gray.ndim == 3:
        gray = rgb2gray(gray, channel_axis=0) if len(gray) == 3 else gray.mean(axis=0)
    margin = 6  # Harris's Gaussian reaches 4 pixels and its derivative one
    wide = np.pad(gray, margin, mode="edge")
    inner = (slice(margin, -margin),) * 2
    # Six decimals, so that a flat image has no edges made of rounding.
    return {name: np.round(f.compute(wide)[inner], 6).astype(np.float32) for name, f in FEATURES.items()}


@dataclass(frozen=True)
class MapGrid:
    """Where a map's cells lie in the image: the first one's centre and the step, (y, x) in pixels.

    Centres count from that of the image's first pixel, so that the image's own grid is `Grid()`.
    """

    start: tuple[float, float] = (0.0, 0.0)
    step: tuple[float, float] = (1.0, 1.0)

    @classmethod
    def covering(cls, image: Size, size: Size) -> "MapGrid":
        """A map that covers the image evenly, for want of something better known."""
        step = tuple(whole / cells for whole, cells in zip(image, size, strict=True))
        return cls(tuple((s - 1) / 2 for s in step), step)


def resample_to_grid(values: np.ndarray, size: Size, grid: MapGrid | None = None) -> np.ndarray:
    """Reduce (..., H, W) to a map's cells (..., h, w): the mean over the box of a step around each centre.

    `grid` says where the cells are; without it the map is taken to cover the image evenly. The mean
    over boxes is the plainest filter against aliasing; it makes of a Sobel the coarser derivative
    across a cell, in which the two sides of a line cancel, as in a layer that is linear up to there.
    The mean of a Sobel's halves keeps both, as a layer does that rectifies first: see `cells`.
    """
    grid = grid or MapGrid.covering(values.shape[-2:], size)
    down, across = (
        _box_weights(*axis) for axis in zip(values.shape[-2:], size, grid.start, grid.step, strict=True)
    )
    return down @ values @ across.T


def _box_weights(pixels: int, count: int, start: float, step: float) -> np.ndarray:
    """The share of each pixel in each cell, (cells, pixels); each row sums to 1."""
    # A cell that padding put outside the image is moved to its border.
    centre = np.clip(start + step * np.arange(count), 0, pixels - 1)[:, None]
    pixel = np.arange(pixels)
    low = np.maximum(centre - step / 2, pixel - 0.5)
    high = np.minimum(centre + step / 2, pixel + 0.5)
    overlap = np.maximum(high - low, 0)
    return overlap / overlap.sum(axis=1, keepdims=True)


def resample_columns(
    image: Mapping[str, np.ndarray], size: Size, grid: MapGrid | None = None
) -> dict[str, np.ndarray]:
    """Give all that a map (h, w) is compared with, of one image's `features`: COLUMNS -> (h, w) float64.

    That is each feature and, of signed ones, max(f, 0) as `<name>+` and max(−f, 0) as `<name>-`, rectified
    before the reduction. A signed map is nearest to the whole, one behind a ReLU to one of the halves.
    """
    parts = []
    for column in COLUMN_CAPTIONS:
        name = column.rstrip("+-")
        sign = -1.0 if column.endswith("-") else 1.0
        values = sign * image[name].astype(np.float64)
        parts.append(values if column == name else np.maximum(values, 0))
    return dict(zip(COLUMN_CAPTIONS, resample_to_grid(np.stack(parts), size, grid), strict=True))


def correlate_maps(maps: np.ndarray, classical: Mapping[str, np.ndarray]) -> np.ndarray:
    """Pearson's r of each map (units, h, w) with each of the `cells` (h, w): (units, columns) float32.

    Signed; 0 where either is constant or not finite. The outermost 1/14 on each side does not count: zeros
    that pad an image look like its strongest edge there.
    """
    height, width = maps.shape[1:]
    top, left = height // BORDER_DIVISOR, width // BORDER_DIVISOR
    flat = [
        array[:, top : height - top, left : width - left].reshape(len(array), -1)
        for array in (maps, np.stack(list(classical.values())))
    ]
    return pearson_correlation(*flat).astype(np.float32)


def mean_correlations(images: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of the images' correlations, each (units, columns).

    An image on which a unit is silent counts as 0: it is no evidence for any word.
    """
    return np.mean(images, axis=0, dtype=np.float64).astype(np.float32)


def layer_correlations(
    maps: Sequence[np.ndarray], images: Sequence[Mapping[str, np.ndarray]], grid: MapGrid | None = None
) -> np.ndarray | None:
    """Pool a layer's correlations over images: (units, columns), or None for maps smaller than 4 × 4.

    `maps` holds (units, h, w) and `images` the `features` of each image, at its own size; `grid` is as in
    `at_size`.
    """
    if min(maps[0].shape[1:]) < MIN_MAP_SIZE:
        return None
    return mean_correlations(
        [correlate_maps(m, resample_columns(f, m.shape[1:], grid)) for m, f in zip(maps, images, strict=True)]
    )


@dataclass(frozen=True)
class FeatureMatch:
    """What a unit's maps resemble: a key of COLUMNS, the pooled r, and the r that it had to beat."""

    feature: str
    correlation: float
    baseline: float

    @property
    def base_feature(self) -> str:
        """The key of FEATURES to draw beside the map: a half's whole."""
        return self.feature.rstrip("+-")


def find_best_columns(correlation: np.ndarray) -> np.ndarray:
    """The column of the largest |r| of each unit, (units,); brightness where that is as good, to 0.02."""
    size = np.abs(correlation)
    return np.where(size[:, 0] >= size.max(axis=1) - BRIGHTNESS_TOLERANCE, 0, size.argmax(axis=1))


def match_units(
    correlation: np.ndarray, baseline: float, threshold: float = MATCH_THRESHOLD
) -> list[FeatureMatch | None]:
    """Name what each unit of (units, columns) resembles most, by |r|.

    None for what is not claimed: what is below the threshold, or not above the baseline.
    """
    names = list(COLUMN_CAPTIONS)
    found: list[FeatureMatch | None] = []
    for row, column in zip(correlation, find_best_columns(correlation), strict=True):
        value = float(row[column])
        claimed = abs(value) >= threshold and abs(value) > baseline
        found.append(FeatureMatch(names[column], value, baseline) if claimed else None)
    return found


def untrained_baseline(untrained: np.ndarray) -> float:
    """The 95th percentile, over an untrained network's units, of their best |r|: (units, columns).

    One for all columns, for the best of all is what is claimed: one for each column would be beaten
    by a quarter of an untrained network's units, not by a twentieth.
    """
    return float(np.percentile(np.abs(untrained).max(axis=1), 95))


def format_match(match: FeatureMatch, rival: str = "untrained") -> str:
    """Words for a caption: `vertical edge, r = 0.83 (untrained 0.41)`."""
    sign = "−" if match.correlation < 0 else ""
    return f"{COLUMN_CAPTIONS[match.feature]}, r = {sign}{abs(match.correlation):.2f} ({rival} {match.baseline:.2f})"
