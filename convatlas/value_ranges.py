"""Which stored values of an image become 0 and 1: by data type, by the file, or as configured."""

import logging
import math
from dataclasses import dataclass

import numpy as np

from convatlas import UserError
from convatlas.records import ImageValues
from convatlas.stored_images import StoredImage

log = logging.getLogger(__name__)

# The share of its range that an image uses at least: below the first, 8 bits would show a single level; below
# the second, which 12 bits in 16 do not reach, it would be nearly one grey.
MIN_SHARE, DOUBTFUL_SHARE = 1 / 256, 1 / 8
COMMON_BITS = (8, 10, 12, 14, 16)
ROUNDING_TOLERANCE = 1e-3  # by which floats leave 0..1 after resampling


@dataclass(frozen=True)
class ValueSummary:
    """The values of one or more image files of one data type.

    Attributes:
        dtype: The data type, such as "uint16".
        min: The smallest value.
        max: The largest value.
        low: The value that becomes 0 unless it is configured.
        high: The value that becomes 1 unless it is configured.
        source: What this range is taken from: "data type", or a tag of the file.
        reduced_bits: Bits of a value in the file, where they were reduced to 8 on reading.
    """

    dtype: str
    min: float
    max: float
    low: float
    high: float
    source: str
    reduced_bits: int | None = None


PLAIN_VALUES = ValueSummary("uint8", 0, 255, 0, 255, "data type")


def summarize_values(stored: StoredImage) -> ValueSummary:
    """Return data type, extent and range of a stored image.

    Args:
        stored: The image.

    Raises:
        UserError: Values are NaN or infinite; the message does not name the file.
    """
    values = stored.values
    smallest, largest = values.min(), values.max()
    if not (np.isfinite(smallest) and np.isfinite(largest)):
        row, column, channel = np.argwhere(~np.isfinite(values))[0].tolist()
        kind = "NaN" if np.isnan(values).any() else "infinite"
        count = int((~np.isfinite(values)).sum())
        raise UserError(
            f"{count} of {values.size} values are not finite, the first ({kind}) in row {row}, column "
            f"{column}, channel {channel}: replace them"
        )
    low, high, source = find_range(stored)
    if stored.reduced_bits:
        source = f"{stored.reduced_bits} bits, read as 8"
    return ValueSummary(
        str(values.dtype), float(smallest), float(largest), low, high, source, stored.reduced_bits
    )


def find_range(stored: StoredImage) -> tuple[float, float, str]:
    """Return the range of an image, and what it is taken from: the data type, or a tag of the file.

    Args:
        stored: The image. The range of floats is 0..1.
    """
    if stored.declared_max is not None:
        return 0.0, float(stored.declared_max), stored.declared_by
    if stored.values.dtype.kind in "ui":
        limits = np.iinfo(stored.values.dtype)
        return float(limits.min), float(limits.max), "data type"
    return 0.0, 1.0, "data type"


def check_values(
    summary: ValueSummary, configured: tuple[float, float] | None, key: str, subject: str
) -> ImageValues | None:
    """Check that a range fits the values of an image or a data set, and log which range is used.

    Args:
        summary: Their data type and extent.
        configured: The range of the config, if it has one.
        key: The place of the network's `input` in the config, for messages.
        subject: The file or data set, for messages.

    Returns:
        The range, for images.json; None for plain 8 bits.

    Raises:
        UserError: The picture would be black or of a single grey, or floats are not in 0..1.
    """
    extent = f"{format_value(summary.min)} to {format_value(summary.max)}"
    advice = f"set {key}.range: {format_range(*suggest_range(summary))}"
    if summary.reduced_bits:
        advice = f"save it as TIFF, .npy or .npz, and {advice}"
    if summary.reduced_bits and configured:
        raise UserError(
            f"{subject} has {summary.reduced_bits} bits per value, which are read as 8, so that {key}.range "
            "does not apply: save it as TIFF, .npy or .npz"
        )
    low, high, source = summary.low, summary.high, summary.source
    if configured:
        low, high, source = *configured, f"{key}.range"
    elif summary.dtype.startswith("float") and _is_outside(summary, low, high):
        raise UserError(
            f"{subject} has values from {extent} ({summary.dtype}), and floats are expected in 0 to 1: "
            f"{advice}"
        )
    is_plain = summary.dtype in ("uint8", "bool") and not summary.reduced_bits
    if is_plain and not configured:
        return None
    _check_contrast(summary, (low, high), source, "" if configured else advice, subject)
    log.info(
        "%s: %s values from %s; %s to %s (%s) become 0 to 1",
        subject, summary.dtype, extent, format_value(low), format_value(high), source,
    )  # fmt: skip
    if _is_outside(summary, low, high):
        log.warning("%s: values outside %s (%s) are clipped to it", subject, format_range(low, high), source)
    return {
        "dtype": summary.dtype,
        "min": summary.min,
        "max": summary.max,
        "range": [low, high],
        "source": source,
    }


