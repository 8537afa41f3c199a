"""Files between stages: written atomically, the same bytes twice, damage reported."""

import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from convatlas import UserError
from convatlas.files import (
    Npz,
    atomic_write,
    npz_writer,
    read_json,
    remove_stale,
    sha256,
    write_bytes,
    write_json,
    write_npz,
)
from tests.support.arrays import read_npz

ARRAYS = {
    "file": np.arange(6, dtype=np.float32).reshape(2, 3),
    "layer1.0/add": np.zeros((0, 4), np.int64),
    "pool1@switches": np.arange(24, dtype=np.int32).reshape(2, 3, 4)[:, ::-1, ::2],
    "layer1.0.relu:2": np.array([1.5, -0.0, np.inf]),
    "arr_0": np.float32(7),
    "größe": np.array([True, False]),
}


class Interruption(BaseException):
    """A BaseException that is not an Exception, like KeyboardInterrupt."""


@pytest.mark.parametrize("kind", [RuntimeError, Interruption])
def test_an_exception_keeps_the_old_file_and_leaves_nothing(
    tmp_path: Path, kind: type[BaseException]
) -> None:
    path = tmp_path / "output"
    path.write_text("old")
    with pytest.raises(kind), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise kind
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_exception_keeps_the_old_folder_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    (tmp_path / "output/old").touch()
    with pytest.raises(RuntimeError), atomic_write(tmp_path / "output") as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
        raise RuntimeError
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "output", tmp_path / "output/old"]


def test_a_folder_is_replaced_with_all_its_content(tmp_path: Path) -> None:
    (tmp_path / "output/sub").mkdir(parents=True)
    (tmp_path / "output/sub/old").touch()
    with atomic_write(tmp_path / "output") as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "output", tmp_path / "output/new"]


def test_a_block_that_writes_nothing_keeps_the_old_folder(tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    (tmp_path / "output/old").touch()
    with pytest.raises(Exception, match="output"), atomic_write(tmp_path / "output"):
        pass
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "output", tmp_path / "output/old"]


