"""Where segmentation emerges, against loops over all thresholds, pairs of pixels, spectra, and numpy."""

import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage.filters import sobel
from torch import Tensor, nn
from torch.nn import functional as F

from convatlas import UserError, image_io
from convatlas.analysis import accumulators, classical, segmentation
from convatlas.analysis.accumulators import (
    BINS,
    HeadShareAccumulator,
    MaskHistogram,
    RunningCorrelation,
    ValueRange,
    compute_aucs,
    find_best_threshold,
    high_frequency_share,
)
from convatlas.analysis.masked_images import (
    MaskedImage,
    MaskSample,
    MaskSplit,
    sample_indices,
    sobel_magnitude,
)
from convatlas.analysis.segmentation import measure_ranges, select_convolutions, select_layer_units
from convatlas.analysis.segmentation_evaluation import evaluate_selection
from convatlas.analysis.segmentation_examples import PredictionScore, rank_predictions
from convatlas.analysis.segmentation_report import measure_layers, write_segmentation_analysis
from convatlas.analysis.selection_evaluator import SelectionEvaluator
from convatlas.datasets import formats
from convatlas.datasets.synthetic_pets.generate import draw_pets
from convatlas.models import build
from convatlas.models.output_choice import ClassCounts
from convatlas.models.output_kinds import decide_output
from convatlas.pixels import RGB
from convatlas.records import UnitSegmentation
from convatlas.tracing import layers as layers_module

SIZE = 12
LAYERS = ["0", "2"]


def make_mask(generator: torch.Generator, size: int = SIZE) -> Tensor:
    """Return a mask of one smooth piece, about a quarter of the image."""
    noise = torch.rand(1, 1, 4, 4, generator=generator)
    smooth = F.interpolate(noise, (size, size), mode="bicubic")[0, 0]
    return smooth > smooth.quantile(0.7)


def make_images(count: int, seed: int, contrast: float = 0.5) -> list[MaskedImage]:
    """Return noise with a faint mask in the first channel; the other mask is that of the next image."""
    generator = torch.Generator().manual_seed(seed)
    masks = [make_mask(generator) for _ in range(count)]
    images = []
    for n, mask in enumerate(masks):
        x = torch.randn(1, 3, SIZE, SIZE, generator=generator)
        x[0, 0] += contrast * mask
        head = torch.zeros(SIZE, SIZE, dtype=torch.bool)
        head[2:6, 3 : 5 + n] = True
        edges = torch.from_numpy(sobel_magnitude(x[0].sigmoid().numpy()))
        images.append(MaskedImage(x, mask, masks[(n + 1) % count], edges, head if n % 2 else None))
    return images


def make_network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 5, 3, 1, 1))


def select_and_evaluate(
    network: nn.Module, layers: list[str], train: list[MaskedImage], test: list[MaskedImage]
) -> dict[str, UnitSegmentation]:
    """Run all three passes."""
    selections = select_layer_units(network, measure_ranges(network, layers, train), train)
    return evaluate_selection(network, selections, test).layers


def compute_maps(
    network: nn.Sequential, images: list[MaskedImage], layer: str, size: int | None = SIZE
) -> np.ndarray:
    """Return a layer's maps of all images, (units, images, H, W), by running the network up to the layer."""
    with torch.no_grad():
        maps = torch.cat([network[: int(layer) + 1](image.x) for image in images])
        if size:
            maps = F.interpolate(maps, (size, size), mode="bilinear")
    return maps.transpose(0, 1).numpy()


def stack_masks(images: list[MaskedImage], name: str) -> np.ndarray:
    return np.stack([getattr(image, name).numpy() for image in images])


def compute_iou(predicted: np.ndarray, mask: np.ndarray) -> float:
    return (predicted & mask).sum() / max((predicted | mask).sum(), 1)


def apply_all_thresholds(
    maps: np.ndarray, low: np.ndarray, high: np.ndarray
) -> dict[tuple[int, int, bool], Any]:
    """Return the masks of every unit, bin edge and direction, in the order in which they are tried."""
    masks = {}
    for unit, values in enumerate(maps):
        for at_least in (True, False):
            for edge in range(BINS):
                threshold = float(low[unit]) + float(high[unit] - low[unit]) * edge / BINS
                mask = values >= threshold if edge else np.full(values.shape, True)
                masks[unit, edge, at_least] = mask if at_least else ~mask
    return masks


