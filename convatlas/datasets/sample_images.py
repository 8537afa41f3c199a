"""The sample images of a network: chosen by class or index from the test split, photographs, or files."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from convatlas import UserError, image_io, records
from convatlas.datasets.base import ImageDataset
from convatlas.models.outputs import LOGITS, Output
from convatlas.models.preprocessing import Preprocessing
from convatlas.names import PREDICTED_PROBABILITY, list_test_indices, make_printable, name_images
from convatlas.pipeline.config_types import ImagesConfig

log = logging.getLogger(__name__)

PHOTOGRAPHS = {  # those of scikit-image's that are in the public domain
    "cat": "chelsea.png",
    "astronaut": "astronaut.png",
    "coffee": "coffee.png",
    "rocket": "rocket.jpg",
}
MAX_CHECKED_FILES = 20  # before training: further ones are seldom of another kind
BRIGHT_MEDIAN = 127  # of a grey image's pixels, above which it is probably dark on bright


@dataclass(frozen=True)
class SampleInput:
    """A sample image as the network's input.

    Attributes:
        name: Its name in files and on pages.
        x: The preprocessed pixels (1, C, H, W) float32.
        index: Its index in the test split, if it is from there.
        path: Its file, if it has one.
        label: The index of its class in the data set, if it is known.
        values: Data type and range of its file, if that is not plain 8 bits.
    """

    name: str
    x: Tensor
    index: int | None = None
    path: str | None = None
    label: int | None = None
    values: records.ImageValues | None = None

    def to_dict(self, probabilities: Tensor | None, is_multi_label: bool = False) -> records.SampleImage:
        """Return its entry in images.json.

        Args:
            probabilities: The network's probabilities (classes,) for it; None if it is not a classifier.
            is_multi_label: Whether several classes may be right at once.
        """
        entry: records.SampleImage = {
            "name": self.name,
            "split": None if self.index is None else "test",
            "index": self.index,
            "path": make_printable(self.path) if self.path else self.path,
            "label": self.label,
            "prediction": None if probabilities is None else int(probabilities.argmax()),
            "probability": None if probabilities is None else float(probabilities.max()),
        }
        if probabilities is not None and is_multi_label:
            order = probabilities.argsort(descending=True, stable=True).tolist()
            values = probabilities.tolist()
            entry["predictions"] = [
                {"class": number, "probability": values[number]}
                for number in order
                if values[number] > PREDICTED_PROBABILITY
            ]
        if self.values is not None:
            entry["values"] = self.values
        return entry


def choose_images(
    selection: ImagesConfig,
    network: nn.Module,
    preprocessing: Preprocessing,
    test: ImageDataset | None,
    device: torch.device,
    key: str,
    output: Output = LOGITS,
) -> list[SampleInput]:
    """Choose and preprocess the sample images of a network.

    Args:
        selection: The section `images` of the config.
        network: The network; `digits` chooses the first image of a class that it classifies correctly.
        preprocessing: The network's preprocessing.
        test: The test split, if the network has a data set.
        device: Where the images are moved.
        key: The place of the section in the config, for error messages.
        output: What the network's output means.

    Returns:
        The images: by class, by index, photographs, files, each in the order of the config.

    Raises:
        UserError: An image is not available or cannot be read.
    """
    files = expand_files(selection, key)
    names = iter(name_images({**selection, "files": files}))
    images: list[SampleInput] = []
    digits, indices = selection.get("digits", []), list_test_indices({**selection})
    if digits or indices:
        if test is None:
            raise UserError(f"{key}: the network has no data set to take test images from; give files")
        split = _TestImages(test, preprocessing, device, key)
        images += [split.find_first_correct(next(names), digit, network, output) for digit in digits]
        images += [split.read(next(names), index) for index in indices]
    for photograph in selection.get("photographs", []):
        pixels = _read_photograph(photograph, preprocessing, key)
        source = f"scikit-image: {PHOTOGRAPHS[photograph]}"
        images.append(SampleInput(next(names), preprocessing(pixels.to(device)), path=source))
    skip = selection.get("on_bad_image") == "skip"
    for path, file in _read_files(files, preprocessing, skip, key):
        name = next(names)
        if file is not None:
            pixels, values = file
            images.append(SampleInput(name, preprocessing(pixels.to(device)), path=path, values=values))
    return images


@dataclass(frozen=True)
class _TestImages:
    """The test split as inputs of a network."""

    dataset: ImageDataset
    preprocessing: Preprocessing
    device: torch.device
    key: str

    def read(self, name: str, index: int) -> SampleInput:
        """Read the image of an index, with its label if it has one."""
        count = len(self.dataset)
        if index >= count:
            raise UserError(f"{self.key}: there is no test image {index}; there are {count}, counted from 0")
        label = int(self.dataset.labels[index])
        return SampleInput(name, self._read_input(index), index, label=label if label >= 0 else None)

    @torch.no_grad()
    def find_first_correct(self, name: str, digit: int, network: nn.Module, output: Output) -> SampleInput:
        """Read the first image of a class that the network classifies correctly."""
        if output.kind == "none" or output.is_per_pixel:
            raise UserError(
                f"{self.key}.digits: images are chosen by class where the network classifies them, and this "
                "network does not; choose images by first or indices"
            )
        candidates = np.flatnonzero(self.dataset.labels == digit).tolist()
        for index in candidates:
            x = self._read_input(index)
            probabilities = output.predict(network(x))
            if probabilities is not None and int(probabilities.argmax()) == digit:
                return SampleInput(name, x, index, label=digit)
        raise UserError(
            f"{self.key}.digits: none of the {len(candidates)} test images of class {digit} is classified "
            "correctly; train longer, or choose images by indices"
        )

    def _read_input(self, index: int) -> Tensor:
        """Read and preprocess an image: (1, C, H, W)."""
        target = self.preprocessing
        pixels = self.dataset.read_images(
            target.pixel_format, target.size, target.resize, [index], target.interpolation
        )
        return self.preprocessing(torch.from_numpy(pixels).to(self.device))


def find_file_errors(selection: ImagesConfig, preprocessing: Preprocessing, key: str) -> Iterator[str]:
    """Yield why a network does not take its photographs or the user's files, before it is trained.

    Args:
        selection: The section `images` of the config, with files, not folders.
        preprocessing: The network's preprocessing.
        key: The place of the section in the config.
    """
    try:
        for photograph in selection.get("photographs", []):
            _read_photograph(photograph, preprocessing, key)
        skip = selection.get("on_bad_image") == "skip"
        for _ in _read_files(selection.get("files", [])[:MAX_CHECKED_FILES], preprocessing, skip, key):
            pass
    except UserError as error:
        yield str(error)


def _read_photograph(name: str, preprocessing: Preprocessing, key: str) -> Tensor:
    """Return the pixels (1, C, H, W) of one of scikit-image's photographs."""
    try:
        return preprocessing.read_pixels(photograph_path(name))
    except UserError as error:
        raise UserError(f"{key}.photographs: {error}; choose images by files") from error


