"""Image files as pixels: read by content, with the channels that a network takes, in their range."""

import logging
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image

from convatlas import UserError
from convatlas.pixels import GREY, RGB, PixelFormat, read_checked_pixels, read_pixels, resize_pixels_to

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (9, 7, 3), np.uint8)


def save_image(path: Path, array: np.ndarray, file_format: str = "PNG", **options: object) -> Path:
    """Save pixels as an image file and return its path."""
    Image.fromarray(array).save(path, file_format, **options)
    return path


@pytest.mark.parametrize("pixel_format", [GREY, RGB], ids=str)
def test_a_file_is_read_by_its_content(tmp_path: Path, pixel_format: PixelFormat) -> None:
    black_and_white = (PIXELS // 128) * 255
    frames = [Image.fromarray(black_and_white), Image.fromarray(255 - black_and_white)]
    frames[0].save(tmp_path / "gif.jpg", "GIF", save_all=True, append_images=frames[1:])
    opaque = np.dstack([black_and_white, np.full((9, 7), 255, np.uint8)])
    for path in (
        tmp_path / "gif.jpg",
        save_image(tmp_path / "rgba.jpg", opaque),
        save_image(tmp_path / "none", black_and_white),
    ):
        image = read_pixels(path, pixel_format)
        assert (image.shape, image.dtype) == ((9, 7, pixel_format.channels), np.uint8)
        expected = np.asarray(Image.fromarray(black_and_white).convert(str(pixel_format)))
        np.testing.assert_array_equal(image, np.atleast_3d(expected))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_rotated_upright(tmp_path: Path, orientation: int) -> None:
    """The orientations of EXIF 2.3, section 4.6.4: https://jdhao.github.io."""
    upright = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: np.rot90,
    }
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = save_image(tmp_path / "a.png", PIXELS, exif=exif)
    np.testing.assert_array_equal(read_pixels(path, RGB), upright[orientation](PIXELS))


def test_transparent_pixels_are_white_and_16_bit_images_are_scaled(tmp_path: Path) -> None:
    clear = save_image(tmp_path / "clear.png", np.zeros((4, 4, 4), np.uint8))
    assert read_pixels(clear, RGB).tolist() == [[[255] * 3] * 4] * 4
    deep = save_image(tmp_path / "deep.png", np.array([[0, 257, 25700, 65535]], np.uint16))
    assert read_pixels(deep, GREY)[..., 0].tolist() == [[0, 1, 100, 255]]


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "missing", "folder"])
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, file_format: str, damage: str) -> None:
    path = save_image(tmp_path / "odd.jpg", RNG.integers(0, 256, (99, 99, 3), np.uint8), file_format)
    contents = {"empty": b"", "text": b"no image", "cut": path.read_bytes()[: path.stat().st_size // 2]}
    path.unlink()
    if damage in contents:
        path.write_bytes(contents[damage])
    elif damage == "folder":
        path.mkdir()
    with pytest.raises(UserError, match=r"odd\.jpg"):
        read_pixels(path, RGB)


# Channels


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 11])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_files_of_any_number_of_channels_are_read(tmp_path: Path, channels: int, dtype: type) -> None:
    values = RNG.integers(0, 256, (9, 12, channels)).astype(np.uint8)
    if dtype == np.uint16:
        values = values.astype(dtype) * 257
    if dtype == np.float32:
        values = values.astype(dtype) / 255
    np.save(tmp_path / "last.npy", values)
    np.save(tmp_path / "first.npy", np.moveaxis(values, 2, 0))
    np.savez_compressed(tmp_path / "one.npz", image=np.moveaxis(values, 2, 0))
    tifffile.imwrite(tmp_path / "pages.tif", np.moveaxis(values, 2, 0), photometric="minisblack")
    contiguous = {"planarconfig": "contig"} if channels > 1 else {}
    tifffile.imwrite(tmp_path / "samples.tif", values, photometric="minisblack", **contiguous)
    expected = (
        values if dtype == np.uint8 else np.round(255.0 * values / (65535 if dtype == np.uint16 else 1))
    )
    for path in sorted(tmp_path.iterdir()):
        pixels = read_pixels(path, PixelFormat(channels))
        assert pixels.dtype == (np.uint8 if dtype == np.uint8 else np.float32), path
        np.testing.assert_allclose(pixels, expected, atol=1e-4, err_msg=path.name)
        resized = resize_pixels_to(pixels, (4, 6), "stretch")
        planes = [
            Image.fromarray(pixels[..., c]).resize((6, 4), Image.Resampling.BILINEAR) for c in range(channels)
        ]
        np.testing.assert_array_equal(resized, np.stack([np.asarray(plane) for plane in planes], 2))


@pytest.mark.parametrize("channels", [2, 4])
def test_opacity_is_a_channel_where_the_network_takes_it(tmp_path: Path, channels: int) -> None:
    values = RNG.integers(0, 256, (9, 7, channels), np.uint8)
    path = save_image(tmp_path / "a.png", values)
    np.testing.assert_array_equal(read_pixels(path, PixelFormat(channels)), values)


