"""Networks, built from the config or loaded from disk, each with its preprocessing."""

import importlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from convatlas import UserError
from convatlas.files import read_json


@dataclass(frozen=True)
class Preprocessing:
    """From pixels to what a network expects: resize, scale to 0..1, subtract `mean`, divide by `std`."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, given: dict[str, Any], key: str = "input") -> "Preprocessing":
        """Check a config's `input`, completed by the architecture's; `key` is its place in the config."""
        if len(given["mean"]) != len(given["std"]) or len(given["mean"]) not in (1, 3):
            raise UserError(
                f"{key}: mean {given['mean']} and std {given['std']} must have one number a channel, 1 or 3"
            )
        return cls(given["size"], tuple(given["mean"]), tuple(given["std"]))

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of one image as the network sees it."""
        return len(self.mean), self.size, self.size

    def __call__(self, pixels: Tensor) -> Tensor:
        """Map (N, C, H, W) uint8 to (N, C, size, size) float32."""
        x = pixels.float() / 255
        if x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        mean, std = (x.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (x - mean) / std

    def read(self, path: str | Path) -> Tensor:
        """Read an image file, upright and on white, as (1, C, H, W) uint8, grey or RGB as needed."""
        mode = "L" if len(self.mean) == 1 else "RGB"
        try:
            with Image.open(path) as image:
                image = ImageOps.exif_transpose(image)
                if image.mode.startswith("I"):  # 16 bits, which convert() would clip
                    eight_bits = np.clip(np.round(np.asarray(image) / 257), 0, 255)
                    image = Image.fromarray(eight_bits.astype(np.uint8))
                if image.has_transparency_data:
                    image = Image.alpha_composite(
                        Image.new("RGBA", image.size, "white"), image.convert("RGBA")
                    )
                image = image.convert(mode)
        except UnidentifiedImageError as error:
            raise UserError(f"{path} is no image that can be read") from error
        except Exception as error:  # Pillow's readers raise many kinds for one damaged file
            raise UserError(f"cannot read the image {path}: {error}") from error
        pixels = np.atleast_3d(np.asarray(image))
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]


def build(
    settings: dict[str, Any], classes: Sequence[str], seed: int, key: str = "input"
) -> tuple[nn.Module, Preprocessing]:
    """Build a network's architecture with fresh weights drawn from `seed`.

    `settings` is the network's entry in the config; what its `input` names overrides the
    preprocessing that comes with the architecture, and `key` is where that stands.
    """
    name = settings["architecture"]
    architecture = importlib.import_module(f"convatlas.architectures.{name}")
    preprocessing = Preprocessing.of({**architecture.INPUT, **settings.get("input", {})}, key)
    torch.manual_seed(seed)
    network = getattr(architecture, name)(classes=len(classes)).eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, *preprocessing.shape))
    except RuntimeError as error:
        raise UserError(
            f"{key}: {name} does not take an input of shape {preprocessing.shape}: {error}"
        ) from error
    return network, preprocessing


def load(folder: str | Path) -> tuple[nn.Module, Preprocessing, dict[str, Any]]:
    """Load a trained network, its preprocessing and its network.json from results/<network>/."""
    description = read_json(Path(folder) / "network.json")
    settings = {"architecture": description["architecture"], "input": description["preprocessing"]}
    network, preprocessing = build(settings, description["classes"], seed=0)
    weights = Path(folder) / "weights.safetensors"
    try:
        network.load_state_dict(load_file(weights))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise UserError(
            f"{weights} is damaged or of another network ({error}); delete it and run again"
        ) from error
    return network.eval().requires_grad_(False), preprocessing, description


def described(preprocessing: Preprocessing) -> dict[str, Any]:
    """Its entry in network.json, from which `load` makes it again."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in asdict(preprocessing).items()
    }


def choose_device(name: str) -> torch.device:
    """Give the device that `auto`, `cpu` or `cuda` means here, set to compute reproducibly."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"device: cuda was asked for, but torch {torch.__version__} sees no CUDA device here; "
            "use auto or cpu, or run where there is one"
        )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which cuBLAS needs to be deterministic
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms, less seconds of imports
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # float32 means it
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