def _read_files(
    files: list[str], preprocessing: Preprocessing, skip: bool, key: str
) -> Iterator[tuple[str, tuple[Tensor, records.ImageValues | None] | None]]:
    """Yield each file with its pixels (1, C, H, W) and what its values are; None for one that is skipped."""
    input_key = key.removesuffix(".images")
    for path in files:
        try:
            pixels, values = preprocessing.read_pixels_and_values(path, f"{input_key}.input")
        except UserError as error:
            if not skip:
                raise UserError(
                    f"{key}.files: {error}; fix or remove it, or set {key}.on_bad_image: skip"
                ) from error
            log.warning("skipped: %s", error)
            yield path, None
            continue
        if pixels.shape[1] == 1 and pixels.float().median() > BRIGHT_MEDIAN:
            log.warning(
                "%s is mostly bright, and digits are bright on dark here; invert it if it is a digit", path
            )
        yield path, (pixels, values)


def expand_files(selection: ImagesConfig, key: str) -> list[str]:
    """Return the user's own files, folders replaced by the image files in them.

    Args:
        selection: The section `images` of the config.
        key: The place of the section in the config, for error messages.

    Raises:
        UserError: A file or folder does not exist, or a folder holds no images.
    """
    try:
        return [str(path) for path in image_io.expand_image_paths(selection.get("files", []))]
    except UserError as error:
        raise UserError(f"{key}.files: {error}") from error


def photograph_path(name: str) -> Path:
    """Return the path of one of scikit-image's photographs, by its name in PHOTOGRAPHS.

    Args:
        name: A key of PHOTOGRAPHS.
    """
    import skimage.data  # noqa: PLC0415  here only

    return Path(skimage.data.__file__).parent / PHOTOGRAPHS[name]
