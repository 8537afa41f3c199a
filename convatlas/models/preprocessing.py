"""From an image to a network's input: resizing, cropping and normalisation."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from convatlas import UserError, image_io
from convatlas.names import suggest_nearest
from convatlas.pipeline.config_types import InputConfig
from convatlas.pixels import PixelFormat, read_checked_pixels, resize_pixels_to
from convatlas.records import ImageValues
from convatlas.records import Preprocessing as PreprocessingRecord
from convatlas.stored_arrays import read_array

IMAGENET_INPUT: InputConfig = {"size": 224, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
CHANNEL_COUNTS = {"grey": 1, "rgb": 3, "bgr": 3}


@dataclass(frozen=True)
class Preprocessing:
    """Bring an image to a size, scale it to 0..1, subtract `mean` and divide by `std`.

    Attributes:
        size: Height and width (H, W) of the network's input in pixels; one number stands for a square. Of an
            input that is no image its length (L,), or depth, height and width (D, H, W): arrays of this size
            are read as they are, from NumPy files, and only normalised.
        mean: Mean of each channel, of values in 0..1, in the order in which the network takes the channels.
        std: Standard deviation of each channel.
        resize: What precedes the crop of the centre to `size`: "cover" resizes the image, at its aspect
            ratio, to the smallest size that covers it; a number is the length to which the shorter side is
            resized; "stretch" resizes both sides to `size`.
        interpolation: "bilinear", "bicubic" or "nearest".
        channels: "bgr" where the network takes colours in this order; otherwise None.
        range: The values of image files that become 0 and 1; None takes the range of their data type.
        display: The channels that are shown: one in grey, or three as red, green and blue; None chooses them.
    """

    size: image_io.Size
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | str = "cover"
    interpolation: str = "bilinear"
    channels: str | None = None
    range: tuple[float, float] | None = None
    display: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", image_io.as_size(self.size))

    @classmethod
    def from_config(cls, settings: Mapping[str, Any], key: str = "input") -> "Preprocessing":
        """Check a config's `input` and return it as preprocessing.

        Args:
            settings: The fields by name, `size`, `mean` and `std` among them.
            key: Place of `settings` in the config, for messages.

        Raises:
            UserError: A name is unknown, the size is not one or two numbers of pixels, mean and std do not
                have one number per channel, or range or display is impossible.
        """
        known_names = [field.name for field in fields(cls)]
        for name in settings:
            if name not in known_names:
                raise UserError(f"{key}: unknown {name!r}; {suggest_nearest(name, known_names)}")
        size = settings["size"]
        sides = size if isinstance(size, list | tuple) and 1 <= len(size) <= 3 else [size]
        if not all(isinstance(side, int) and side > 0 for side in sides):
            raise UserError(
                f"{key}.size: {size!r} is neither a number of pixels nor [height, width], [length] or "
                "[depth, height, width]"
            )
        _check_channels(settings, key)
        fields_by_name: dict[str, Any] = {
            **settings,
            "mean": tuple(settings["mean"]),
            "std": tuple(settings["std"]),
            "channels": "bgr" if settings.get("channels") == "bgr" else None,
            "range": tuple(settings["range"]) if settings.get("range") else None,
            "display": tuple(settings["display"]) if settings.get("display") else None,
        }
        return cls(**fields_by_name)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input: (C, H, W), or (C, L) or (C, D, H, W) where it is no image."""
        return len(self.mean), *self.size

    @property
    def is_image(self) -> bool:
        """Whether the input is an image, with two spatial axes."""
        return len(self.size) == 2

    @property
    def pixel_format(self) -> PixelFormat:
        """What is read of image files: channels, and the range of values."""
        return PixelFormat(len(self.mean), self.range)

    def read_pixels(self, path: str | Path) -> Tensor:
        """Read an image file, upright, at the size of the input.

        Args:
            path: The image file.

        Returns:
            Pixels (1, C, H, W), uint8 or float32 in 0..255; colours in the order red, green, blue.

        Raises:
            UserError: The file is missing or not an image, has another number of channels, or its values do
                not fit the range.
        """
        return self.read_pixels_and_values(path)[0]

    def read_pixels_and_values(
        self, path: str | Path, key: str = "input"
    ) -> tuple[Tensor, ImageValues | None]:
        """Read an image file as `read_pixels` does, and return what its values are.

        Args:
            path: The image file.
            key: Place of the input in the config, for messages.

        Returns:
            The pixels, and the file's data type, extent and range; None for plain 8 bits.
        """
        if not self.is_image:
            return torch.from_numpy(read_array(path, self.shape))[None], None
        pixels, values = read_checked_pixels(path, self.pixel_format, key)
        resized = resize_pixels_to(pixels, self.size, self.resize, self.interpolation)
        return torch.from_numpy(resized.copy()).permute(2, 0, 1)[None], values

    def with_shorter_side(self, pixels: int) -> "Preprocessing":
        """Return the preprocessing for inputs of another size and the same aspect ratio.

        Args:
            pixels: Length of the shorter side of the input.
        """
        return replace(self, size=tuple(max(1, round(side * pixels / min(self.size))) for side in self.size))

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the network's input of some images.

        Args:
            pixels: Images (N, C, H, W), uint8 or floats in 0..255, colours in the order red, green, blue; of
                another size than `size` they are resized, in float.

        Returns:
            The normalised input (N, C, H, W), float32.
        """
        x = pixels.float() / 255 if self.is_image else pixels.float()
        if self.is_image and x.shape[-2:] != self.size:
            x = F.interpolate(x, self.size, mode="bilinear", antialias=True)
        if self.channels == "bgr":
            x = x.flip(1)
        axes = (-1,) + (1,) * len(self.size)
        mean, std = (x.new_tensor(values).reshape(axes) for values in (self.mean, self.std))
        return (x - mean) / std

    def normalize_grey(self, value: float) -> Tensor:
        """Return a grey pixel as the network takes it, (C,) float32.

        Args:
            value: Its value, of 0 for black to 1 for white.
        """
        return (value - torch.tensor(self.mean)) / torch.tensor(self.std)

    def to_dict(self) -> PreprocessingRecord:
        """Return the entry of network.json, which `from_config` reads."""
        is_square = self.is_image and self.size[0] == self.size[1]
        record: PreprocessingRecord = {
            "size": self.size[0] if is_square else list(self.size),
            "mean": list(self.mean),
            "std": list(self.std),
            "resize": self.resize,
            "interpolation": self.interpolation,
        }
        if self.channels == "bgr":
            record["channels"] = "bgr"
        if self.range is not None:
            record["range"] = list(self.range)
        if self.display is not None:
            record["display"] = list(self.display)
        return record


def _check_channels(settings: Mapping[str, Any], key: str) -> None:
    """Raise UserError where the settings of an input contradict each other in the number of channels."""
    mean, std = settings["mean"], settings["std"]
    count = count_channels(settings.get("channels") or len(mean))
    if not len(mean) == len(std) == count > 0:
        for_channels = f", {count} for channels: {settings['channels']}" if settings.get("channels") else ""
        raise UserError(f"{key}: mean {mean} and std {std} must have one number per channel{for_channels}")
    if (value_range := settings.get("range")) and not value_range[0] < value_range[1]:
        raise UserError(f"{key}.range: {list(value_range)} must be [low, high], the lower value first")
    display = settings.get("display")
    if display and (len(display) not in (1, 3) or not all(0 <= channel < count for channel in display)):
        raise UserError(
            f"{key}.display: {list(display)} must be one channel (grey) or three (red, green, blue) of "
            f"0 to {count - 1}"
        )


def count_channels(channels: int | str) -> int:
    """Return the number of channels that the config's `input.channels` means.

    Args:
        channels: The number, or "grey", "rgb" or "bgr".
    """
    return channels if isinstance(channels, int) else CHANNEL_COUNTS[channels]


def choose_normalization(channels: int, axes: int = 2) -> InputConfig:
    """Return the mean and std that are assumed of a network: ImageNet's for three channels, otherwise 0.5.

    Args:
        channels: The number of channels that it takes.
        axes: The number of spatial axes of its input; other inputs than images are assumed to be left as they
            are.
    """
    if axes != 2:
        return {"mean": [0.0] * channels, "std": [1.0] * channels}
    if channels == 3:
        return {"mean": IMAGENET_INPUT["mean"], "std": IMAGENET_INPUT["std"]}
    return {"mean": [0.5] * channels, "std": [0.5] * channels}


def count_axes(size: Any) -> int:
    """Return the number of spatial axes of an input: 2 of an image.

    Args:
        size: The config's `input.size`.
    """
    return len(size) if isinstance(size, list | tuple) else 2


def merge_input_settings(known: Mapping[str, Any], configured: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of a network's input, overridden by the config's `input`.

    A configured size without a configured `resize` drops the known one, unless that is "stretch"; configured
    channels without a configured mean drop the known mean and std of another number of channels, and reorder
    them between RGB and BGR.

    Args:
        known: Settings of the architecture or of torchvision's weights.
        configured: The network's `input` in the config.
    """
    if "size" in configured:
        known = {name: value for name, value in known.items() if name != "resize" or value == "stretch"}
    if "channels" in configured:
        count = count_channels(configured["channels"])
        if count != len(known["mean"]):
            known = {**known, **choose_normalization(count, count_axes({**known, **configured}["size"]))}
        if (configured["channels"] == "bgr") != (known.get("channels") == "bgr"):
            known = {**known, "mean": list(known["mean"])[::-1], "std": list(known["std"])[::-1]}
    return {**known, **configured}
