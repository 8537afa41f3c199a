"""Measure at which layer a network's maps become the mask: on pets, whose trimaps tell where the pet is."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from convatlas import UserError, cli, image_io
from convatlas.analysis import accumulators, segmentation
from convatlas.datasets import cache, formats
from convatlas.datasets.formats import MASK_CLASSES
from convatlas.datasets.oxford_pets import OxfordPetDataset
from convatlas.files import atomic_write, read_json, write_json, write_npz
from convatlas.models import build
from convatlas.models.preprocessing import Preprocessing
from convatlas.training import metrics

PET, BACKGROUND = MASK_CLASSES.index("pet"), MASK_CLASSES.index("background")
BATCH_SIZE = 16  # images predicted at a time


def main(given: argparse.Namespace) -> None:
    torch.set_num_threads(given.threads)
    device = build.choose_device(given.device)
    output = Path(given.output)
    description = read_json(output / "network.json")
    layers = segmentation.select_convolutions(read_json(output / "layers.json"))
    network, preprocessing = build.load_network(output)
    network.to(device)

    splits = {name: MaskSplit.load(given.data, name, preprocessing) for name in ("train", "test")}
    samples = {
        name: MaskSample(
            split,
            sample_indices(len(split.pixels), given.settings[name], f"{given.data}: the {name} split"),
            device,
        )
        for name, split in splits.items()
    }
    segments = is_segmentation(network, preprocessing, description["classes"])
    images, arrays = predict_examples(network, preprocessing, splits["test"]) if segments else ([], {})

    found = {
        "size": list(preprocessing.shape[1:]),
        "images": {name: len(sample.indices) for name, sample in samples.items()},
        "pet_share": samples["test"].pet_share(),
        "cutoff_frequency": accumulators.CUTOFF_FREQUENCY,
        **measure_layers(network, layers, samples["train"], samples["test"]),
        "examples": images,
        "is_segmentation": segments,
    }
    with atomic_write(output / "masks") as folder:
        folder.mkdir()
        write_json(folder / "masks.json", found)
        if segments:
            write_npz(folder / "examples.npz", arrays)


def sample_indices(count: int, wanted: int, of: str) -> list[int]:
    """Indices drawn evenly over a split; all where fewer are there. Raises UserError below two."""
    if min(count, wanted) < 2:
        raise UserError(
            f"{of} has {count} images and {wanted} are wanted; the mask needs two at least, for each is "
            "compared with the mask of another"
        )
    return np.linspace(0, count - 1, min(count, wanted)).round().astype(int).tolist()


@dataclass(frozen=True)
class MaskSplit:
    """A split at the network's size: images (N, C, H, W) and classes of pixels (N, H, W), uint8, on disk."""

    examples: OxfordPetDataset
    preprocessing: Preprocessing
    pixels: np.ndarray
    classes: np.ndarray

    @classmethod
    def load(cls, folder: str, name: str, how: Preprocessing) -> "MaskSplit":
        """The split of this name of the data set in a folder. Raises UserError where it has no masks."""
        examples = formats.load(folder, name)
        if not isinstance(examples, OxfordPetDataset):
            raise UserError(
                f"{folder} has no masks; the mask is looked for on Oxford-IIIT Pet's trimaps alone"
            )
        pixels = cache.load_images(folder, name, how.mode, how.size, how.resize, how.interpolation)
        return cls(examples, how, pixels, cache.load_masks(folder, name, how.size, how.resize))

    def head_mask(self, n: int) -> np.ndarray | None:
        """The box of a head as a mask, (H, W) bool; None where no box is known, or none in sight."""
        box = self.examples.read_head_box(n)
        if box is None:
            return None
        left, top, right, bottom = (max(corner, 0) for corner in box)
        width, height = self.examples.read_trimap(n).size
        filled = np.zeros((height, width), np.uint8)
        filled[top:bottom, left:right] = 1
        fitted = (
            image_io.resize_labels_to(
                Image.fromarray(filled), self.preprocessing.size, self.preprocessing.resize
            )
            == 1
        )
        return fitted if fitted.any() else None


@dataclass(frozen=True)
class MaskSample:
    """Images of a split, as masks.py takes them, each made when it is asked for.

    The other mask is that of the image half of the sample away, which is seldom of the same breed.
    """

    split: MaskSplit
    indices: list[int]
    device: torch.device

    def __iter__(self) -> Iterator[segmentation.MaskedImage]:
        split, half = self.split, len(self.indices) // 2
        for n, other in zip(self.indices, self.indices[half:] + self.indices[:half], strict=True):
            pixels, head = split.pixels[n], split.head_mask(n)
            yield segmentation.MaskedImage(
                split.preprocessing(self._tensor(pixels)[None]),
                self._tensor(split.classes[n] == PET),
                self._tensor(split.classes[other] == PET),
                self._tensor(segmentation.sobel_magnitude(pixels / 255)),
                None if head is None else self._tensor(head),
            )

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def pet_share(self) -> float:
        """The pet's share of the images' pixels."""
        return float(np.mean([(self.split.classes[n] == PET).mean() for n in self.indices]))


