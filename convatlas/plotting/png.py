"""Encoders of PNG: for pictures of few greys, and for figures, smaller than those of Pillow."""

import struct
import zlib

import numpy as np
import numpy.typing as npt

FILTER_NONE, FILTER_UP, FILTER_PAETH = 0, 2, 4  # filter types of PNG (W3C, 2003, section 9.2)
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encode_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode a picture of few greys as PNG.

    The greys are numbered and stand in a palette, so that neighbouring pixels differ by 1 or 2 instead of
    4 or 5 of 256; the Paeth filter is used where it lowers the entropy, as it does for feature maps but
    not for weights.

    Args:
        pixels: (H, W) uint8.

    Returns:
        The content of the file, with an 8-bit palette (W3C, Portable Network Graphics, 2003).
    """
    greys = np.flatnonzero(np.bincount(pixels.ravel(), minlength=256)).astype(np.uint8)
    palette_index = np.zeros(256, np.uint8)
    palette_index[greys] = np.arange(len(greys))
    rows, filter_type, strategy = palette_index[pixels], FILTER_NONE, zlib.Z_FILTERED
    residuals = rows - _predict_paeth(rows)
    if _compute_entropy(residuals) < _compute_entropy(rows):
        rows, filter_type, strategy = residuals, FILTER_PAETH, zlib.Z_RLE
    filtered = np.concatenate([np.full((len(rows), 1), filter_type, np.uint8), rows], 1)
    return _join_chunks(filtered, greys[:, None].repeat(3, 1), level=6, strategy=strategy)


def encode_indexed_png(pixels: npt.NDArray[np.uint8], palette: npt.NDArray[np.uint8], dpi: int) -> bytes:
    """Encode a picture with enlarged tiles, whose rows repeat, as PNG.

    Args:
        pixels: The number of each pixel's colour, (H, W).
        palette: The colours, (n, 3).
        dpi: Pixels per inch.
    """
    repeats = np.append(False, (pixels[1:] == pixels[:-1]).all(1))[:, None]
    filters = np.where(repeats, FILTER_UP, FILTER_NONE).astype(np.uint8)
    filtered = np.concatenate([filters, np.where(repeats, 0, pixels).astype(np.uint8)], 1)
    resolution = round(dpi / 0.0254)  # per metre
    physical_size = _make_chunk(b"pHYs", struct.pack(">IIB", resolution, resolution, 1))
    return _join_chunks(filtered, palette, level=8, strategy=zlib.Z_DEFAULT_STRATEGY, extra=physical_size)


def _join_chunks(
    filtered: npt.NDArray[np.uint8],
    palette: npt.NDArray[np.uint8],
    level: int,
    strategy: int,
    extra: bytes = b"",
) -> bytes:
    """Return the PNG of filtered rows (H, 1 + W) of a picture with a palette."""
    height, width = filtered.shape
    deflate = zlib.compressobj(level, zlib.DEFLATED, 15, 9, strategy)
    header = struct.pack(">IIBBBBB", width - 1, height, 8, 3, 0, 0, 0)
    return SIGNATURE + b"".join(
        [
            _make_chunk(b"IHDR", header),
            _make_chunk(b"PLTE", palette.astype(np.uint8).tobytes()),
            extra,
            _make_chunk(b"IDAT", deflate.compress(filtered.tobytes()) + deflate.flush()),
            _make_chunk(b"IEND", b""),
        ]
    )


def _make_chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of PNG: length, type, data and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _predict_paeth(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the Paeth prediction of each pixel (H, W) from its left, upper and upper left neighbours."""
    padded = np.pad(rows.astype(np.int16), ((1, 0), (1, 0)))
    left, upper, corner = padded[1:, :-1], padded[:-1, 1:], padded[:-1, :-1]
    estimate = left + upper - corner
    to_left, to_upper, to_corner = (abs(estimate - neighbour) for neighbour in (left, upper, corner))
    nearest = np.where(to_upper <= to_corner, upper, corner)
    return np.where((to_left <= to_upper) & (to_left <= to_corner), left, nearest).astype(np.uint8)


def _compute_entropy(values: npt.NDArray[np.uint8]) -> float:
    """Return the entropy of uint8 values, in bits per value."""
    share = np.bincount(values.ravel(), minlength=256) / values.size
    return -float((share * np.log2(share, where=share > 0, out=np.zeros(256))).sum())
