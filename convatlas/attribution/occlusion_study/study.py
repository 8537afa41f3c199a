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
from convatlas.models.outputs import LOGITS, Output, predict_classes, resize_scores
from convatlas.models.preprocessing import Preprocessing
from convatlas.tracing.calls import Call, raise_on_wrong_input, trace

MAX_BATCH_VALUES = 2**20  # of the inputs in one forward pass
BATCH_TOLERANCE = 1e-4  # of what an image gives in a batch, relative to the largest value that it gives alone


@dataclass(frozen=True)
class OcclusionStudy:
    """What a square over each part of an image changes; R rows and K columns of positions.

    Attributes:
        size: Side of the square in pixels.
        stride: Pixels between its positions.
        rows: First row of the square at each position, (R,); negative where it begins above the image.
        columns: First column, (K,).
        unit: The unit of the layer with the largest total activation in the image as it is, of the units
            whose total is finite.
        activation: Its total activation there, the sum over its map.
        activations: Its total activation at each position, (R, K) float32; it may be NaN or infinite.
        target: The class of the probabilities; None of a segmentation network.
        probability: Its probability for the image as it is.
        probabilities: At each position, (R, K) float32, NaN where there is no prediction; None of a
            segmentation network.
        prediction: The most probable class of the image as it is.
        predictions: At each position, (R, K) int32; −1 where a score is NaN or +∞.
        iou: The IoU of each class with the reference for the image as it is, (classes,) float32; None of a
            classifier, NaN of a class that is in neither.
        ious: At each position, (R, K, classes); NaN of all classes where a pixel has no prediction.
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
        UserError: The image has no two spatial axes, the network does not take it, does not call the layer or
            has no class scores of each image, the square is impossible, or nothing can be compared, as the
            layer or the scores are not finite or the reference has no pixel of known class.
    """
    if image.ndim != 3:
        raise UserError(f"occlusion is of images (C, H, W), and the input has the shape {tuple(image.shape)}")
    side, step = choose_square(image.shape[1:], size, stride)
    squares = list_squares(image.shape[1:], side, step)
    rows, columns = (np.arange(step - side, length, step) for length in image.shape[1:])
    grid = (len(rows), len(columns))
    filled = fill_colour(image[None], GREY, preprocessing)[0] if fill is None else fill
    runner = _Runner(network, layer, output, image, filled)
    totals, scores = runner.run(image[None])
    if not totals.isfinite().any():
        raise UserError(f"the layer {layer!r} has NaN or infinite values in every map")
    unit = int(totals[0].where(totals[0].isfinite(), -torch.inf).argmax())
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
    prediction = int(predict_classes(unchanged)[0])
    predictions = predict_classes(scores).int()
    _check_predictions(prediction >= 0, bool((predictions >= 0).any()))
    target = prediction if target is None else target
    probability = float(output.compute_probabilities(unchanged)[0, target])
    probabilities = output.compute_probabilities(scores)[:, target].where(predictions >= 0, torch.nan)
    return OcclusionStudy(
        *position,
        target=target,
        probability=probability,
        probabilities=probabilities.reshape(grid).numpy(),
        prediction=prediction,
        predictions=predictions.reshape(grid).numpy(),
    )


def _study_segmentation(
    position: _Position,
    unchanged: Tensor,
    scores: Sequence[Tensor],
    reference: np.ndarray | None,
    size: Sequence[int],
) -> OcclusionStudy:
    """Measure the IoU of each class at each position."""
    prediction = predict_classes(resize_scores(unchanged, size))[0]
    truth = prediction if reference is None else torch.from_numpy(reference.astype(np.int64))
    known = truth != 255
    if not known.any():
        raise UserError("its mask has no pixel of known class")
    n_classes = unchanged.shape[1]

    def measure(predicted: Tensor) -> Tensor:
        rows = []
        for c in range(n_classes):
            both, either = (truth == c) & (predicted == c), ((truth == c) | (predicted == c)) & known
            rows.append(both.flatten(1).sum(1) / either.flatten(1).sum(1))  # 0 / 0 is NaN
        has_all = (predicted >= 0).flatten(1).all(1)
        return torch.stack(rows, 1).where(has_all[:, None], torch.nan)

    ious = torch.cat([measure(predict_classes(resize_scores(part, size))) for part in scores])
    _check_predictions(bool((prediction >= 0).all()), bool((~ious.isnan()).any()))
    grid = position[-1].shape
    return OcclusionStudy(
        *position,
        iou=measure(prediction[None])[0].numpy(),
        ious=ious.reshape(*grid, n_classes).numpy(),
    )


