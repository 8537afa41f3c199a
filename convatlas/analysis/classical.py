"""Classical operators and the units whose feature maps resemble them.

A feature map is correlated with the brightness, edges, corners and other features of the same image
(`correlate_maps`, `mean_correlations`). A match is reported only above a threshold and above what an
untrained network reaches as well (`match_units`).
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

from convatlas.analysis.feature_captions import FEATURE_CAPTIONS
from convatlas.analysis.kernels import pearson_correlation
from convatlas.analysis.sobel import SOBEL_DIAGONAL_DOWN, SOBEL_DIAGONAL_UP
from convatlas.records import FeatureMatch

MATCH_THRESHOLD = 0.5  # of |r|, for a match: a quarter of the variance is explained
MIN_MAP_SIZE = 4  # of a map's sides: with fewer than 16 cells something always correlates
BORDER_DIVISOR = 14  # the outermost 1/14 of a map on each side, where padding shows, does not count
BRIGHTNESS_TOLERANCE = 0.02  # a match that is better than brightness by less than this is brightness
MARGIN = 6  # pixels of padding: the Gaussian of Harris's detector reaches 4 pixels, and its derivative one

Size = tuple[int, ...]


@dataclass(frozen=True)
class ClassicalFeature:
    """A classical operator.

    Attributes:
        name: A key of FEATURE_CAPTIONS.
        compute: Maps brightness (H, W) float64 in 0..1 to the feature (H, W).
        bright_side: Of a signed feature, where the image is brighter if the feature is positive; describes
            the two halves, which are all that rectified maps can show.
    """

    name: str
    compute: Callable[[np.ndarray], np.ndarray]
    bright_side: str = ""

    @property
    def caption(self) -> str:
        """Its name in a caption."""
        return FEATURE_CAPTIONS[self.name]


def _diagonal_sobel(gray: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Compute a diagonal Sobel feature, divided by 4 as scikit-image's own Sobel features are."""
    feature: np.ndarray = correlate(gray, kernel / 4, mode="nearest")
    return feature


def _local_binary_pattern(gray: np.ndarray) -> np.ndarray:
    """Compute the rotation-invariant uniform pattern of 8 neighbours at radius 1.

    0..8 of the neighbours are at least as bright, or 9 if the pattern is not uniform. Brightness is rounded
    to 256 steps, because differences by rounding errors would be patterns. Ojala, Pietikäinen, Mäenpää,
    Multiresolution gray-scale and rotation invariant texture classification with local binary patterns,
    PAMI 24 (2002).
    """
    steps = np.round(255 * gray).astype(np.uint8)
    pattern: np.ndarray = local_binary_pattern(steps, P=8, R=1, method="uniform")
    return pattern


# Brightness is first, because erosion and dilation differ little from it: a map that is just the image must
# not be named after them. Corners are Harris's in Noble's measure, 2 det / trace, which is never negative
# and has no constant to choose.
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
    """Return the captions of all that maps are compared with: the features and the halves of signed ones."""
    captions: dict[str, str] = {}
    for name, feature in FEATURES.items():
        captions[name] = feature.caption
        if feature.bright_side:
            captions[f"{name}+"] = f"{feature.caption}, brighter {feature.bright_side}"
            captions[f"{name}-"] = f"{feature.caption}, darker {feature.bright_side}"
    return captions


COLUMN_CAPTIONS: dict[str, str] = _column_captions()


def compute_features(image: np.ndarray) -> dict[str, np.ndarray]:
    """Compute every classical feature of an image.

    Args:
        image: (H, W) or (C, H, W) in 0..1. Of three channels the brightness is the luminance (Rec. 709, as
            in scikit-image), of other numbers the mean. The image is extended beyond its border by the
            values there, so that the border is neither an edge nor a corner.

    Returns:
        The keys of FEATURES -> (H, W) float32, rounded to six decimals, so that a uniform image has no edges
        from rounding errors.
    """
    gray = np.clip(image, 0, 1).astype(np.float64)
    if gray.ndim == 3:
        gray = rgb2gray(gray, channel_axis=0) if len(gray) == 3 else gray.mean(axis=0)
    padded = np.pad(gray, MARGIN, mode="edge")
    inner = (slice(MARGIN, -MARGIN),) * 2
    return {
        name: np.round(feature.compute(padded)[inner], 6).astype(np.float32)
        for name, feature in FEATURES.items()
    }


@dataclass(frozen=True)
class MapGrid:
    """Where the cells of a feature map lie in the image, in pixels from the centre of its first pixel.

    Attributes:
        start: Centre of the first cell, (y, x).
        step: Distance between the centres of neighbouring cells, (y, x).
    """

    start: tuple[float, float] = (0.0, 0.0)
    step: tuple[float, float] = (1.0, 1.0)

    @classmethod
    def covering(cls, image: Size, size: Size) -> "MapGrid":
        """Return the grid of a map of a size (h, w) that covers an image (H, W) evenly.

        Args:
            image: Size (H, W) of the image in pixels.
            size: Size (h, w) of the map in cells.
        """
        y, x = (pixels / cells for pixels, cells in zip(image, size, strict=True))
        return cls(((y - 1) / 2, (x - 1) / 2), (y, x))


