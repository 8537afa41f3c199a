"""From image files to what a network expects."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from convatlas import UserError, image_io
from convatlas.names import suggest_nearest

IMAGENET_INPUT = {"size": 224, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
GREY_INPUT = {"size": 224, "mean": [0.5], "std": [0.5]}


@dataclass(frozen=True)
class Preprocessing:
    """Bring an image to `size`, scale it to 0..1, subtract `mean`, divide by `std`.

    `resize` is what the shorter side is brought to before size × size are cut from the middle, by
    default the size itself; or "stretch", which brings the whole image to size × size.
    `interpolation` is "bilinear", "bicubic" or "nearest".
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | str = 0
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if not self.resize:
            object.__setattr__(self, "resize", self.size)

    @classmethod
    def from_config(cls, given: dict[str, Any], key: str = "input") -> "Preprocessing":
        """Check a config's `input`, completed by the architecture's; `key` is its place in the config."""
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                raise UserError(f"{key}: unknown {name!r}; {suggest_nearest(name, known)}")
        if len(given["mean"]) != len(given["std"]) or len(given["mean"]) not in (1, 3):
            raise UserError(
                f"{key}: mean {given['mean']} and std {given['std']} must have one number a channel, 1 or 3"
            )
        return cls(
            **{key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of one image as the network sees it."""
        return len(self.mean), self.size, self.size

    @property
    def mode(self) -> str:
        """What Pillow calls the colours that the network sees: "L", grey, or "RGB"."""
        return "L" if len(self.mean) == 1 else "RGB"

    def read_pixels(self, path: str | Path) -> Tensor:
        """Read an image file, upright and on white, as (1, C, size, size) uint8."""
        image = image_io.read_image(path, self.mode)
        pixels = image_io.resize_to(image, self.size, self.resize, self.interpolation)
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]

    def __call__(self, pixels: Tensor) -> Tensor:
        """Map (N, C, H, W) uint8 to (N, C, size, size) float32; another size is resized, in float."""
        x = pixels.float() / 255
        if x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        mean, std = (x.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (x - mean) / std

    def to_dict(self) -> dict[str, Any]:
        """Its entry in network.json, from which `of` makes it again."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}


def merge_input_settings(known: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What is known of a network's input, with the config's `input` over it.

    Another size brings another resize along, unless that is given too.
    """
    if "size" in given:
        known = {key: value for key, value in known.items() if key != "resize" or value == "stretch"}
    return {**known, **given}
