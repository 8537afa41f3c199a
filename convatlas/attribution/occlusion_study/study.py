"""Move a grey square over an image, and measure a layer's strongest map and the prediction at each position.

Zeiler & Fergus, Visualizing and understanding convolutional networks (arXiv 1311.2901), figure 7.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from convatlas import UserError
from convatlas.attribution.baselines import GREY, fill_colour
from convatlas.attribution.methods.occlusion import choose_square, list_squares, occlude
from convatlas.models.outputs import LOGITS, Output, resize_scores
from convatlas.models.preprocessing import Preprocessing
from convatlas.tracing.calls import Call, trace

MAX_BATCH_VALUES = 2**20  # of the inputs in one forward pass


@dataclass(frozen=True)
class OcclusionStudy:
    """What a square over each part of an image changes; R rows and K columns of positions.

    Attributes:
        size: Side of the square in pixels.
        stride: Pixels between its positions.
        rows: First row of the square at each position, (R,); negative where it begins above the image.
        columns: First column, (K,).
        unit: The unit of the layer with the largest total activation in the image as it is.
        activation: Its total activation there, the sum over its map.
        activations: Its total activation at each position, (R, K) float32.
        target: The class of the probabilities; None of a segmentation network.
        probability: Its probability for the image as it is.
        probabilities: At each position, (R, K) float32; None of a segmentation network.
        prediction: The most probable class of the image as it is.
        predictions: At each position, (R, K) int32.
        iou: The IoU of each class with the reference for the image as it is, (classes,) float32; None of a
            classifier, NaN of a class that is in neither.
        ious: At each position, (R, K, classes).
    """

    size: int
    stride: int
    rows: np.ndarray
    columns: np.ndarray
    unit: int
    activation: float
    activations: np.ndarray
    target: int | None = None
    probability: float | None = None
    probabilities: np.ndarray | None = None
    prediction: int | None = None
    predictions: np.ndarray | None = None
    iou: np.ndarray | None = None
    ious: np.ndarray | None = None


def study_occlusion(
    network: nn.Module,
    image: Tensor,
    layer: str,
    preprocessing: Preprocessing | None = None,
    output: Output = LOGITS,
    target: int | None = None,
    reference: np.ndarray | None = None,
    size: int | None = None,
    stride: int | None = None,
    fill: Tensor | None = None,
) -> OcclusionStudy:
    """Measure a layer's strongest map and the prediction with a square over each part of an image.

    Args:
        network: A classifier or a segmentation network; it runs in evaluation mode, and is left as it was.
        image: A preprocessed image, (C, H, W).
        layer: Name of the layer.
        preprocessing: That of the image, by which grey is 0.5 before normalisation; None of an image in 0..1.
        output: What the network's output means.
        target: The class whose probability is measured; None for the one predicted for the image as it is.
        reference: Of a segmentation network the class of each pixel, (H, W); 255 is unknown. None compares
            with the prediction for the image as it is.
        size: Side of the square in pixels; None chooses two strides.
        stride: Pixels between its positions; None chooses half of the size, or an eighth of the shorter side.
        fill: What is seen within the square, (C, H, W); None for grey.

    Raises:
        UserError: The image has no two spatial axes, the network does not call the layer, it has no class
            scores of each image, or the square is impossible.
    """
    if image.ndim != 3:
        raise UserError(f"occlusion is of images (C, H, W), and the input has the shape {tuple(image.shape)}")
    side, step = choose_square(image.shape[1:], size, stride)
    squares = list_squares(image.shape[1:], side, step)
    rows, columns = (np.arange(step - side, length, step) for length in image.shape[1:])
    grid = (len(rows), len(columns))
    filled = fill_colour(image[None], GREY, preprocessing)[0] if fill is None else fill
    runner = _Runner(network, layer, output)
    totals, scores = runner.run(image[None])
    unit = int(totals[0].argmax())
    parts = []
    batch_size = max(1, MAX_BATCH_VALUES // image.numel())
    for start in range(0, len(squares), batch_size):
        parts.append(runner.run(occlude(image, squares[start : start + batch_size], filled)))
    activations = torch.cat([part[0][:, unit] for part in parts]).reshape(grid).numpy()
    position = (side, step, rows, columns, unit, float(totals[0, unit]), activations)
    all_scores = [part[1] for part in parts]
    if scores.ndim == 4:
        return _study_segmentation(position, scores, all_scores, reference, image.shape[1:])
    return _study_classes(position, scores, torch.cat(all_scores), output, target)


_Position = tuple[int, int, np.ndarray, np.ndarray, int, float, np.ndarray]


def _study_classes(
    position: _Position, unchanged: Tensor, scores: Tensor, output: Output, target: int | None
) -> OcclusionStudy:
    """Measure the probability of a class, and the most probable class, at each position."""
    grid = position[-1].shape
    prediction = int(unchanged[0].argmax())
    target = prediction if target is None else target
    probability = float(output.compute_probabilities(unchanged)[0, target])
    probabilities = output.compute_probabilities(scores)[:, target].reshape(grid).numpy()
    predictions = scores.argmax(1).int().reshape(grid).numpy()
    return OcclusionStudy(
        *position,
        target=target,
        probability=probability,
        probabilities=probabilities,
        prediction=prediction,
        predictions=predictions,
    )


def _study_segmentation(
    position: _Position,
    unchanged: Tensor,
    scores: Sequence[Tensor],
    reference: np.ndarray | None,
    size: Sequence[int],
) -> OcclusionStudy:
    """Measure the IoU of each class at each position."""
    prediction = resize_scores(unchanged, size)[0].argmax(0)
    truth = prediction if reference is None else torch.from_numpy(reference.astype(np.int64))
    n_classes = unchanged.shape[1]

    def measure(predicted: Tensor) -> Tensor:
        rows = []
        known = truth != 255
        for c in range(n_classes):
            both, either = (truth == c) & (predicted == c), ((truth == c) | (predicted == c)) & known
            rows.append(both.flatten(1).sum(1) / either.flatten(1).sum(1))  # 0 / 0 is NaN
        return torch.stack(rows, 1)

    ious = torch.cat([measure(resize_scores(part, size).argmax(1)) for part in scores])
    grid = position[-1].shape
    return OcclusionStudy(
        *position,
        iou=measure(prediction[None])[0].numpy(),
        ious=ious.reshape(*grid, n_classes).numpy(),
    )


class _Runner:
    """Runs a network, and returns the total activation of each unit of a layer, and the scores.

    Args:
        network: The network.
        layer: Name of the layer.
        output: What the network's output means.
    """

    def __init__(self, network: nn.Module, layer: str, output: Output) -> None:
        self.network, self.layer, self.output = network, layer, output

    @torch.no_grad()
    def run(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the totals (N, units) and the scores (N, classes, ...) for inputs (N, C, H, W), on the CPU.

        Raises:
            UserError: The network does not call the layer, or the layer or the output has no batch axis.
        """
        totals: list[Tensor] = []

        def add(call: Call) -> None:
            if call.layer != self.layer or totals:
                return
            shape = tuple(call.output.shape)
            if len(shape) < 2 or shape[0] != len(x) or not call.output.is_floating_point():
                raise UserError(f"views.occlusion.layer: {self.layer!r} has no units: its output is {shape}")
            totals.append(call.output.flatten(2).sum(2) if len(shape) > 2 else call.output.clone())

        with trace(self.network, add, [self.layer]):
            result = self.network(x.clone())
        if not totals:
            raise UserError(f"views.occlusion.layer: the network does not call the layer {self.layer!r}")
        scores = self.output.select_scores(result, len(x))
        if scores is None:
            raise UserError("the network's output has no class scores of each image")
        return totals[0].float().cpu(), scores.float().cpu()
