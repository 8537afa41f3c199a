"""MNIST from a directory: linked, unpacked, or faulty."""

import gzip
import hashlib
from pathlib import Path

import pytest

from convatlas import UserError
from convatlas.datasets.formats import describe
from tests.support.mnist_source import (
    ARRAYS,
    FILES,
    IMAGES,
    KEY,
    LABELS,
    PACKED,
    check_prepared,
    flip_byte,
    pack_idx,
    prepare_mnist,
    write_source,
)


def test_plain_files_of_a_directory_are_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_source(tmp_path / "source", FILES)
    monkeypatch.chdir(tmp_path)
    prepare_mnist("data/d", "source")
    monkeypatch.chdir("/")
    check_prepared(tmp_path / "data/d")
    for name in FILES:
        link = tmp_path / "data/d/MNIST/raw" / name
        assert link.is_symlink()
        assert link.samefile(source / "MNIST/raw" / name)


def test_gzipped_files_of_a_directory_are_unpacked(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", PACKED)
    prepare_mnist(tmp_path / "data", str(source))
    check_prepared(tmp_path / "data")
    assert not any(path.is_symlink() for path in (tmp_path / "data").rglob("*"))


def test_plain_and_gzipped_files_may_be_mixed(tmp_path: Path) -> None:
    packed = [name for name in PACKED if name.startswith("t10k")]
    plain = [name for name in FILES if name.startswith("train")]
    source = write_source(tmp_path / "source", {n: PACKED[n] for n in packed} | {n: FILES[n] for n in plain})
    prepare_mnist(tmp_path / "data", str(source))
    check_prepared(tmp_path / "data")
    links = [path.name for path in (tmp_path / "data/MNIST/raw").iterdir() if path.is_symlink()]
    assert sorted(links) == sorted(plain)


def test_the_description(tmp_path: Path) -> None:
    prepare_mnist(tmp_path / "data", str(write_source(tmp_path / "source", PACKED)))
    description = describe(tmp_path / "data")
    assert description["classes"] == [str(digit) for digit in range(10)]
    assert description["image_shape"] == [1, 28, 28]
    for split, prefix in {"train": "train", "test": "t10k"}.items():
        labels = ARRAYS[f"{prefix}-labels-idx1-ubyte"].tolist()
        assert description["counts"][split] == [labels.count(digit) for digit in range(10)]
    assert list(description) == [
        *("format", "source", "title", "description", "licence", "classes", "counts"),
        *("image_shape", "image_sizes", "target", "sha256"),
    ]
    contents = b"".join(array.tobytes() for array in ARRAYS.values())
    assert description["sha256"] == hashlib.sha256(contents).hexdigest()


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({}, "train-images-idx3-ubyte is missing"),
        ({n: c for n, c in FILES.items() if n != LABELS}, "t10k-labels-idx1-ubyte is missing"),
        (PACKED | {f"{IMAGES}.gz": PACKED[f"{IMAGES}.gz"][:-500]}, f"{IMAGES}.gz is truncated"),
        (PACKED | {f"{IMAGES}.gz": PACKED[f"{IMAGES}.gz"][:5]}, f"{IMAGES}.gz is truncated"),
        (PACKED | {f"{IMAGES}.gz": flip_byte(PACKED[f"{IMAGES}.gz"], 400)}, f"{IMAGES}.gz is truncated"),
        (PACKED | {f"{IMAGES}.gz": b""}, IMAGES),
        (PACKED | {f"{IMAGES}.gz": b"<html>404</html>"}, f"{IMAGES}.gz is truncated or altered"),
        (PACKED | {f"{LABELS}.gz": gzip.compress(FILES[LABELS][:-1])}, LABELS),
        (FILES | {LABELS: FILES[LABELS][:-1]}, LABELS),
        (FILES | {IMAGES: FILES[IMAGES] + b"x"}, IMAGES),
        (FILES | {LABELS: FILES["train-labels-idx1-ubyte"]}, "5 images, but 12 labels"),
        (FILES | {LABELS: FILES["t10k-images-idx3-ubyte"]}, "t10k"),
        (FILES | {n: pack_idx(ARRAYS[n][:0]) for n in FILES if "t10k" in n}, "0 images"),
    ],
)
def test_a_faulty_directory_is_reported_and_nothing_is_written(
    tmp_path: Path, files: dict[str, bytes], fault: str
) -> None:
    source = write_source(tmp_path / "source", files)
    with pytest.raises(UserError) as error:
        prepare_mnist(tmp_path / "data", str(source))
    assert fault in str(error.value)
    message = str(error.value)
    assert str(source) in message or KEY in message, (
        f"names neither a file nor a key of the user's: {message}"
    )
    assert list((tmp_path / "data").rglob("*")) == []


@pytest.mark.parametrize("source", ["nowhere", "a-file"])
def test_a_source_that_is_not_a_directory_is_reported(tmp_path: Path, source: str) -> None:
    (tmp_path / "a-file").touch()
    with pytest.raises(UserError, match=f"{KEY}.*{source}.*MNIST/raw"):
        prepare_mnist(tmp_path / "data", str(tmp_path / source))
    assert list((tmp_path / "data").rglob("*")) == []


def test_a_flipped_byte_of_a_gzipped_file_is_noticed(tmp_path: Path) -> None:
    content = PACKED[f"{LABELS}.gz"]
    source = write_source(tmp_path / "source", PACKED)
    for position in range(len(content)):
        (source / "MNIST/raw" / f"{LABELS}.gz").write_bytes(flip_byte(content, position))
        try:
            prepare_mnist(tmp_path / "data", str(source))
        except UserError:
            continue
        assert position < 10, "beyond gzip's own header"
        check_prepared(tmp_path / "data")


def test_a_fault_keeps_the_data_set_prepared_before(tmp_path: Path) -> None:
    prepare_mnist(tmp_path / "data", str(write_source(tmp_path / "good", PACKED)))
    bad = write_source(tmp_path / "bad", PACKED | {f"{LABELS}.gz": b"bad"})
    with pytest.raises(UserError):
        prepare_mnist(tmp_path / "data", str(bad))
    check_prepared(tmp_path / "data")


@pytest.mark.parametrize("files", [FILES, PACKED], ids=["plain", "gzipped"])
def test_a_source_that_is_the_output_folder_is_kept(tmp_path: Path, files: dict[str, bytes]) -> None:
    folder = write_source(tmp_path / "mine", files)
    try:
        prepare_mnist(folder, str(folder))
    except UserError as error:
        assert KEY in str(error)
    for name, content in files.items():
        assert (folder / "MNIST/raw" / name).read_bytes() == content


def test_mnist_itself(tmp_path: Path, mnist: Path) -> None:
    prepare_mnist(tmp_path, str(mnist))
    assert {split: sum(counts) for split, counts in describe(tmp_path)["counts"].items()} == {
        "train": 60000,
        "test": 10000,
    }
    content = (tmp_path / "MNIST/raw/train-images-idx3-ubyte").read_bytes()
    assert hashlib.md5(content).hexdigest() == "6bbc9ace898e44ae57da46a324031adb"
