"""Image files as they are stored: TIFF and NumPy of any type, orientation and compression; hostile files."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from convatlas import UserError
from convatlas.pixels import RGB, PixelFormat, read_checked_pixels
from convatlas.stored_arrays import MAX_BYTES
from convatlas.stored_images import read_stored_image

RNG = np.random.default_rng(0)
PLANE = RNG.integers(0, 4096, (6, 7), np.uint16)


def test_compressed_pages_of_tiff_are_read(tmp_path: Path) -> None:
    """LZW, which tifffile leaves to another package, too."""
    stack = np.stack([PLANE + page for page in range(4)], 2)
    for compression in ("raw", "tiff_lzw", "tiff_deflate", "packbits"):
        pages = [Image.fromarray(stack[..., page]) for page in range(4)]
        pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression=compression)
        np.testing.assert_array_equal(read_stored_image(tmp_path / "a.tif").values, stack)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_is_turned_upright_as_by_pillow(tmp_path: Path, orientation: int) -> None:
    tag = [("Orientation", "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "deep.tif", PLANE.astype(np.float32), extratags=tag)
    deep = read_stored_image(tmp_path / "deep.tif").values
    for compression in (None, "zlib"):  # without compression Pillow 13.0 is wrong from 5 on
        path = tmp_path / f"{compression}.tif"
        tifffile.imwrite(path, (PLANE % 256).astype(np.uint8), extratags=tag, compression=compression)
        np.testing.assert_array_equal(deep % 256, read_stored_image(path).values)


def test_zero_is_black_where_a_tiff_says_that_it_is_white(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PLANE, photometric="miniswhite")
    np.testing.assert_array_equal(read_stored_image(tmp_path / "a.tif").values[..., 0], 65535 - PLANE)


def test_further_pages_of_pictures_are_channels(tmp_path: Path) -> None:
    frames = RNG.integers(0, 256, (2, 6, 7, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", frames, photometric="rgb")
    np.testing.assert_array_equal(
        read_stored_image(tmp_path / "a.tif").values, np.concatenate([*frames], axis=2)
    )


@pytest.mark.parametrize("shape", [(5, 6, 7), (6, 7, 5), (1, 5, 6, 7)])
def test_the_axis_of_channels_is_found(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape))
    for channels in (None, 5):
        assert read_stored_image(tmp_path / "a.npy", channels).values.shape == (6, 7, 5)
    np.save(tmp_path / "wide.npy", np.zeros((7, 3, 5)))
    assert read_stored_image(tmp_path / "wide.npy", 7).values.shape == (3, 5, 7)


def make_hostile_files(folder: Path) -> None:
    """Write files that are damaged, or that claim or hold what no image is."""
    np.save(folder / "objects.npy", np.array([{1: 2}], object), allow_pickle=True)
    np.savez(folder / "objects.npz", x=np.array([{1: 2}], object))
    np.savez(folder / "two.npz", a=PLANE, b=PLANE)
    np.savez(folder / "none.npz")
    np.save(folder / "text.npy", np.array(["a"]))
    np.save(folder / "empty.npy", np.zeros((0, 3)))
    np.save(folder / "a.npy", PLANE)
    content = (folder / "a.npy").read_bytes()
    (folder / "a.npy").unlink()
    (folder / "cut.npy").write_bytes(content[:140])
    huge: Any = np.lib.format
    with (folder / "huge.npy").open("wb") as file:
        huge.write_array_header_1_0(
            file, {"descr": "<f8", "fortran_order": False, "shape": (MAX_BYTES, MAX_BYTES)}
        )
    np.savez(folder / "whole.npz", PLANE)
    (folder / "cut.npz").write_bytes((folder / "whole.npz").read_bytes()[:60])
    (folder / "whole.npz").unlink()
    tifffile.imwrite(folder / "whole.tif", np.stack([PLANE] * 5), photometric="minisblack")
    for name, size in {"head.tif": 6, "cut.tif": 200, "short.tif": -100}.items():
        (folder / name).write_bytes((folder / "whole.tif").read_bytes()[:size])
    (folder / "whole.tif").unlink()
    (folder / "text.tif").write_text("no image")


def test_hostile_files_give_one_line(tmp_path: Path) -> None:
    make_hostile_files(tmp_path)
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 13
    for path in paths:
        with pytest.raises(UserError) as error:
            read_stored_image(path)
        assert path.name in str(error.value)
        assert "\n" not in str(error.value)


def test_16_bits_of_colour_png_are_known_to_be_reduced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Pillow reads the upper 8 bits of each value."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    values = np.stack([PLANE, PLANE // 2, PLANE // 4], 2).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", 7, 6, 16, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    stored = read_stored_image(tmp_path / "a.png")
    assert stored.reduced_bits == 16
    np.testing.assert_array_equal(stored.values, values >> 8)
    read_checked_pixels(tmp_path / "a.png", RGB)
    assert "(16 bits, read as 8): it has little contrast" in caplog.text
    assert "save it as TIFF, .npy or .npz, and set input.range: [0, 4095]" in caplog.text
    with pytest.raises(
        UserError, match=r"16 bits per value, which are read as 8, so that input\.range does not"
    ):
        read_checked_pixels(tmp_path / "a.png", PixelFormat(3, (0, 4095)))
