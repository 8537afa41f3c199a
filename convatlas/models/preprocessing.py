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
from convatlas.records import Preprocessing as PreprocessingRecord

IMAGENET_INPUT: InputConfig = {"size": 224, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
GREY_INPUT: InputConfig = {"size": 224, "mean": [0.5], "std": [0.5]}


@dataclass(frozen=True)
class Preprocessing:
    """Bring an image to a size, scale it to 0..1, subtract `mean` and divide by `std`.

    Attributes:
        size: Height and width (H, W) of the network's input in pixels; one number stands for a square.
        mean: Mean of each channel, of values in 0..1; one number for grey images, three for RGB.
        std: Standard deviation of each channel.
        resize: What precedes the crop of the centre to `size`: "cover" resizes the image, at its aspect
            ratio, to the smallest size that covers it; a number is the length to which the shorter side is
            resized; "stretch" resizes both sides to `size`.
        interpolation: "bilinear", "bicubic" or "nearest".
    """

    size: image_io.Size
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | str = "cover"
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", image_io.as_size(self.size))

    @classmethod
    def from_config(cls, settings: Mapping[str, Any], key: str = "input") -> "Preprocessing":
        """Check a config's `input` and return it as preprocessing.

        Args:
            settings: The fields by name, `size`, `mean` and `std` among them.
            key: Place of `settings` in the config, for messages.

        Raises:
            UserError: A name is unknown, the size is not one or two numbers of pixels, or mean and std do not
                have one number a channel, 1 or 3.
        """
        known_names = [field.name for field in fields(cls)]
        for name in settings:
            if name not in known_names:
                raise UserError(f"{key}: unknown {name!r}; {suggest_nearest(name, known_names)}")
        size = settings["size"]
        sides = size if isinstance(size, list | tuple) and len(size) == 2 else [size]
        if not all(isinstance(side, int) and side > 0 for side in sides):
            raise UserError(f"{key}.size: {size!r} is neither a number of pixels nor [height, width]")
        mean, std = settings["mean"], settings["std"]
        if len(mean) != len(std) or len(mean) not in (1, 3):
            raise UserError(f"{key}: mean {mean} and std {std} must have one number a channel, 1 or 3")
        fields_by_name: dict[str, Any] = {**settings, "mean": tuple(mean), "std": tuple(std)}
        return cls(**fields_by_name)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of one input."""
        return len(self.mean), *self.size

    @property
    def mode(self) -> str:
        """Pillow's mode of the images that the network takes: "L" (grey) or "RGB"."""
        return "L" if len(self.mean) == 1 else "RGB"

    def read_pixels(self, path: str | Path) -> Tensor:
        """Read an image file, upright and on white, as pixels (1, C, H, W), uint8.

        Args:
            path: The image file.

        Raises:
            UserError: The file is missing or not an image.
        """
        image = image_io.read_image(path, self.mode)
        pixels = image_io.resize_to(image, self.size, self.resize, self.interpolation)
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]

    def with_shorter_side(self, pixels: int) -> "Preprocessing":
        """Return the preprocessing for inputs of another size and the same aspect ratio.

        Args:
            pixels: Length of the shorter side of the input.
        """
        height, width = (max(1, round(side * pixels / min(self.size))) for side in self.size)
        return replace(self, size=(height, width))

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the network's input of some images.

        Args:
            pixels: Images (N, C, H, W), uint8; of another size than `size` they are resized, in float.

        Returns:
            The normalised input (N, C, H, W), float32.
        """
        x = pixels.float() / 255
        if x.shape[-2:] != self.size:
            x = F.interpolate(x, self.size, mode="bilinear", antialias=True)
        mean, std = (x.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (x - mean) / std

    def to_dict(self) -> PreprocessingRecord:
        """Return the entry of network.json, which `from_config` reads."""
        height, width = self.size
        return {
            "size": height if height == width else [height, width],
            "mean": list(self.mean),
            "std": list(self.std),
            "resize": self.resize,
            "interpolation": self.interpolation,
        }


def merge_input_settings(known: Mapping[str, Any], configured: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of a network's input, overridden by the config's `input`.

    A configured size without a configured `resize` drops the known one, unless that is "stretch".

    Args:
        known: Settings of the architecture or of torchvision's weights.
        configured: The network's `input` in the config.
    """
    if "size" in configured:
        known = {name: value for name, value in known.items() if name != "resize" or value == "stretch"}
    return {**known, **configured}