# Selection


@pytest.mark.parametrize("layer", LAYERS)
def test_the_best_threshold_is_chosen_on_training_images_and_measured_on_test_images(layer: str) -> None:
    network, train, test = make_network(), make_images(6, 1), make_images(5, 2)
    selections = select_layer_units(network, measure_ranges(network, LAYERS, train), train)
    result = evaluate_selection(network, selections, test).layers[layer]
    raw = compute_maps(network, train, layer, None)
    low, high = raw.min((1, 2, 3)), raw.max((1, 2, 3))
    for name, threshold, iou in (
        ("mask", selections[layer].mask_threshold, result["iou"]),
        ("other_mask", selections[layer].chance_threshold, result["chance_iou"]),
    ):
        masks = stack_masks(train, name)
        predicted = apply_all_thresholds(compute_maps(network, train, layer), low, high)
        ious = {key: compute_iou(mask, masks) for key, mask in predicted.items()}
        assert threshold.iou == pytest.approx(max(ious.values()), abs=1e-12)
        key = threshold.unit, threshold.bin_edge, threshold.at_least
        assert ious[key] == pytest.approx(threshold.iou, abs=1e-12)
        value = low[threshold.unit] + (high - low)[threshold.unit] * threshold.bin_edge / BINS
        test_mask = compute_maps(network, test, layer)[threshold.unit] >= value
        test_mask = test_mask if threshold.at_least else ~test_mask
        assert iou == pytest.approx(compute_iou(test_mask, stack_masks(test, name)), abs=1e-12)
    best = selections[layer].mask_threshold
    assert (result["unit"], result["at_least"], result["train_iou"]) == (best.unit, best.at_least, best.iou)
    value = low[best.unit] + np.ptp(raw[best.unit]) * best.bin_edge / BINS
    assert result["threshold"] == pytest.approx(value)


def test_the_iou_of_every_threshold_is_that_of_a_loop() -> None:
    network, images = make_network(), make_images(4, 3)
    value_range = measure_ranges(network, LAYERS, images)["0"].value_range
    histogram = MaskHistogram(value_range)
    for image in images:
        segmentation.visit_feature_maps(
            network, image.x, ["0"], lambda _, maps, i=image: histogram.update(maps, i.mask, i.other_mask)
        )
    masks = stack_masks(images, "mask")
    predicted = apply_all_thresholds(
        compute_maps(network, images, "0"), value_range.low.numpy(), value_range.high.numpy()
    )
    ious = accumulators.compute_ious(*histogram.counts_by_mask("mask")).numpy()
    assert ious.shape == (4, 2, BINS)
    for (unit, edge, at_least), mask in predicted.items():
        expected = compute_iou(mask, masks)
        assert ious[unit, 0 if at_least else 1, edge] == pytest.approx(expected, abs=1e-12)


def test_values_equal_to_the_threshold_belong_to_at_least() -> None:
    """The minimum, bin edge 0, is at least the threshold, and so is a value at the edge of a bin."""
    scaled = torch.tensor([[0.0, 31.9], [32.0, 64.0]])
    at_least = accumulators.Threshold(0, 32, True, 1.0)
    assert at_least.apply(scaled).tolist() == [[False, False], [True, True]]
    less = accumulators.Threshold(0, 32, False, 1.0)
    assert less.apply(scaled).tolist() == [[True, True], [False, False]]
    assert accumulators.Threshold(0, 0, True, 1.0).apply(scaled).all()


def test_an_image_of_values_on_bin_edges_reaches_the_iou_of_its_histogram() -> None:
    """Training and test count a value equal to the threshold alike."""
    network = nn.Sequential(nn.Identity())
    mask = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    mask[:, 6:] = True
    columns = torch.tensor([0.0, 8, 16, 24, 28, 31, 32, 40, 48, 56, 60, 64])  # 0..BINS: values on the edges
    x = columns.expand(1, 1, SIZE, SIZE).contiguous()
    image = MaskedImage(x, mask, ~mask, torch.rand(SIZE, SIZE))
    result = select_and_evaluate(network, ["0"], 2 * [image], 2 * [image])["0"]
    assert (result["threshold"], result["at_least"]) == (32, True)
    assert result["iou"] == result["train_iou"] == 1


