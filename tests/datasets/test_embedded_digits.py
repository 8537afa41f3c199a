"""The embedded digits: complete, split by class, and in MNIST's style."""

from pathlib import Path

import numpy as np
import pytest

from convatlas.datasets.formats import load
from convatlas.pixels import GREY, RGB
from tests.support.mnist_source import prepare_mnist, read_split


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedded")
    prepare_mnist(folder, "embedded")
    return folder


@pytest.fixture(scope="module")
def digits(embedded: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The images and labels of the training split, then those of the test split."""
    return *read_split(embedded, "train"), *read_split(embedded, "test")


def test_all_digits_are_embedded(digits: tuple[np.ndarray, ...]) -> None:
    train_images, train_labels, test_images, test_labels = digits
    assert len(train_images) + len(test_images) == 1797
    for images, labels in ((train_images, train_labels), (test_images, test_labels)):
        assert (images.dtype, images.shape) == (np.uint8, (len(labels), 1, 28, 28))
        assert labels.dtype == np.int64
        assert set(labels.tolist()) == set(range(10))


def test_embedded_digits_are_split_by_class(digits: tuple[np.ndarray, ...]) -> None:
    _, train_labels, _, test_labels = digits
    share = len(test_labels) / 1797
    for digit in range(10):
        test_count = sum(label == digit for label in test_labels.tolist())
        train_count = sum(label == digit for label in train_labels.tolist())
        assert abs(test_count - share * (test_count + train_count)) <= 1


def test_no_embedded_digit_is_in_both_splits(digits: tuple[np.ndarray, ...]) -> None:
    train, test = ({image.tobytes() for image in images} for images in (digits[0], digits[2]))
    assert not train & test
    assert len(train) + len(test) == 1797


def test_embedded_digits_are_sized_and_centred_as_mnists_are(digits: tuple[np.ndarray, ...]) -> None:
    for image in np.concatenate([digits[0], digits[2]])[:, 0]:
        rows = [y for y in range(28) if any(image[y])]
        columns = [x for x in range(28) if any(image[:, x])]
        assert max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1 == 20
        weights = image.astype(float)
        y, x = np.average(np.indices((28, 28)), axis=(1, 2), weights=np.stack([weights, weights]))
        assert max(abs(y - 13.5), abs(x - 13.5)) <= 1
        assert image.max() > 200


def test_embedded_digits_look_like_scikit_learns(digits: tuple[np.ndarray, ...]) -> None:
    """The mean image of each class correlates most with the mean original of this class."""
    from sklearn.datasets import load_digits  # noqa: PLC0415  a second to import

    originals = load_digits()
    images, labels = np.concatenate([digits[0], digits[2]])[:, 0], np.concatenate([digits[1], digits[3]])
    assert np.bincount(labels).tolist() == np.bincount(originals.target).tolist()
    means = [images[labels == c, 4:24, 4:24].mean(0).reshape(4, 5, 4, 5).mean((1, 3)) for c in range(10)]
    expected = [
        originals.images[originals.target == c].mean(0).reshape(4, 2, 4, 2).mean((1, 3)) for c in range(10)
    ]
    correlations = np.corrcoef([m.ravel() for m in means + expected])[:10, 10:]
    assert correlations.argmax(1).tolist() == list(range(10))


def test_embedded_digits_are_the_same_twice(embedded: Path, tmp_path: Path) -> None:
    prepare_mnist(tmp_path, "embedded")
    names = sorted(path.relative_to(embedded) for path in embedded.rglob("*") if path.is_file())
    assert len(names) == 5
    for name in names:
        assert (embedded / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_torchvision_reads_embedded_digits(embedded: Path, digits: tuple[np.ndarray, ...]) -> None:
    from torchvision.datasets import MNIST  # noqa: PLC0415  seconds to import

    for train in (True, False):
        dataset = MNIST(root=embedded, train=train, download=False)
        images, labels = digits[:2] if train else digits[2:]
        np.testing.assert_array_equal(dataset.data.numpy(), images[:, 0])
        np.testing.assert_array_equal(dataset.targets.numpy(), labels)


def test_images_are_returned_as_stored(embedded: Path) -> None:
    dataset = load(embedded, "test")
    stored = dataset.read_images(GREY, (64, 64), "stretch")
    assert len(dataset) == len(stored) == len(dataset.labels) == len(set(dataset.names)) == 360
    assert dataset.paths == [None] * 360
    assert not dataset.has_image_files
    for pixel_format in (GREY, RGB):
        channels = pixel_format.channels
        pixels = dataset.read_images(pixel_format, (224, 224), 256, [7, 0, 7])
        assert (pixels.shape, pixels.dtype) == ((3, channels, 28, 28), np.uint8)
        np.testing.assert_array_equal(pixels, stored[[7, 0, 7]].repeat(channels, 1))
        image = dataset.read_pixels(7, pixel_format)
        assert (image.shape, image.dtype) == ((28, 28, channels), np.uint8)
        np.testing.assert_array_equal(image.transpose(2, 0, 1), pixels[0])
    assert dataset.read_images(RGB, (28, 28), 28, []).shape == (0, 3, 28, 28)
