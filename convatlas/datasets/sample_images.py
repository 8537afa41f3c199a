"""The images looked at: chosen by class, by number, or the user's own files."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convatlas import UserError, image_io
from convatlas.datasets.formats import ImageDataset
from convatlas.models.build import select_main_output
from convatlas.models.preprocessing import Preprocessing
from convatlas.names import list_test_indices, name_images

log = logging.getLogger(__name__)

PHOTOGRAPHS = {  # of scikit-image's, those in the public domain
    "cat": "chelsea.png",
    "astronaut": "astronaut.png",
    "coffee": "coffee.png",
    "rocket": "rocket.jpg",
}


@dataclass(frozen=True)
class SampleImage:
    """One image looked at: where it comes from, and its pixels as the network sees them, (1, C, H, W)."""

    name: str
    x: Tensor
    index: int | None = None
    path: str | None = None
    label: int | None = None

    def to_dict(self, probabilities: Tensor | None) -> dict[str, Any]:
        """Its entry in images.json, given the network's probabilities (classes,) for it, if it classifies."""
        prediction = None if probabilities is None else int(probabilities.argmax())
        return {
            "name": self.name,
            "split": None if self.index is None else "test",
            "index": self.index,
            "path": self.path,
            "label": self.label,
            "prediction": prediction,
            "probability": None if probabilities is None else float(probabilities.max()),
        }


def choose_images(
    wanted: dict[str, Any],
    network: nn.Module,
    preprocessing: Preprocessing,
    test: ImageDataset | None,
    device: torch.device,
    key: str,
) -> list[SampleImage]:
    """Choose the images that the config's `images` section asks for, in its order.

    `test` is the test split, if the network has a data set. Raises UserError, which names `key`, the
    place in the config, where an image is not to be had.
    """

    def of_test(index: int) -> Tensor:
        how = preprocessing
        pixels = test.read_images(how.mode, how.size, how.resize, [index], how.interpolation)
        return how(torch.from_numpy(pixels).to(device))

    chosen = []
    files = expand_files(wanted, key)
    names = iter(name_images(wanted | {"files": files}))
    if test is None and (wanted.get("digits") or list_test_indices(wanted)):
        raise UserError(f"{key}: the network has no data set to take test images from; give files")
    for digit in wanted.get("digits", []):
        index = _find_first_correct(digit, network, of_test, test.labels, key)
        chosen.append(SampleImage(next(names), of_test(index), index, label=digit))
    for index in list_test_indices(wanted):
        if index >= len(test):
            raise UserError(f"{key}: there is no test image {index}; there are {len(test)}, counted from 0")
        label = int(test.labels[index])
        chosen.append(SampleImage(next(names), of_test(index), index, label=label if label >= 0 else None))
    for photograph in wanted.get("photographs", []):
        pixels = preprocessing.read_pixels(photograph_path(photograph))
        where = f"scikit-image: {PHOTOGRAPHS[photograph]}"
        chosen.append(SampleImage(next(names), preprocessing(pixels.to(device)), path=where))
    for path in files:
        name = next(names)
        try:
            pixels = preprocessing.read_pixels(path)
        except UserError as error:
            if wanted.get("on_bad_image") == "skip":
                log.warning("left out: %s", error)
                continue
            raise UserError(
                f"{key}.files: {error}; mend or remove it, or set {key}.on_bad_image: skip"
            ) from error
        if pixels.shape[1] == 1 and pixels.float().median() > 127:
            log.warning(
                "%s is mostly bright, and digits are bright on dark here; invert it if it is a digit", path
            )
        chosen.append(SampleImage(name, preprocessing(pixels.to(device)), path=str(path)))
    return chosen


def expand_files(wanted: dict[str, Any], key: str) -> list[str]:
    """The user's own files, folders among them expanded."""
    try:
        return [str(path) for path in image_io.expand_image_paths(wanted.get("files", []))]
    except UserError as error:
        raise UserError(f"{key}.files: {error}") from error


def photograph_path(name: str) -> Path:
    """Where scikit-image keeps one of its photographs."""
    import skimage.data  # noqa: PLC0415  here only

    return Path(skimage.data.__file__).parent / PHOTOGRAPHS[name]


@torch.no_grad()
def _find_first_correct(
    digit: int, network: nn.Module, of_test: Callable[[int], Tensor], labels: np.ndarray, key: str
) -> int:
    """Give the number of the first test image of a class that the network gets right."""
    candidates = np.flatnonzero(labels == digit)
    for index in candidates.tolist():
        if int(select_main_output(network(of_test(index))).argmax()) == digit:
            return index
    raise UserError(
        f"{key}.digits: none of the {len(candidates)} test images of class {digit} is classified correctly; "
        "train longer, or choose images by indices"
    )


def compute_probabilities(output: Any) -> Tensor | None:
    """What a network's output (1, K) says of the classes, (K,); None where it is no classifier's.

    Logits and their logarithms go through the softmax; probabilities are taken as they are.
    """
    scores = select_main_output(output)
    if scores.ndim != 2 or len(scores) != 1:
        return None
    scores = scores[0].float()
    if scores.min() >= 0 and abs(float(scores.sum()) - 1) < 1e-4:
        return scores
    return scores.softmax(0)