@pytest.mark.parametrize("direction", [True, False])
def test_of_equal_thresholds_the_first_is_chosen(direction: bool) -> None:
    """Two units separate perfectly, each by many thresholds between the values of pet and background."""
    inside, outside = torch.zeros(3, BINS, dtype=torch.int64), torch.zeros(3, BINS, dtype=torch.int64)
    inside[0, 5], outside[0, 5] = 10, 10
    for unit in (1, 2):
        inside[unit, 50 if direction else 9] = 10
        outside[unit, 9 if direction else 50] = 10
    best = find_best_threshold(inside, outside)
    assert (best.unit, best.bin_edge, best.at_least, best.iou) == (1, 10, direction, 1)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_planted_unit_is_found_with_its_direction(sign: int) -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False))
    network[0].weight.data = sign * torch.eye(3)[[2, 0, 1], :, None, None]  # unit 1 shows the mask
    train, test = make_images(4, 4), make_images(4, 5)
    for image in (*train, *test):
        image.x[0, 0] = 3 * image.mask.float() + 0.1 * torch.rand(SIZE, SIZE)
    result = select_and_evaluate(network, ["0"], train, test)["0"]
    assert (result["unit"], result["at_least"]) == (1, sign > 0)
    assert result["train_iou"] == result["iou"] == 1
    assert 0.1 < sign * result["threshold"] < 3.1
    first = result["selective_units"][0]
    assert (first["unit"], first["auc"], first["interval"]) == (1, float(sign > 0), 2 * [float(sign > 0)])
    assert result["chance_iou"] < 0.6


def test_shuffled_masks_and_noise_reach_the_iou_of_the_whole_image() -> None:
    network, train, test = make_network(), make_images(24, 6, contrast=0), make_images(24, 7, contrast=0)
    share = stack_masks(test, "mask").mean()
    for result in select_and_evaluate(network, LAYERS, train, test).values():
        assert result["chance_iou"] == pytest.approx(share, abs=0.03)
        assert result["iou"] == pytest.approx(share, abs=0.03)


def test_only_the_maps_of_one_layer_are_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(*(nn.Conv2d(3, 3, 3, 1, 1) for _ in range(6)))
    layers, images, alive_counts = [str(n) for n in range(6)], make_images(3, 8), []
    references: list[weakref.ref[Tensor]] = []

    def count_alive(update: Callable[..., None]) -> Callable[..., None]:
        def counting_update(self: Any, *arguments: Any) -> None:
            alive_counts.append(sum(reference() is not None for reference in references))
            references.append(weakref.ref(next(value for value in arguments if isinstance(value, Tensor))))
            update(self, *arguments)

        return counting_update

    for accumulator in (segmentation.UnitSelector, SelectionEvaluator):
        monkeypatch.setattr(accumulator, "update", count_alive(accumulator.update))
    ranges = measure_ranges(network, layers, iter(images))
    selections = select_layer_units(network, ranges, iter(images))
    evaluate_selection(network, selections, images)
    assert len(alive_counts) == 2 * len(layers) * len(images)
    assert max(alive_counts) == 0


def test_dead_units_have_finite_results() -> None:
    network, images = make_network(), make_images(4, 9)
    network[0].weight.data[0] = network[0].bias.data[0] = 0
    results = select_and_evaluate(network, LAYERS, images, images)
    assert "NaN" not in json.dumps(results)


# Values that are not finite


class Spoil(nn.Module):
    """Write values into units of the output of images with a mark in their first pixel."""

    def __init__(self, units: slice | list[int], value: float, mark: float | None = None) -> None:
        super().__init__()
        self.units, self.value, self.mark = units, value, mark

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        if self.mark is None or x[0, 0, 0, 0] == self.mark:
            x[:, self.units, 0, -1] = self.value
        return x


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_units_that_are_not_finite_are_left_out(value: float) -> None:
    """The results are those of a network without them, and the units keep their numbers."""
    train, test = make_images(5, 20), make_images(5, 21)
    spoilt = select_and_evaluate(nn.Sequential(Spoil([0, 2], value)), ["0"], train, test)["0"]
    expected = select_and_evaluate(nn.Sequential(SelectUnits([1])), ["0"], train, test)["0"]
    assert spoilt["excluded"] == {"units": [0, 2], "train": 0, "test": 0}
    assert [unit["unit"] for unit in spoilt["selective_units"]] == [1]
    assert (spoilt["unit"], spoilt["edge_unit"], spoilt["head"]["unit"]) == (1, 1, 1)
    keys = ("iou", "train_iou", "chance_iou", "threshold", "interval", "chance", "edge_correlation",
            "high_frequency_share")  # fmt: skip
    assert [spoilt[key] for key in keys] == [expected[key] for key in keys]