def test_grey_and_colour_are_converted_as_by_pillow(tmp_path: Path) -> None:
    np.save(tmp_path / "colour.npy", PIXELS)
    np.save(tmp_path / "deep.npy", PIXELS.astype(np.uint16) * 257)
    luma = np.asarray(Image.fromarray(PIXELS).convert("L"))[..., None]
    np.testing.assert_array_equal(read_pixels(tmp_path / "colour.npy", GREY), luma)
    np.testing.assert_allclose(read_pixels(tmp_path / "deep.npy", GREY), luma, atol=0.51)
    np.save(tmp_path / "grey.npy", PIXELS[..., 0])
    np.testing.assert_array_equal(read_pixels(tmp_path / "grey.npy", RGB), PIXELS[..., [0, 0, 0]])


@pytest.mark.parametrize(("stored", "channels"), [(5, 3), (3, 5), (1, 4), (3, 4), (2, 3), (4, 1), (1, 2)])
def test_other_numbers_of_channels_are_refused(tmp_path: Path, stored: int, channels: int) -> None:
    np.save(tmp_path / "odd.npy", np.zeros((stored, 20, 30), np.uint16))
    with pytest.raises(
        UserError, match=rf"odd\.npy has {stored} channels?, and the network takes {channels}: give"
    ):
        read_pixels(tmp_path / "odd.npy", PixelFormat(channels))


# Ranges

RAMP = np.arange(256, dtype=np.float64).reshape(16, 16)


@pytest.mark.parametrize(
    ("values", "configured"),
    [
        (RAMP.astype(np.uint8), None),
        ((RAMP * 257).astype(np.uint16), None),
        ((RAMP * 257 - 32768).astype(np.int16), None),
        ((RAMP * (2**32 - 1) / 255).astype(np.uint32), None),
        ((RAMP / 255).astype(np.float32), None),
        (RAMP / 255, None),
        (RAMP.astype(np.int32), (0, 255)),
        ((RAMP * 16).astype(np.uint16), (0, 4080)),
        ((RAMP * 8 - 1000).astype(np.int16), (-1000, 1040)),
        (RAMP.astype(np.float32), (0, 255)),
        (RAMP.astype(np.uint8), (0, 255)),
    ],
)
def test_values_keep_their_range(
    tmp_path: Path, values: np.ndarray, configured: tuple[float, float] | None
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values)
    np.save(tmp_path / "a.npy", values)
    for path in (tmp_path / "a.tif", tmp_path / "a.npy"):
        pixels, used = read_checked_pixels(path, PixelFormat(1, configured))
        np.testing.assert_allclose(pixels[..., 0], RAMP, atol=2e-3)
        if values.dtype != np.uint8:
            assert used is not None
            assert used["source"] == ("input.range" if configured else "data type")


def test_bits_that_a_tiff_declares_are_its_range(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "camera.tif"
    tifffile.imwrite(path, (RAMP * 16).astype(np.uint16), extratags=[("MaxSampleValue", "H", 1, 4095, True)])
    with caplog.at_level(logging.INFO):
        pixels, _ = read_checked_pixels(path, GREY)
    np.testing.assert_allclose(pixels[..., 0], RAMP * 16 / 4095 * 255, atol=1e-3)
    assert "uint16 values from 0 to 4080; 0 to 4095 (MaxSampleValue) become 0 to 1" in caplog.text
    tifffile.imwrite(path, (RAMP * 16).astype(np.uint16), extratags=[("MaxSampleValue", "H", 1, 4080, True)])
    with caplog.at_level(logging.WARNING):
        read_checked_pixels(path, GREY)  # the maximum of this image: no number of bits
    assert "6.2 % of the range [0, 65535] (data type)" in caplog.text
    assert "set input.range: [0, 4095]" in caplog.text


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (RAMP.astype(np.int32), ["single grey", "set input.range: [0, 255]"]),
        (RAMP.astype(np.uint16), ["single grey", "set input.range: [0, 255]"]),
        (RAMP.astype(np.float32), ["0 to 255 (float32)", "expected in 0 to 1", "set input.range: [0, 255]"]),
        (RAMP - 1000, ["-1000 to -745", "set input.range: [-1000, -745]"]),
        (RAMP / 255 * 0.002, ["single grey", "set input.range: [0, 0.002]"]),
        (np.where(RAMP == 35, np.nan, RAMP / 255), ["1 of 256 values", "NaN", "row 2, column 3"]),
        (np.where(RAMP == 35, np.inf, RAMP / 255), ["infinite", "row 2, column 3"]),
        (RAMP * 1j, ["complex128"]),
        (np.zeros((2, 3, 4, 5)), ["shape (2, 3, 4, 5)"]),
    ],
)
def test_what_would_be_black_is_refused(tmp_path: Path, values: np.ndarray, words: list[str]) -> None:
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(UserError, match=r"a\.npy") as error:
        read_checked_pixels(tmp_path / "a.npy", GREY)
    for word in words:
        assert word in str(error.value)


def test_values_beyond_a_configured_range_are_clipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(tmp_path / "a.npy", RAMP.astype(np.int16))
    pixels, used = read_checked_pixels(tmp_path / "a.npy", PixelFormat(1, (50, 101)))
    np.testing.assert_allclose(pixels[..., 0], np.clip((RAMP - 50) * 5, 0, 255), atol=1e-4)
    assert "values outside [50, 101] (input.range) are clipped" in caplog.text
    assert used == {"dtype": "int16", "min": 0, "max": 255, "range": [50, 101], "source": "input.range"}


def test_an_image_of_a_single_value_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 4), np.uint16))
    assert not read_checked_pixels(tmp_path / "a.npy", GREY)[0].any()
    assert "all values are 0" in caplog.text