def measure_layers(
    network: nn.Module, layers: list[dict[str, Any]], train: MaskSample, test: MaskSample
) -> dict[str, Any]:
    """The three passes: the entries "final", "emergence" and "layers" of masks.json."""
    names = [layer["name"] for layer in layers]
    spans = segmentation.measure_ranges(network, names, train)
    cli.log.info("ranges of %d layers' units on %d training images", len(names), len(train.indices))
    chosen = segmentation.select_layer_units(network, names, train, spans)
    cli.log.info("chose units and levels by every unit's agreement with the mask")
    found = segmentation.evaluate_selection(network, chosen, test)
    rows = [
        {key: layer[key] for key in ("name", "ordinal", "role")}
        | {"shape": layer["output_shape"]}
        | found[layer["name"]]
        for layer in layers
    ]
    reached = segmentation.find_emergence(rows)
    if rows:
        final, first = reached["final"], reached["emergence"]["layer"]
        told = "tested on %d images: %s agrees by IoU %.3f, and %s is the first to reach nine tenths of it"
        cli.log.info(told, len(test.indices), final["layer"], final["iou"], first)
    return reached | {"layers": rows}


# Segmentation networks


def is_segmentation(network: nn.Module, preprocessing: Preprocessing, classes: list[str] | None) -> bool:
    """Whether a network tells a trimap's classes apart at every pixel of its input."""
    made = build.run_on_zeros(network, preprocessing)
    shape = (1, len(MASK_CLASSES), *preprocessing.shape[1:])
    return made is not None and made.shape == shape and classes == MASK_CLASSES


@dataclass(frozen=True)
class PredictionScore:
    """How well a test image's prediction agrees with its trimap: IoU a class, None where it is in neither."""

    index: int
    iou: dict[str, float | None]
    mean_iou: float

    @classmethod
    def from_prediction(cls, index: int, prediction: np.ndarray, truth: np.ndarray) -> "PredictionScore":
        """Compare a prediction with the truth, (H, W) uint8 both; pixels beyond the image do not count."""
        known, count = truth < len(MASK_CLASSES), len(MASK_CLASSES)
        pairs = np.bincount(count * truth[known].astype(int) + prediction[known], minlength=count**2)
        confusion = torch.from_numpy(pairs.reshape(count, count))
        iou, _ = metrics.iou_and_dice(confusion)
        return cls(index, dict(zip(MASK_CLASSES, iou, strict=True)), metrics.mean_iou(confusion))


def predict_examples(
    network: nn.Module, preprocessing: Preprocessing, test: MaskSplit
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """The first test image, and the best, median and worst by the pet's IoU: what is told, and the arrays."""

    def predicted(start: int) -> np.ndarray:
        return predict_classes(network, preprocessing, test.pixels[start : start + BATCH_SIZE])

    scored = [
        PredictionScore.from_prediction(index, prediction, test.classes[index])
        for start in range(0, len(test.pixels), BATCH_SIZE)
        for index, prediction in enumerate(predicted(start), start)
    ]
    cli.log.info("predicted the masks of %d test images", len(scored))
    chosen = {"first": scored[0], **rank_predictions(scored)}
    indices = [score.index for score in chosen.values()]
    truth = test.classes[indices]
    told = [
        {"rank": which, "index": s.index, "name": test.examples.names[s.index], "iou": s.iou}
        | {"mean_iou": s.mean_iou}
        for which, s in chosen.items()
    ]
    return told, {
        "photograph": to_rgb(test.pixels[indices]),
        "truth": np.where(truth == formats.IGNORE_INDEX, BACKGROUND, truth).astype(np.uint8),
        # Again in their batches, for in others the last digits of a logit may differ.
        "prediction": np.stack(
            [predicted(index - index % BATCH_SIZE)[index % BATCH_SIZE] for index in indices]
        ),
    }


def rank_predictions(scored: list[PredictionScore]) -> dict[str, PredictionScore]:
    """The best, the median and the worst by the pet's IoU, of equal the first; of those with a pet."""
    known = [score for score in scored if score.iou["pet"] is not None] or scored
    ordered = sorted(known, key=lambda score: (-(score.iou["pet"] or 0), score.index))
    return {"best": ordered[0], "median": ordered[len(ordered) // 2], "worst": ordered[-1]}


@torch.no_grad()
def predict_classes(network: nn.Module, preprocessing: Preprocessing, pixels: np.ndarray) -> np.ndarray:
    """The class of every pixel of images (N, C, H, W) uint8: (N, H, W) uint8."""
    x = preprocessing(torch.from_numpy(pixels).to(build.get_device(network)))
    logits: Tensor = build.select_main_output(network(x))
    return logits.argmax(1).to(torch.uint8).cpu().numpy()


def to_rgb(pixels: np.ndarray) -> np.ndarray:
    """Images (N, C, H, W) as (N, H, W, 3); grey ones become grey in colour."""
    return np.broadcast_to(pixels, (len(pixels), 3, *pixels.shape[2:])).transpose(0, 2, 3, 1)


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        'how many images are used, {"train": 32, "test": 32}',
        "its folder, results/<network>, where its weights and layers are",
    )
    parser.add_argument("--data", required=True, help="the data set's folder, data/<dataset>, with trimaps")
    cli.add_compute_arguments(parser)
    cli.run(main, parser)
