"""Inputs that are no images, from NumPy files."""

from pathlib import Path

import numpy as np
import pytest

from convatlas import UserError
from convatlas.stored_arrays import read_array


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
@pytest.mark.parametrize("stored", [(1, 6), (6,), (1, 1, 6)])
@pytest.mark.parametrize("dtype", [np.float64, np.int16, np.bool_, np.float16])
def test_an_array_is_read_as_it_is(
    tmp_path: Path, name: str, stored: tuple[int, ...], dtype: type[np.generic]
) -> None:
    values = np.array([-3, 0, 1, 2, 7, 9]).astype(dtype)
    save = np.savez if name.endswith("z") else np.save
    save(tmp_path / name, values.reshape(stored))
    result = read_array(tmp_path / name, (1, 6))
    assert (result.shape, result.dtype) == ((1, 6), np.float32)
    np.testing.assert_array_equal(result[0], values.astype(np.float32))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.zeros((6, 2)), r"shape \(6, 2\); the network's input is \(2, 6\): cut, pad"),
        (np.zeros((2, 7)), r"shape \(2, 7\)"),
        (np.zeros((2, 2, 6)), r"shape \(2, 2, 6\)"),
        (np.full((2, 6), np.nan), "not finite"),
        (np.full((2, 6), np.inf), "not finite"),
        (np.full((2, 6), "a"), "type <U1"),
        (np.zeros((2, 6), complex), "type complex128"),
        (np.full((2, 6), None), "no NumPy file that can be read"),
    ],
)
def test_another_array_is_refused(tmp_path: Path, values: np.ndarray, reason: str) -> None:
    path = tmp_path / "a.npy"
    np.save(path, values, allow_pickle=True)
    with pytest.raises(UserError, match=reason):
        read_array(path, (2, 6))


def test_a_file_holds_one_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=np.zeros(3), b=np.zeros(3))
    with pytest.raises(UserError, match="must hold one array"):
        read_array(tmp_path / "two.npz", (1, 3))


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\x01"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.npy is no NumPy file that can be read"):
        read_array(tmp_path / "a.npy", (1, 3))
    with pytest.raises(UserError, match=r"missing\.npy is no NumPy file"):
        read_array(tmp_path / "missing.npy", (1, 3))