def _is_outside(summary: ValueSummary, low: float, high: float) -> bool:
    """Return whether values are outside a range by more than rounding."""
    tolerance = ROUNDING_TOLERANCE * (high - low)
    return summary.min < low - tolerance or summary.max > high + tolerance


def _check_contrast(
    summary: ValueSummary, value_range: tuple[float, float], source: str, advice: str, subject: str
) -> None:
    """Raise or, without advice, warn where values use a small part of their range.

    An image of a single value is what it is, by any range.
    """
    low, high = value_range
    smallest, largest = max(summary.min, low), min(summary.max, high)
    share = (largest - smallest) / (high - low)
    text = (
        f"{subject} has values from {format_value(summary.min)} to {format_value(summary.max)} "
        f"({summary.dtype}), {100 * max(share, 0):.2g} % of the range {format_range(low, high)} ({source})"
    )
    if summary.min == summary.max:
        log.warning("%s: all values are %s", subject, format_value(summary.min))
    elif share < MIN_SHARE and advice:
        raise UserError(f"{text}: it would be of a single grey; {advice}")
    elif share < DOUBTFUL_SHARE:
        log.warning(
            "%s: it has little contrast%s", text, f"; if these are all values, {advice}" if advice else ""
        )


def suggest_range(summary: ValueSummary) -> tuple[float, float]:
    """Return a range of round numbers that fits values: of the fewest common bits, or their own extent.

    Zero stays zero where no value is negative.

    Args:
        summary: Extent of the values.
    """
    if summary.reduced_bits:  # only the upper 8 bits of each value are known
        factor = 2.0 ** (summary.reduced_bits - 8)
        return suggest_range(ValueSummary("", 0, (summary.max + 1) * factor - 1, 0, 0, ""))
    if summary.min >= 0 and DOUBTFUL_SHARE <= summary.max <= 1:
        return 0.0, 1.0
    if summary.min >= 0 and 1 < summary.max < 2**16:
        return 0.0, float(min(2**bits - 1 for bits in COMMON_BITS if summary.max < 2**bits))
    if max(-summary.min, summary.max) < 1:
        low, high = min(summary.min, 0.0), summary.max
        return float(f"{low:.2g}"), float(f"{high:.2g}")
    return float(math.floor(min(summary.min, 0))), float(math.ceil(summary.max))


def scale_to_bytes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return values with `low` as 0 and `high` as 255, clipped to them, float32, not rounded.

    Args:
        values: Stored values, of any shape and type.
        low: The value that becomes 0.
        high: The value that becomes 255, as the brightest of 8 bits.
    """
    scaled = (values.astype(np.float64) - low) / (high - low)
    return np.clip(255 * scaled, 0, 255).astype(np.float32)


def format_range(low: float, high: float) -> str:
    """Return a range as the config writes it."""
    return f"[{format_value(low)}, {format_value(high)}]"


def format_value(value: float) -> str:
    """Return a value without superfluous digits, integers with all of theirs."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{value:.6g}"