def test_a_link_is_replaced_and_its_target_kept(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("target")
    (tmp_path / "output").symlink_to(tmp_path / "target")
    write_bytes(tmp_path / "output", b"new")
    assert (tmp_path / "target").read_text() == "target"
    assert not (tmp_path / "output").is_symlink()


KILLED = """
import os, signal, sys
from convatlas.files import atomic_write
with atomic_write(sys.argv[1]) as temporary:
    temporary.mkdir()
    (temporary / "half").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("clean", [lambda path: write_bytes(path, b"complete"), remove_stale])
def test_files_of_a_killed_writer_are_removed_and_those_of_a_living_one_stay(
    tmp_path: Path, clean: Callable[[Path], None]
) -> None:
    path, similar = tmp_path / "output", tmp_path / "output.too"
    for killed in (path, similar):
        done = subprocess.run([sys.executable, "-c", KILLED, killed], check=False)
        assert done.returncode == -signal.SIGKILL
    assert sorted(file.name for file in tmp_path.rglob("half")) == ["half", "half"]
    with atomic_write(path) as living:
        living.write_text("of a living writer")
        clean(path)
        assert [file.parent.name for file in tmp_path.rglob("half")] == [similar.name]
        assert living.exists()
    assert path.read_text() == "of a living writer"
    remove_stale(similar)
    assert list(tmp_path.iterdir()) == [path]


def test_files_of_another_host_are_removed_after_a_day(tmp_path: Path) -> None:
    """Its lock may not be visible on this host."""
    subprocess.run([sys.executable, "-c", KILLED, tmp_path / "output"], check=False)
    (lock,) = tmp_path.glob(".*/.lock")
    lock.write_text("another host")
    remove_stale(tmp_path / "output")
    assert lock.exists()
    os.utime(lock, (0, 0))
    remove_stale(tmp_path / "output")
    assert list(tmp_path.iterdir()) == []


def test_a_name_may_have_the_maximal_length(tmp_path: Path) -> None:
    write_bytes(tmp_path / ("n" * 255), b"")
    assert [len(path.name) for path in tmp_path.iterdir()] == [255]


def test_parents_are_created_with_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        with atomic_write(tmp_path / "a/b/folder") as temporary:
            temporary.mkdir()
            (temporary / "file").touch()
    finally:
        os.umask(mask)
    modes = [oct((tmp_path / "a/b" / name).stat().st_mode & 0o777) for name in ("folder", "folder/file")]
    assert modes == ["0o755", "0o644"]


@pytest.mark.parametrize("path", ["file/output", "file/deeper/output"])
def test_a_path_that_cannot_be_written_is_a_user_error(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("a file, not a folder")
    with pytest.raises(UserError, match=f"cannot write .*{path}"):
        write_bytes(tmp_path / path, b"")
    assert (tmp_path / "file").read_text() == "a file, not a folder"


def test_an_error_in_reading_is_not_reported_as_one_in_writing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="elsewhere"), atomic_write(tmp_path / "output"):
        (tmp_path / "elsewhere").read_bytes()


@pytest.mark.parametrize("exists", [True, False])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "a.npz"
    if exists:
        path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(UserError, match=rf"^cannot write {re.escape(str(path))}: File too large$"):
            write_npz(path, {"x": np.arange(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with (
        pytest.raises(UserError, match=rf"^cannot write {re.escape(str(path))}: No space left on device$"),
        atomic_write(path),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        full.write(b"x")
    expected = {"a.npz": b"old"} if exists else {}
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == expected


def test_npz_round_trip(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", ARRAYS)
    arrays = read_npz(tmp_path / "a.npz")
    assert list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].shape == array.shape
        assert arrays[name].tobytes() == array.tobytes(), name


def test_numpy_reads_an_npz_without_pickle(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", ARRAYS)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert set(archive.files) == set(ARRAYS)
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(archive[name], array)


def test_npz_bytes_are_the_same_twice(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        write_npz(tmp_path / name, ARRAYS)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_object_arrays_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="array of references"):
        write_npz(tmp_path / "a.npz", {"good": np.zeros(2), "bad": np.array([{}], dtype=object)})
    assert list(tmp_path.iterdir()) == []


def test_a_pickle_in_an_npz_is_not_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", bad=np.array([print], dtype=object))
    with pytest.raises(UserError, match=r"a\.npz is damaged"):
        read_npz(tmp_path / "a.npz")


def test_an_array_is_read_on_access(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_npz(path, {"good": np.arange(3), "bad": np.arange(100)})
    content = bytearray(path.read_bytes())
    content[content.index(np.arange(100).tobytes()) + 40] ^= 1
    path.write_bytes(content)
    npz = Npz(path)
    assert list(npz) == ["good", "bad"]
    assert len(npz) == 2
    assert "bad" in npz
    assert npz["good"].tolist() == [0, 1, 2]
    with pytest.raises(UserError, match=r"a\.npz is damaged"):
        npz["bad"]
    with pytest.raises(KeyError, match="other"):
        npz["other"]


@pytest.mark.filterwarnings("ignore:Stored array in format 3.0")
def test_arrays_are_those_of_numpy(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    arrays = {
        "transposed": np.arange(6.0).reshape(2, 3).T,
        "empty": np.zeros((0, 3), np.int8),
        "scalar": np.float32(3),
        "text": np.array(["ä", "字bc"]),
        "large": np.arange(1 << 18),
        "record": np.zeros(2, [("x", "<f4"), ("字", ">i2")]),  # whose header is UTF-8, version 3.0
    }
    np.savez(path, **arrays)
    with np.load(path) as expected:
        for name, array in read_npz(path).items():
            assert (array.dtype, array.strides) == (expected[name].dtype, expected[name].strides)
            assert array.tolist() == expected[name].tolist()
            array[...] = array  # it may be changed


def test_npz_is_compressed_on_request(tmp_path: Path) -> None:
    for name, compress in (("stored", False), ("deflated", True)):
        write_npz(tmp_path / name, {"x": np.zeros(10_000)}, compress)
        assert read_npz(tmp_path / name)["x"].tolist() == [0] * 10_000
    assert (tmp_path / "deflated").stat().st_size < 1000 < (tmp_path / "stored").stat().st_size


def test_members_are_written_one_by_one(tmp_path: Path) -> None:
    with npz_writer(tmp_path / "a.npz") as write:
        for n in range(3):
            array = np.full((2, 3), n)
            write(str(n), array.T)
            array[:] = 9  # which is too late to change the file
        assert not (tmp_path / "a.npz").exists()
    assert {name: array.tolist() for name, array in read_npz(tmp_path / "a.npz").items()} == {
        str(n): [[n] * 2] * 3 for n in range(3)
    }


@pytest.mark.parametrize("damage", [b"", b"no zip", "half", "altered", "one array"])
def test_a_damaged_npz_is_reported(tmp_path: Path, damage: bytes | str) -> None:
    path = tmp_path / "a.npz"
    write_npz(path, {"x": np.arange(100)})
    content = bytearray(path.read_bytes())
    if damage == "half":
        content = content[: len(content) // 2]
    elif damage == "altered":
        content[content.index(np.arange(100).tobytes()) + 40] ^= 1
    elif damage == "one array":
        with path.open("wb") as file:
            np.save(file, np.arange(3))
        content = path.read_bytes()
    else:
        content = damage
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.npz is damaged"):
        read_npz(path)


def test_json_round_trip(tmp_path: Path) -> None:
    value = {"naïve": [1, 2.5, None, True, '\u2028 \\ " 字'], "": {}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert read_json(tmp_path / "a.json") == 1
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b'"\xff"', b"1 2"])
def test_damaged_json_is_reported(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json is damaged"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("read", [read_json, read_npz])
def test_a_missing_file_is_reported(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(UserError, match="no file is missing"):
        read(tmp_path / "no file")


@pytest.mark.parametrize("size", [0, 10, (1 << 20) + 1])
def test_sha256_of_files_is_that_of_their_concatenated_contents(tmp_path: Path, size: int) -> None:
    content = np.random.default_rng(0).bytes(size)
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "b").write_bytes(b"tail")
    assert sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()
    assert sha256(tmp_path / "a", tmp_path / "b") == hashlib.sha256(content + b"tail").hexdigest()