class SelectUnits(nn.Module):
    """Return some of the channels."""

    def __init__(self, units: list[int]) -> None:
        super().__init__()
        self.units = units

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.units]


def test_images_of_which_no_unit_is_finite_are_left_out() -> None:
    """Ranges, thresholds and IoU are those of the other images."""
    train, test = make_images(6, 22), make_images(6, 23)
    for image in (train[2], test[4]):
        image.x[0, 0, 0, 0] = 99
    network = nn.Sequential(Spoil(slice(None), torch.nan, mark=99))
    result = select_and_evaluate(network, ["0"], train, test)["0"]
    assert result["excluded"] == {"units": [], "train": 1, "test": 1}
    others = select_and_evaluate(network, ["0"], train[:2] + train[3:], test[:4] + test[5:])["0"]
    keys = ("iou", "train_iou", "chance_iou", "threshold", "edge_correlation", "high_frequency_share")
    assert [result[key] for key in keys] == [others[key] for key in keys]
    assert result["head"]["share"] == others["head"]["share"]


def test_a_test_image_with_a_unit_that_is_not_finite_is_left_out() -> None:
    train, test = make_images(4, 24), make_images(5, 25)
    test[3].x[0, 0, 0, 0] = 99
    network = nn.Sequential(Spoil([1], torch.inf, mark=99))
    result = select_and_evaluate(network, ["0"], train, test)["0"]
    assert result["excluded"] == {"units": [], "train": 0, "test": 1}


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_layer_with_too_few_finite_images_is_not_measured(split: str) -> None:
    train, test = make_images(3, 26), make_images(3, 27)
    for image in {"train": train, "test": test}[split][:2]:
        image.x[0, 0, 0, 0] = 99
    network = nn.Sequential(Spoil(slice(None), torch.nan, mark=99))
    assert select_and_evaluate(network, ["0"], train, test) == {}
    layer: Any = {"name": "0", "ordinal": 1, "role": None, "output_shape": [3, SIZE, SIZE]}
    analysis = measure_layers(network, [layer], train, test)  # type: ignore[arg-type]
    assert analysis["unmeasured"] == [{"name": "0", "ordinal": 1}]
    assert (analysis["layers"], analysis["final"], analysis["emergence"]) == ([], None, None)


def test_a_layer_of_one_unit_has_one_selective_unit() -> None:
    network, images = nn.Sequential(nn.Conv2d(3, 1, 1)), make_images(4, 10)
    assert len(select_and_evaluate(network, ["0"], images, images)["0"]["selective_units"]) == 1


# Accumulators


def test_the_auc_is_the_share_of_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    maps, mask = torch.randn(4, SIZE, SIZE, generator=generator), make_mask(generator)
    maps += torch.tensor([0, 1, -2, 0.3])[:, None, None] * mask
    histogram = MaskHistogram(ValueRange.from_maps(maps))
    histogram.update(maps, mask, ~mask)
    aucs = compute_aucs(*histogram.counts_by_mask("mask"))
    inverted = compute_aucs(*histogram.counts_by_mask("other_mask"))
    bins = histogram.value_range.scale_to_bins(maps).floor().clamp(max=BINS - 1)
    for unit in range(4):
        for values, tolerance in ((bins[unit], 1e-12), (maps[unit], 0.01)):
            pairs = values[mask][:, None] - values[~mask]
            share = ((pairs > 0).double() + 0.5 * (pairs == 0)).mean()
            assert float(aucs[unit]) == pytest.approx(float(share), abs=tolerance)
    torch.testing.assert_close(aucs + inverted, torch.ones(4, dtype=torch.float64))


def test_values_beyond_the_range_count_in_the_outer_bins() -> None:
    histogram = MaskHistogram(ValueRange(torch.tensor([0.0]), torch.tensor([1.0])))
    values = torch.tensor([[[-5.0, 0.0], [1.0, 7.0]]])
    histogram.update(values, torch.ones(2, 2, dtype=torch.bool), torch.zeros(2, 2, dtype=torch.bool))
    inside, outside = histogram.counts_by_mask("mask")
    assert inside[0].nonzero().flatten().tolist() == [0, BINS - 1]
    assert inside.sum() == 4 and not outside.any()