def _check_predictions(of_image: bool, of_a_position: bool) -> None:
    """Refuse an image without a prediction as it is, or without one at every position of the square."""
    if not of_image:
        raise UserError("the scores of the image as it is are NaN or infinite")
    if not of_a_position:
        raise UserError("the scores are NaN or infinite at every position of the square")


class _Runner:
    """Runs a network, and returns the total activation of each unit of a layer, and the scores.

    A network that takes one image alone, or that gives an image in a batch other values than alone, as with
    statistics over the batch, runs on one image at a time.

    Args:
        network: The network.
        layer: Name of the layer.
        output: What the network's output means.
        image: The image as it is, (C, H, W).
        fill: What is seen within the square, (C, H, W), which is as unlike the image as any occluded one.
    """

    def __init__(self, network: nn.Module, layer: str, output: Output, image: Tensor, fill: Tensor) -> None:
        self.network, self.layer, self.output = network, layer, output
        self.takes_batches = self._check_batch(torch.stack([image, fill]))

    def run(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the totals (N, units) and the scores (N, classes, ...) for inputs (N, C, H, W), on the CPU.

        Raises:
            UserError: The network does not take the inputs or does not call the layer, or the layer or the
                output has no batch axis.
        """
        batches = [x] if self.takes_batches else torch.split(x, 1)
        totals, scores = zip(*(self._run_batch(batch) for batch in batches), strict=True)
        return torch.cat(totals), torch.cat(scores)

    def _check_batch(self, x: Tensor) -> bool:
        """Return whether a batch of images gives what the images give alone."""
        alone = [self._run_batch(image) for image in torch.split(x, 1)]
        try:
            together = self._run_batch(x)
        except (UserError, TypeError):  # a TypeError as of two elements used as an index
            return False
        return all(
            _is_close(batch, torch.cat(singles))
            for batch, singles in zip(together, zip(*alone, strict=True), strict=True)
        )

    @torch.no_grad()
    def _run_batch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network once."""
        totals: list[Tensor] = []

        def add(call: Call) -> None:
            if call.layer == self.layer and not totals:
                totals.append(self._sum_maps(call.output, len(x)))

        with raise_on_wrong_input(x), trace(self.network, add, [self.layer]):
            result = self.network(x.clone())
        if not totals:
            raise UserError(f"views.occlusion.layer: the network does not call the layer {self.layer!r}")
        scores = self.output.select_scores(result, len(x))
        if scores is None:
            raise UserError("the network's output has no class scores of each image")
        return totals[0].float().cpu(), scores.float().cpu()

    def _sum_maps(self, output: Tensor, count: int) -> Tensor:
        """Return the total activation of each unit, (N, units), of the layer's output."""
        shape = tuple(output.shape)
        if count == 1 and shape and shape[0] != 1:  # of a network that takes the image out of its batch
            output = output[None]
        if output.ndim < 2 or len(output) != count or not output.is_floating_point():
            raise UserError(f"views.occlusion.layer: {self.layer!r} has no units: its output is {shape}")
        return output.flatten(2).sum(2) if output.ndim > 2 else output.clone()


def _is_close(values: Tensor, expected: Tensor) -> bool:
    """Return whether values are those expected, apart from rounding; NaN equals NaN."""
    if values.shape != expected.shape:
        return False
    largest = float(expected.where(expected.isfinite(), 0).abs().max())
    return torch.allclose(values, expected, rtol=0, atol=BATCH_TOLERANCE * largest, equal_nan=True)
