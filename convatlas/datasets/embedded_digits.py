"""A stand-in for MNIST that needs no download: scikit-learn's handwritten digits in MNIST's style."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from convatlas.datasets.idx import write_idx

TEST_COUNT = 360  # test images; the other 1,437 are training images
DIGIT_SIDE, IMAGE_SIDE = 20, 28  # pixels of a digit's longer side, and of the image


def write_embedded_digits(raw: Path, split_files: Mapping[str, tuple[str, str]]) -> None:
    """Write scikit-learn's digits as idx files in MNIST's style, each class split in the same proportion.

    Args:
        raw: The folder to write the files into.
        split_files: The names of the images' and the labels' file of the splits "train" and "test".
    """
    from sklearn.datasets import load_digits  # noqa: PLC0415  a second to import, here only
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    digits = load_digits()
    images = np.stack([convert_to_mnist_style(image) for image in digits.images])
    train, test = train_test_split(
        np.arange(len(images)), test_size=TEST_COUNT, stratify=digits.target, random_state=0
    )
    for split, indices in {"train": train, "test": test}.items():
        images_name, labels_name = split_files[split]
        write_idx(raw / images_name, images[indices])
        write_idx(raw / labels_name, digits.target[indices])


def convert_to_mnist_style(digit: np.ndarray) -> np.ndarray:
    """Enlarge a digit to MNIST's style.

    It is enlarged tenfold with a cubic spline, its contrast is raised with a smoothstep curve, and it is
    cropped, reduced so that its longer side takes 20 pixels, and centred by mass.

    Args:
        digit: A digit of scikit-learn's: (8, 8), values from 0 to 16.

    Returns:
        The image (28, 28) uint8, bright on dark.
    """
    from scipy import ndimage  # noqa: PLC0415

    large = ndimage.zoom(np.pad(digit / 16, 1), 10, order=3, mode="grid-constant", grid_mode=True)
    large = np.clip((large - 0.35) / 0.3, 0, 1)
    large = large * large * (3 - 2 * large)  # smoothstep
    rows, columns = (np.flatnonzero(large.max(axis=axis)) for axis in (1, 0))
    large = large[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = DIGIT_SIDE / max(large.shape)
    height, width = (max(1, round(side * scale)) for side in large.shape)
    reduced = Image.fromarray(large.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    return _centre_by_mass(np.asarray(reduced), IMAGE_SIDE)


def _centre_by_mass(image: np.ndarray, side: int) -> np.ndarray:
    """Place an image of values 0..1 with its centre of mass in the middle of (side, side) uint8."""
    canvas = np.zeros((3 * side, 3 * side))
    centre = [
        float((image.sum(axis=1 - axis) * np.arange(length)).sum() / image.sum())
        for axis, length in enumerate(image.shape)
    ]
    top, left = (round(1.5 * side - 0.5 - position) for position in centre)
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return np.round(255 * canvas[side : 2 * side, side : 2 * side]).astype(np.uint8)
