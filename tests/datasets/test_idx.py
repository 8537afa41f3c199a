"""The idx format."""

from pathlib import Path

import numpy as np
import pytest

from convatlas import UserError
from convatlas.datasets.idx import read_idx, write_idx
from tests.support.mnist_source import FILES, PACKED, RNG, pack_idx


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4), (1, 2, 3, 4), (0, 28, 28), (300,)])
def test_idx_files_are_written_and_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = RNG.integers(0, 256, shape, np.uint8)
    write_idx(tmp_path / "written", array)
    assert (tmp_path / "written").read_bytes() == pack_idx(array)
    (tmp_path / "by hand").write_bytes(pack_idx(array))
    result = read_idx(tmp_path / "by hand")
    assert (result.dtype, result.shape) == (np.uint8, shape)
    np.testing.assert_array_equal(result, array)


def test_the_values_of_a_transposed_array_are_written_in_c_order(tmp_path: Path) -> None:
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
def test_a_file_that_is_not_a_complete_idx_file_is_reported(
    tmp_path: Path, content: bytes, fault: str
) -> None:
    (tmp_path / "some-file").write_bytes(content)
    with pytest.raises(UserError, match=f"some-file.*{fault}"):
        read_idx(tmp_path / "some-file")


def test_a_missing_idx_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="some-file"):
        read_idx(tmp_path / "some-file")
