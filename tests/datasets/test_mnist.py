"""The idx format, and the embedded digits."""

from pathlib import Path

import numpy as np
import pytest

from convatlas import UserError
from convatlas.datasets.formats import load
from convatlas.datasets.idx import read_idx, write_idx
from tests.datasets.test_formats import FILES, PACKED, RNG, idx, make, read

# The idx format


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4), (1, 2, 3, 4), (0, 28, 28), (300,)])
def test_idx_files_are_written_and_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = RNG.integers(0, 256, shape, np.uint8)
    write_idx(tmp_path / "written", array)
    assert (tmp_path / "written").read_bytes() == idx(array)
    (tmp_path / "by hand").write_bytes(idx(array))
    found = read_idx(tmp_path / "by hand")
    assert (found.dtype, found.shape) == (np.uint8, shape)
    np.testing.assert_array_equal(found, array)


def test_idx_values_of_a_transposed_array_are_in_reading_order(tmp_path: Path) -> None:
    write_idx(tmp_path / "a", np.array([[1, 2, 3], [4, 5, 6]]).T)
    assert (tmp_path / "a").read_bytes() == bytes([0, 0, 8, 2, 0, 0, 0, 3, 0, 0, 0, 2, 1, 4, 2, 5, 3, 6])


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "not an idx file"),
        (bytes([0, 0, 8]), "not an idx file"),
        (bytes([0, 1, 8, 1, 0, 0, 0, 1, 7]), "not an idx file"),
        (bytes([0, 0, 13, 1, 0, 0, 0, 1, 7, 7, 7, 7]), "not an idx file"),
        (bytes([0, 0, 8, 0, 7]), "not an idx file"),
        (PACKED["t10k-labels-idx1-ubyte.gz"], "not an idx file"),
        (FILES["t10k-images-idx3-ubyte"][:4], "truncated"),
        (FILES["t10k-images-idx3-ubyte"][:15], "truncated"),
        (FILES["t10k-images-idx3-ubyte"][:16], "truncated"),
        (FILES["t10k-images-idx3-ubyte"][:-1], "truncated"),
        (FILES["t10k-images-idx3-ubyte"] + b"x", "altered"),
        (bytes([0, 0, 8, 4, *[255] * 16]), "truncated"),
    ],
)
def test_a_file_that_is_no_whole_idx_file_is_reported(tmp_path: Path, content: bytes, fault: str) -> None:
    (tmp_path / "some-file").write_bytes(content)
    with pytest.raises(UserError, match=f"some-file.*{fault}"):
        read_idx(tmp_path / "some-file")


def test_a_missing_idx_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="some-file"):
        read_idx(tmp_path / "some-file")


# Embedded digits


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedded")
    make(folder, "embedded")
    return folder


@pytest.fixture(scope="module")
def digits(embedded: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images and labels to train on, images and labels to test on."""
    return *read(embedded, "train"), *read(embedded, "test")


def test_embedded_digits_are_all_there(digits: tuple[np.ndarray, ...]) -> None:
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
        tested = sum(label == digit for label in test_labels.tolist())
        trained = sum(label == digit for label in train_labels.tolist())
        assert abs(tested - share * (tested + trained)) <= 1


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
    """Each class's mean image resembles the mean of the originals more than those of other classes."""
    from sklearn.datasets import load_digits  # noqa: PLC0415  a second to import

    originals = load_digits()
    images, labels = np.concatenate([digits[0], digits[2]])[:, 0], np.concatenate([digits[1], digits[3]])
    assert np.bincount(labels).tolist() == np.bincount(originals.target).tolist()
    ours = [images[labels == c, 4:24, 4:24].mean(0).reshape(4, 5, 4, 5).mean((1, 3)) for c in range(10)]
    theirs = [
        originals.images[originals.target == c].mean(0).reshape(4, 2, 4, 2).mean((1, 3)) for c in range(10)
    ]
    likeness = np.corrcoef([m.ravel() for m in ours + theirs])[:10, 10:]
    assert likeness.argmax(1).tolist() == list(range(10))


def test_embedded_digits_are_the_same_twice(embedded: Path, tmp_path: Path) -> None:
    make(tmp_path, "embedded")
    names = sorted(path.relative_to(embedded) for path in embedded.rglob("*") if path.is_file())
    assert len(names) == 5
    for name in names:
        assert (embedded / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_torchvision_reads_embedded_digits(embedded: Path, digits: tuple[np.ndarray, ...]) -> None:
    from torchvision.datasets import MNIST  # noqa: PLC0415  seconds to import

    for train in (True, False):
        found = MNIST(root=embedded, train=train, download=False)
        images, labels = digits[:2] if train else digits[2:]
        np.testing.assert_array_equal(found.data.numpy(), images[:, 0])
        np.testing.assert_array_equal(found.targets.numpy(), labels)


def test_examples_of_mnist(embedded: Path) -> None:
    examples = load(embedded, "test")
    stored = examples.read_images("L", 64, "stretch")
    assert len(examples) == len(stored) == len(examples.labels) == len(set(examples.names)) == 360
    assert examples.paths == [None] * 360
    for mode, channels in {"L": 1, "RGB": 3}.items():
        chosen = examples.read_images(mode, 224, 256, [7, 0, 7])
        assert (chosen.shape, chosen.dtype) == ((3, channels, 28, 28), np.uint8)
        np.testing.assert_array_equal(chosen, stored[[7, 0, 7]].repeat(channels, 1))
        picture = examples.read_image(7, mode)
        assert (picture.mode, picture.size) == (mode, (28, 28))
        np.testing.assert_array_equal(np.atleast_3d(picture).transpose(2, 0, 1), chosen[0])
    assert examples.read_images("RGB", 28, 28, []).shape == (0, 3, 28, 28)