def test_a_large_layer_is_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, mask = torch.randn(7, 5, 5), make_mask(torch.Generator().manual_seed(0))
    whole, parts = MaskHistogram(ValueRange.from_maps(maps)), MaskHistogram(ValueRange.from_maps(maps))
    whole.update(maps, mask, ~mask)
    monkeypatch.setitem(accumulators.CHUNK_VALUES, "cpu", 2 * mask.numel())
    parts.update(maps, mask, ~mask)
    assert torch.equal(whole.counts, parts.counts)
    assert whole.counts.sum((1, 2, 3)).tolist() == [SIZE**2] * 7


def test_correlation_is_numpy_s_over_all_images() -> None:
    rng = np.random.default_rng(0)
    correlation, xs, ys = RunningCorrelation(), [], []
    for n in range(5):
        y = rng.random((6, 7)) + n
        x = np.stack([y + rng.random((6, 7)), 1e4 - 0.1 * y + 0.1 * rng.random((6, 7)), np.full((6, 7), 0.1)])
        correlation.update(torch.from_numpy(x).float(), torch.from_numpy(y))
        xs.append(x.astype(np.float32).astype(float).reshape(3, -1))
        ys.append(y.ravel())
    expected = np.corrcoef(np.vstack([np.hstack(xs)[:2], np.hstack(ys)]))[:2, 2]
    np.testing.assert_allclose(correlation.result()[:2], expected, atol=1e-9)
    assert correlation.result()[2] == 0


def test_edges_are_those_of_scikit_image() -> None:
    gray = np.random.default_rng(0).random((1, 9, 11))
    np.testing.assert_allclose(sobel_magnitude(gray), sobel(gray[0]), atol=1e-6)
    assert sobel_magnitude(np.repeat(gray, 3, 0)) == pytest.approx(sobel_magnitude(gray), abs=1e-6)


def test_a_unit_may_follow_edges_by_its_magnitude() -> None:
    images = make_images(4, 11)
    signs = torch.tensor([1.0, -1]).repeat(SIZE // 2)
    for image in images:
        image.x[0, 1] = image.edge_magnitude * signs
    network = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False))
    network[0].weight.data = torch.eye(3)[:, :, None, None]
    result = select_and_evaluate(network, ["0"], images, images)["0"]
    assert (result["edge_unit"], result["edge_magnitude"]) == (1, True)
    assert result["edge_correlation"] == pytest.approx(1)


@pytest.mark.parametrize("size", [(5, 7), (6, 4), (1, 1), (24, 24)])
def test_a_cell_is_the_mean_over_its_box(size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).random((12, 8)).astype(np.float32)
    averages = accumulators.average_to_size(torch.from_numpy(values), size)
    np.testing.assert_allclose(averages, classical.resample_to_grid(values, size), atol=1e-6)


def test_the_share_of_the_head_by_hand() -> None:
    head = torch.zeros(4, 4, dtype=torch.bool)
    head[:2, :1] = True  # half of the upper left cell of 2 × 2: an eighth of the image
    maps = torch.tensor([[[3.0, 1], [-9, 0]], [[-1, -1], [-1, -1]], [[0, 0], [0, 5]]])
    share = HeadShareAccumulator()
    share.update(maps, head)
    share.update(maps, None)
    assert (share.image_count, float(share.area_sum)) == (1, 0.125)
    assert share.share_sum.tolist() == [0.375, 0, 0]
    share.update(maps.flip(1, 2), head)  # the third unit in the box, the first elsewhere
    assert (share.share_sum / share.image_count).tolist() == [0.1875, 0, 0.25]


# Spectra


@pytest.mark.parametrize("size", [(32, 32), (31, 33), (40, 25), (16, 17), (3, 3), (1, 1), (1, 40), (37, 1)])
def test_the_share_of_fine_detail_is_that_of_the_whole_spectrum(size: tuple[int, int]) -> None:
    h, w = size
    maps = np.random.default_rng(0).standard_normal((3, h, w)).astype(np.float32) + 5
    energy = np.abs(np.fft.fft2(maps)) ** 2
    total = high = 0.0
    for row in range(h):
        for column in range(w):
            y, x = min(row, h - row), min(column, w - column)
            total = total + energy[:, row, column] * ((y, x) != (0, 0))
            high = high + energy[:, row, column] * (y**2 + x**2 > 64)
    expected = high / total if h * w > 1 else np.zeros(3)
    np.testing.assert_allclose(high_frequency_share(torch.from_numpy(maps)), expected, atol=1e-5)


