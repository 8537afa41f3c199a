"""Data sets as such, and MNIST from a directory that is right or wrong."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from convatlas import UserError
from convatlas.datasets.formats import describe, load, prepare

KEY = "datasets.d.source"
RNG = np.random.default_rng(0)
ARRAYS = {
    "train-images-idx3-ubyte": RNG.integers(0, 256, (12, 28, 28), np.uint8),
    "train-labels-idx1-ubyte": np.arange(12, dtype=np.uint8) % 10,
    "t10k-images-idx3-ubyte": RNG.integers(0, 256, (5, 28, 28), np.uint8),
    "t10k-labels-idx1-ubyte": np.array([3, 1, 4, 1, 5], np.uint8),
}


def idx(array: np.ndarray) -> bytes:
    """Pack unsigned bytes as the idx format has them."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", n) for n in array.shape)
    return header + bytes(array.ravel().tolist())


FILES = {name: idx(array) for name, array in ARRAYS.items()}
PACKED = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in FILES.items()}


def make(folder: Path | str, source: str, mirrors: list[str] | None = None) -> None:
    prepare(folder, {"format": "mnist", "source": source, "mirrors": mirrors or []}, "datasets.d")


def read(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The images (N, 1, H, W) and labels (N,) of a split."""
    examples = load(folder, split)
    return examples.read_images("L", 28, 28), examples.labels


def lay_out(folder: Path, files: dict[str, bytes]) -> Path:
    (folder / "MNIST/raw").mkdir(parents=True)
    for name, content in files.items():
        (folder / "MNIST/raw" / name).write_bytes(content)
    return folder


def assert_made(folder: Path) -> None:
    """Check that the folder holds ARRAYS, and nothing besides."""
    for split, prefix in {"train": "train", "test": "t10k"}.items():
        images, labels = read(folder, split)
        np.testing.assert_array_equal(images[:, 0], ARRAYS[f"{prefix}-images-idx3-ubyte"])
        np.testing.assert_array_equal(labels, ARRAYS[f"{prefix}-labels-idx1-ubyte"])
    assert {path.name for path in folder.iterdir()} == {"MNIST", "dataset.json"}
    assert {path.name for path in (folder / "MNIST").rglob("*")} == {"raw", *FILES}


@pytest.mark.parametrize("name", ["mnits", "pets"])
def test_an_unknown_format_is_reported(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        UserError, match=f"datasets.d.format: unknown '{name}'.*mnist, oxford-iiit-pet, images"
    ):
        prepare(tmp_path / "made", {"format": name}, "datasets.d")
    assert not (tmp_path / "made").exists()


def test_a_data_set_that_is_not_made_is_reported(tmp_path: Path) -> None:
    for ask in (lambda: describe(tmp_path), lambda: load(tmp_path, "train")):
        with pytest.raises(UserError, match=r"dataset\.json is missing"):
            ask()


# A directory


def test_plain_files_of_a_directory_are_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = lay_out(tmp_path / "theirs", FILES)
    monkeypatch.chdir(tmp_path)
    make("made/d", "theirs")
    monkeypatch.chdir("/")
    assert_made(tmp_path / "made/d")
    for name in FILES:
        made = tmp_path / "made/d/MNIST/raw" / name
        assert made.is_symlink()
        assert made.samefile(source / "MNIST/raw" / name)


def test_gzipped_files_of_a_directory_are_unpacked(tmp_path: Path) -> None:
    source = lay_out(tmp_path / "theirs", PACKED)
    make(tmp_path / "made", str(source))
    assert_made(tmp_path / "made")
    assert not any(path.is_symlink() for path in (tmp_path / "made").rglob("*"))


def test_plain_and_gzipped_files_may_be_mixed(tmp_path: Path) -> None:
    packed = [name for name in PACKED if name.startswith("t10k")]
    plain = [name for name in FILES if name.startswith("train")]
    source = lay_out(tmp_path / "theirs", {n: PACKED[n] for n in packed} | {n: FILES[n] for n in plain})
    make(tmp_path / "made", str(source))
    assert_made(tmp_path / "made")
    links = [path.name for path in (tmp_path / "made/MNIST/raw").iterdir() if path.is_symlink()]
    assert sorted(links) == sorted(plain)


def test_a_data_set_describes_itself(tmp_path: Path) -> None:
    make(tmp_path / "made", str(lay_out(tmp_path / "theirs", PACKED)))
    found = describe(tmp_path / "made")
    assert found["classes"] == [str(digit) for digit in range(10)]
    assert found["image_shape"] == [1, 28, 28]
    for split, prefix in {"train": "train", "test": "t10k"}.items():
        labels = ARRAYS[f"{prefix}-labels-idx1-ubyte"].tolist()
        assert found["counts"][split] == [labels.count(digit) for digit in range(10)]
    assert list(found) == [
        *("format", "source", "title", "description", "licence", "classes", "counts"),
        *("image_shape", "image_sizes", "target", "sha256"),
    ]
    contents = b"".join(array.tobytes() for array in ARRAYS.values())
    assert found["sha256"] == hashlib.sha256(contents).hexdigest()


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


IMAGES, LABELS = "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({}, "train-images-idx3-ubyte is missing"),
        ({n: c for n, c in FILES.items() if n != LABELS}, "t10k-labels-idx1-ubyte is missing"),
        (PACKED | {f"{IMAGES}.gz": PACKED[f"{IMAGES}.gz"][:-500]}, f"{IMAGES}.gz is truncated"),
        (PACKED | {f"{IMAGES}.gz": PACKED[f"{IMAGES}.gz"][:5]}, f"{IMAGES}.gz is truncated"),
        (PACKED | {f"{IMAGES}.gz": flipped(PACKED[f"{IMAGES}.gz"], 400)}, f"{IMAGES}.gz is truncated"),
        (PACKED | {f"{IMAGES}.gz": b""}, IMAGES),
        (PACKED | {f"{IMAGES}.gz": b"<html>404</html>"}, f"{IMAGES}.gz is truncated or altered"),
        (PACKED | {f"{LABELS}.gz": gzip.compress(FILES[LABELS][:-1])}, LABELS),
        (FILES | {LABELS: FILES[LABELS][:-1]}, LABELS),
        (FILES | {IMAGES: FILES[IMAGES] + b"x"}, IMAGES),
        (FILES | {LABELS: FILES["train-labels-idx1-ubyte"]}, "5 images, but 12 labels"),
        (FILES | {LABELS: FILES["t10k-images-idx3-ubyte"]}, "t10k"),
        (FILES | {n: idx(ARRAYS[n][:0]) for n in FILES if "t10k" in n}, "0 images"),
    ],
)
def test_a_faulty_directory_is_reported_and_nothing_is_left(
    tmp_path: Path, files: dict[str, bytes], fault: str
) -> None:
    source = lay_out(tmp_path / "theirs", files)
    with pytest.raises(UserError) as error:
        make(tmp_path / "made", str(source))
    assert fault in str(error.value)
    message = str(error.value)
    assert str(source) in message or KEY in message, f"names no file or key that the user has: {message}"
    assert list((tmp_path / "made").rglob("*")) == []


@pytest.mark.parametrize("place", ["nowhere", "a-file"])
def test_a_source_that_is_no_directory_is_reported(tmp_path: Path, place: str) -> None:
    (tmp_path / "a-file").touch()
    with pytest.raises(UserError, match=f"{KEY}.*{place}.*MNIST/raw"):
        make(tmp_path / "made", str(tmp_path / place))
    assert list((tmp_path / "made").rglob("*")) == []


def test_no_flipped_byte_of_a_gzipped_file_goes_unnoticed(tmp_path: Path) -> None:
    content = PACKED[f"{LABELS}.gz"]
    source = lay_out(tmp_path / "theirs", PACKED)
    for place in range(len(content)):
        (source / "MNIST/raw" / f"{LABELS}.gz").write_bytes(flipped(content, place))
        try:
            make(tmp_path / "made", str(source))
        except UserError:
            continue
        assert place < 10, "beyond gzip's own header"
        assert_made(tmp_path / "made")


def test_a_fault_keeps_the_data_set_made_before(tmp_path: Path) -> None:
    make(tmp_path / "made", str(lay_out(tmp_path / "good", PACKED)))
    bad = lay_out(tmp_path / "bad", PACKED | {f"{LABELS}.gz": b"bad"})
    with pytest.raises(UserError):
        make(tmp_path / "made", str(bad))
    assert_made(tmp_path / "made")


@pytest.mark.parametrize("files", [FILES, PACKED], ids=["plain", "gzipped"])
def test_a_directory_made_from_itself_loses_nothing(tmp_path: Path, files: dict[str, bytes]) -> None:
    folder = lay_out(tmp_path / "mine", files)
    try:
        make(folder, str(folder))
    except UserError as error:
        assert KEY in str(error)
    for name, content in files.items():
        assert (folder / "MNIST/raw" / name).read_bytes() == content


def test_mnist_itself(tmp_path: Path, mnist: Path) -> None:
    make(tmp_path, str(mnist))
    assert {split: sum(counts) for split, counts in describe(tmp_path)["counts"].items()} == {
        "train": 60000,
        "test": 10000,
    }
    content = (tmp_path / "MNIST/raw/train-images-idx3-ubyte").read_bytes()
    assert hashlib.md5(content).hexdigest() == "6bbc9ace898e44ae57da46a324031adb"
