"""The images looked at: chosen by class, by number, or the user's own files."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convatlas import UserError
from convatlas.names import image_names, test_indices
from convatlas.networks import Preprocessing

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Image:
    """One image looked at: where it comes from, and its pixels as the network sees them, (1, C, H, W)."""

    name: str
    x: Tensor
    index: int | None = None
    path: str | None = None
    label: int | None = None

    def described(self, probabilities: Tensor) -> dict[str, Any]:
        """Its entry in images.json, given the network's probabilities (classes,) for it."""
        prediction = int(probabilities.argmax())
        return {
            "name": self.name,
            "split": None if self.index is None else "test",
            "index": self.index,
            "path": self.path,
            "label": self.label,
            "prediction": prediction,
            "probability": float(probabilities[prediction]),
        }


def choose(
    wanted: dict[str, Any],
    network: nn.Module,
    preprocessing: Preprocessing,
    images: np.ndarray,
    labels: np.ndarray,
    device: torch.device,
    key: str,
) -> list[Image]:
    """Choose the images that the config's `images` section asks for, in its order.

    `images` (N, C, H, W) uint8 and `labels` (N,) are the test split. Raises UserError, which
    names `key`, the place in the config, where an image is not to be had.
    """

    def of_test(index: int) -> Tensor:
        return preprocessing(torch.from_numpy(images[index : index + 1].copy()).to(device))

    chosen = []
    names = iter(image_names(wanted))
    for digit in wanted.get("digits", []):
        index = _first_correct(digit, network, of_test, labels, key)
        chosen.append(Image(next(names), of_test(index), index, label=digit))
    for index in test_indices(wanted):
        if index >= len(images):
            raise UserError(f"{key}: there is no test image {index}; there are {len(images)}, counted from 0")
        chosen.append(Image(next(names), of_test(index), index, label=int(labels[index])))
    for path in wanted.get("files", []):
        try:
            pixels = preprocessing.read(path)
        except UserError as error:
            raise UserError(f"{key}.files: {error}") from error
        if pixels.shape[1] == 1 and pixels.float().median() > 127:
            log.warning(
                "%s is mostly bright, and digits are bright on dark here; invert it if it is a digit", path
            )
        chosen.append(Image(next(names), preprocessing(pixels.to(device)), path=str(path)))
    return chosen


@torch.no_grad()
def _first_correct(
    digit: int, network: nn.Module, of_test: Callable[[int], Tensor], labels: np.ndarray, key: str
) -> int:
    """Give the number of the first test image of a class that the network gets right."""
    candidates = np.flatnonzero(labels == digit)
    for index in candidates.tolist():
        if int(network(of_test(index)).argmax()) == digit:
            return index
    raise UserError(
        f"{key}.digits: none of the {len(candidates)} test images of class {digit} is classified correctly; "
        "train longer, or choose images by indices"
    )