def resample_to_grid(values: np.ndarray, size: Size, grid: MapGrid | None = None) -> np.ndarray:
    """Reduce values to the cells of a map: the mean over a box of one step around the centre of each cell.

    The mean over boxes is the simplest filter against aliasing. It turns a Sobel feature into the coarser
    derivative across a cell, in which the two sides of a line cancel, as in a layer that is linear up to
    there. The mean of the halves of a Sobel feature keeps both sides, as a layer after a ReLU does.

    Args:
        values: (..., H, W).
        size: Size of the map, (h, w).
        grid: Where the cells lie; by default they cover the image evenly.

    Returns:
        (..., h, w).
    """
    grid = grid or MapGrid.covering(values.shape[-2:], size)
    rows, columns = (
        _box_weights(*axis) for axis in zip(values.shape[-2:], size, grid.start, grid.step, strict=True)
    )
    resampled: np.ndarray = rows @ values @ columns.T
    return resampled


def _box_weights(pixels: int, count: int, start: float, step: float) -> np.ndarray:
    """Return the weight of each pixel of a line in each cell, (cells, pixels); each row sums to 1."""
    # A cell that lies outside the image, by padding, is moved to the image's border.
    centre = np.clip(start + step * np.arange(count), 0, pixels - 1)[:, None]
    pixel = np.arange(pixels)
    low = np.maximum(centre - step / 2, pixel - 0.5)
    high = np.minimum(centre + step / 2, pixel + 0.5)
    overlap = np.maximum(high - low, 0)
    weights: np.ndarray = overlap / overlap.sum(axis=1, keepdims=True)
    return weights


def resample_columns(
    features: Mapping[str, np.ndarray], size: Size, grid: MapGrid | None = None
) -> dict[str, np.ndarray]:
    """Resample the features of an image, and the halves of signed ones, to the cells of a map.

    Args:
        features: The features of an image, as `compute_features` returns them.
        size: Size of the map, (h, w).
        grid: Where the cells lie; by default they cover the image evenly.

    Returns:
        The keys of COLUMN_CAPTIONS -> (h, w) float64. The halves of a signed feature f are max(f, 0),
        `<name>+`, and max(-f, 0), `<name>-`, rectified before they are resampled: a signed map correlates
        best with the feature, a map after a ReLU with one of the halves.
    """
    columns = []
    for column in COLUMN_CAPTIONS:
        name = column.rstrip("+-")
        sign = -1.0 if column.endswith("-") else 1.0
        values = sign * features[name].astype(np.float64)
        columns.append(values if column == name else np.maximum(values, 0))
    return dict(zip(COLUMN_CAPTIONS, resample_to_grid(np.stack(columns), size, grid), strict=True))


def correlate_maps(maps: np.ndarray, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Compute Pearson's r of each feature map with each classical feature.

    Args:
        maps: (units, h, w).
        columns: Features at the size of the maps, as `resample_columns` returns them.

    Returns:
        (units, columns) float32, signed; 0 where either side is constant or not finite. The outermost 1/14
        of a map on each side does not count: the zeros that pad an image look like its strongest edge.
    """
    height, width = maps.shape[1:]
    top, left = height // BORDER_DIVISOR, width // BORDER_DIVISOR
    rows = [
        array[:, top : height - top, left : width - left].reshape(len(array), -1)
        for array in (maps, np.stack(list(columns.values())))
    ]
    return pearson_correlation(*rows).astype(np.float32)


def mean_correlations(correlations: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean of correlations over images, (units, columns) float32.

    Args:
        correlations: One array (units, columns) per image; 0 for a unit that is inactive on the image.
    """
    mean = np.mean(correlations, axis=0, dtype=np.float64)
    return np.asarray(mean, np.float32)


def find_best_columns(correlation: np.ndarray) -> np.ndarray:
    """Return the number of the column that each unit correlates with most strongly, (units,).

    Args:
        correlation: Correlations (units, columns); the first column is brightness.

    Returns:
        The column of the largest `|r|`; brightness if its `|r|` is smaller by at most BRIGHTNESS_TOLERANCE.
    """
    magnitude = np.abs(correlation)
    is_brightness = magnitude[:, 0] >= magnitude.max(axis=1) - BRIGHTNESS_TOLERANCE
    return np.where(is_brightness, 0, magnitude.argmax(axis=1))


def match_units(
    correlation: np.ndarray, baseline: float, threshold: float = MATCH_THRESHOLD
) -> list[FeatureMatch | None]:
    """Return the classical feature that each unit resembles.

    Args:
        correlation: Mean correlations over images, (units, columns).
        baseline: What `|r|` must exceed, see `untrained_baseline`.
        threshold: What `|r|` must reach.

    Returns:
        The feature of the largest `|r|` of each unit; None if `|r|` is less than the threshold or does not
        exceed the baseline.
    """
    names = list(COLUMN_CAPTIONS)
    matches: list[FeatureMatch | None] = []
    for row, column in zip(correlation, find_best_columns(correlation), strict=True):
        name, r = names[column], float(row[column])
        match: FeatureMatch = {"feature": name, "description": COLUMN_CAPTIONS[name], "r": r}
        matches.append(match if abs(r) >= threshold and abs(r) > baseline else None)
    return matches


def untrained_baseline(correlation: np.ndarray) -> float:
    """Return the 95th percentile, over the units of an untrained network, of their largest `|r|`.

    One baseline serves all columns, because the best of all columns is reported: a quarter of an untrained
    network's units, not a twentieth, would exceed one of their own columns' baselines.

    Args:
        correlation: Mean correlations of the untrained network, (units, columns).
    """
    return float(np.percentile(np.abs(correlation).max(axis=1), 95))