@pytest.mark.parametrize("size", [40, 41])
def test_a_cosine_is_fine_from_its_frequency(size: int) -> None:
    at = 2 * torch.pi * torch.arange(size) / size
    across = torch.stack([torch.cos(k * at).expand(size, size) for k in (7, 8, 9, size // 2)])
    for maps in (across, across.mT, 100 + across):
        assert high_frequency_share(maps).tolist() == pytest.approx([0, 0, 1, 1], abs=1e-6)
    both = torch.cos(5 * at)[:, None] * torch.cos(7 * at)  # √74 > 8
    assert float(high_frequency_share(both[None])) == pytest.approx(1, abs=1e-6)
    mixed = torch.cos(3 * at) + 2 * torch.cos(12 * at)[:, None]
    assert float(high_frequency_share(mixed[None])) == pytest.approx(0.8, abs=1e-6)
    constant = torch.tensor([0.0, 0.1, -1e6, 1e-20])[:, None, None].expand(-1, size, size)
    assert not high_frequency_share(constant).any()


# Over the layers


def test_convolutions_that_are_called_and_make_maps_are_measured() -> None:
    layer = {"ordinal": 1, "called": True, "output_shape": [4, 3, 3]}
    others = [{"ordinal": None}, {"called": False, "output_shape": None}, {"output_shape": [4, 9]}]
    assert select_convolutions([layer, *(layer | other for other in others)]) == [layer]


# A network and a data set

NETWORKS = """
from torch import nn

INPUT = {"size": 32, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}


class SegmentationNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 6, 3, 2, 1)
        self.up = nn.Sequential(nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(6, 3, 1))

    def forward(self, x):
        return {"aux": 0, "out": self.up(self.down(x))}


def segmentation():
    return SegmentationNetwork()


def broken_segmentation():
    network = SegmentationNetwork()
    network.up[2].bias.data[:] = float("nan")
    return network


def classifier():
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), *pooled, nn.Linear(6, 2))
"""


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of few pets; the head of the last test image is not annotated."""
    folder = tmp_path_factory.mktemp("pets")
    (folder / "few").mkdir()
    draw_pets(folder / "few", count=36)
    name = (folder / "few/annotations/test.txt").read_text().splitlines()[-1].split()[0]
    (folder / f"few/annotations/xmls/{name}.xml").unlink()
    settings = {
        "format": "oxford-iiit-pet",
        "source": str(folder / "few"),
        "mirrors": [],
        "target": "species",
        "on_bad_image": "error",
    }
    formats.prepare(folder / "pets", settings, "datasets.pets")
    return folder / "pets"


@pytest.fixture
def analyse(pets: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write a network's folder and analyse the network; return its folder masks/."""

    def analyse(factory: str, data: Path = pets, train: int = 6, test: int = 5) -> Path:
        (tmp_path / "net.py").write_text(NETWORKS)
        folder = tmp_path / factory
        folder.mkdir(exist_ok=True)
        architecture = f"{tmp_path}/net.py:{factory}"
        network, preprocessing = build.build_network({"architecture": architecture, "input": {}}, None, 0)
        output = decide_output(network, preprocessing, {}, ClassCounts(2, 3), "networks.own")
        save_file(network.state_dict(), folder / "weights.safetensors")
        description = {
            "architecture": architecture,
            "arguments": {},
            "weights": {"name": None},
            "preprocessing": preprocessing.to_dict(),
            "classes": ["pet", "background", "border"] if "segmentation" in factory else ["cat", "dog"],
            "output": output.to_dict(),
        }
        (folder / "network.json").write_text(json.dumps(description))
        layers = layers_module.list_layers(network, preprocessing.shape)
        (folder / "layers.json").write_text(json.dumps(layers))
        write_segmentation_analysis(folder, data, {"train": train, "test": test}, torch.device("cpu"))
        return folder / "masks"

    return analyse


def test_a_segmentation_network_end_to_end(analyse: Callable[..., Path], pets: Path) -> None:
    folder = analyse("segmentation")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    analysis = json.loads(files["masks.json"])
    assert list(analysis) == [
        "size", "images", "pet_share", "cutoff_frequency", "test", "final", "emergence", "detail_first",
        "layers", "unmeasured", "examples", "is_segmentation",
    ]  # fmt: skip
    assert (analysis["size"], analysis["images"]) == ([32, 32], {"train": 6, "test": 5})
    assert analysis["cutoff_frequency"] == 8
    assert analysis["is_segmentation"] and 0.1 < analysis["pet_share"] < 0.6
    assert [(row["name"], row["ordinal"], row["shape"]) for row in analysis["layers"]] == [
        ("down", 1, [6, 16, 16]),
        ("up.2", 2, [3, 32, 32]),
    ]
    shares = ("iou", "train_iou", "chance_iou", "high_frequency_share", "edge_correlation")
    for row in analysis["layers"]:
        assert all(0 <= row[key] <= 1 for key in shares)
        assert row["head"]["unit"] < row["shape"][0] and 0 < row["head"]["area"] < 1
        assert len(row["selective_units"]) == 3
    assert analysis["final"]["layer"] == "up.2"

    with np.load(folder / "examples.npz", allow_pickle=False) as arrays:
        truth, prediction, photograph = (arrays[key] for key in ("truth", "prediction", "photograph"))
    assert photograph.shape == (4, 32, 32, 3)
    assert truth.shape == prediction.shape == (4, 32, 32)
    assert {array.dtype for array in (truth, prediction, photograph)} == {np.dtype("uint8")}
    assert set(np.unique(truth)) == {0, 1, 2}
    for row, true, predicted in zip(analysis["examples"], truth, prediction, strict=True):
        expected = [compute_iou(predicted == n, true == n) for n in range(3)]
        assert list(row["iou"].values()) == pytest.approx(expected)
        assert row["mean_iou"] == pytest.approx(np.mean(expected))
    test = formats.load(pets, "test")
    first, best, median, worst = analysis["examples"]
    assert (first["rank"], first["index"], first["name"]) == ("first", 0, test.names[0])
    assert best["iou"]["pet"] >= median["iou"]["pet"] >= worst["iou"]["pet"]
    np.testing.assert_array_equal(
        photograph[0], test.read_images(RGB, (32, 32), 32, [0])[0].transpose(1, 2, 0)
    )

    again = analyse("segmentation")
    assert {path.name: path.read_bytes() for path in again.iterdir()} == files


def test_a_classifier_end_to_end(analyse: Callable[..., Path]) -> None:
    folder = analyse("classifier", train=100)
    analysis = json.loads((folder / "masks.json").read_text())
    assert [path.name for path in folder.iterdir()] == ["masks.json"]
    assert (analysis["examples"], analysis["is_segmentation"]) == ([], False)
    assert analysis["images"] == {"train": 24, "test": 5}
    assert [row["shape"] for row in analysis["layers"]] == [[6, 30, 30]]
    assert analysis["final"]["layer"] == "0" and analysis["emergence"] is None  # not above chance


def test_thresholds_are_chosen_on_the_training_split_and_measured_on_the_test_split(
    analyse: Callable[..., Path], pets: Path, tmp_path: Path
) -> None:
    """The analysis equals one of samples of each split by hand, and differs with the splits exchanged."""
    (row,) = json.loads((analyse("classifier") / "masks.json").read_text())["layers"]
    network, preprocessing = build.load_network(tmp_path / "classifier")
    splits = {name: MaskSplit.load(pets, name, preprocessing) for name in ("train", "test")}
    train = list(MaskSample(splits["train"], sample_indices(24, 6, "train"), torch.device("cpu")))
    test = list(MaskSample(splits["test"], sample_indices(12, 5, "test"), torch.device("cpu")))
    keys = ("iou", "train_iou", "chance_iou", "threshold", "edge_correlation", "head")
    expected = select_and_evaluate(network, ["0"], train, test)["0"]
    assert [row[key] for key in keys] == [expected[key] for key in keys]
    for wrong in ((train, train), (test, test), (test, train)):
        assert select_and_evaluate(network, ["0"], *wrong)["0"]["iou"] != row["iou"]


def test_scores_that_are_not_finite_have_no_examples(
    analyse: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No class is the most probable where scores are NaN: argmax would take the first of them."""
    folder = analyse("broken_segmentation")
    analysis = json.loads((folder / "masks.json").read_text())
    assert [path.name for path in folder.iterdir()] == ["masks.json"]
    assert (analysis["examples"], analysis["is_segmentation"]) == ([], True)
    assert [row["name"] for row in analysis["unmeasured"]] == ["up.2"]
    assert "no examples of predictions: the scores of image 0 are NaN or infinite" in caplog.text


def test_one_image_is_too_few(analyse: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the test split has 12 images and 1 are to be used .*at least two"):
        analyse("classifier", test=1)
    assert not (tmp_path / "classifier/masks").exists()


def test_a_sample_yields_images_with_their_mask_and_that_of_another(pets: Path) -> None:
    preprocessing = build.Preprocessing(20, (0.5, 0.5, 0.5), (0.2, 0.3, 0.4), "stretch")
    split = MaskSplit.load(pets, "test", preprocessing)
    examples, indices = formats.load(pets, "test"), [0, 3, 6, 9, 11]
    pixels = examples.read_images(RGB, (20, 20), "stretch", indices)
    trimaps = [examples.read_trimap(n).resize((20, 20), Image.Resampling.NEAREST) for n in indices]
    masks = [np.asarray(trimap) == 1 for trimap in trimaps]
    sample = MaskSample(split, indices, torch.device("cpu"))
    images = list(sample)
    for n, image in enumerate(images):
        torch.testing.assert_close(image.x, preprocessing(torch.from_numpy(pixels[n : n + 1])))
        np.testing.assert_array_equal(image.mask, masks[n])
        np.testing.assert_array_equal(image.other_mask, masks[(n + 2) % 5])
        np.testing.assert_allclose(image.edge_magnitude, sobel_magnitude(pixels[n] / 255))
    assert [image.head_mask is None for image in images] == [False] * 4 + [True]
    assert sample.pet_share() == pytest.approx(np.mean(masks))


def test_a_data_set_without_masks_is_refused(analyse: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for n in range(3):
        Image.new("RGB", (9, 9), (n, 0, 0)).save(tmp_path / f"files/{n}.png")
    source = str(tmp_path / "files")
    settings = {"format": "images", "source": source, "test_share": 0.2, "on_bad_image": "error"}
    formats.prepare(tmp_path / "plain", settings, "datasets.plain")
    with pytest.raises(UserError, match="plain has no masks"):
        analyse("classifier", data=tmp_path / "plain")


def test_sampled_images_are_spread_evenly() -> None:
    assert sample_indices(9, 3, "the split") == [0, 4, 8]
    assert sample_indices(3, 9, "the split") == [0, 1, 2]


@pytest.mark.parametrize(("size", "resize"), [(24, "stretch"), (24, 30), (20, 20)])
def test_the_box_of_the_head_lies_where_it_is_in_the_image(size: int, resize: int | str) -> None:
    class Examples:
        def read_head_box(self, n: int) -> tuple[int, ...] | None:
            return [(30, 20, 70, 50), (-5, 0, 10, 200), (0, 0, 1, 1), None][n]

        def read_trimap(self, n: int) -> Image.Image:
            return Image.new("L", (100, 60))

    preprocessing = build.Preprocessing(size, (0.5,), (0.5,), resize)
    split = MaskSplit(Examples(), preprocessing, np.empty(0), np.empty(0))  # type: ignore[arg-type]
    image = Image.new("L", (100, 60))
    image.paste(255, (30, 20, 70, 50))
    bright = image_io.resize_to(image, size, resize)[:, :, 0] > 127
    assert compute_iou(split.head_mask(0), bright) > 0.85
    assert split.head_mask(3) is None
    if resize != "stretch":  # outside of the crop
        assert split.head_mask(2) is None


def test_predictions_are_ranked_by_the_iou_of_the_pet() -> None:
    ious = [0.5, 0.9, None, 0.1, 0.9, 0.7]
    scores = [PredictionScore(n, {"pet": value}, 0.5) for n, value in enumerate(ious)]
    ranked = {rank: score.index for rank, score in rank_predictions(scores).items()}
    assert ranked == {"best": 1, "median": 5, "worst": 3}


def test_pixels_outside_of_the_image_do_not_count() -> None:
    truth = np.array([[0, 0, 1, 255]], np.uint8)
    score = PredictionScore.from_prediction(3, np.array([[0, 1, 1, 0]], np.uint8), truth)
    assert (score.index, score.iou) == (3, {"pet": 0.5, "background": 0.5, "border": None})
    assert score.mean_iou == 0.5
