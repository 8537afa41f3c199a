"""Where the mask appears: against loops over every threshold, pairs of pixels, whole spectra and numpy."""

import argparse
import importlib.util
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage.filters import sobel
from torch import Tensor, nn
from torch.nn import functional as F

from convatlas import UserError
from convatlas.analysis import accumulators, classical, segmentation
from convatlas.analysis.accumulators import (
    BINS,
    HeadShareAccumulator,
    MaskHistogram,
    RunningCorrelation,
    ValueRange,
    compute_aucs,
    high_frequency_share,
)
from convatlas.analysis.segmentation import (
    MaskedImage,
    evaluate_selection,
    find_emergence,
    measure_ranges,
    select_convolutions,
    select_layer_units,
    sobel_magnitude,
)
from convatlas.datasets import formats
from convatlas.datasets.synthetic_pets.generate import draw_pets
from convatlas.models import build
from convatlas.tracing import layers as layers_module
from tests.support.workspace import ROOT

SIZE = 12
LAYERS = ["0", "2"]


def blob(generator: torch.Generator, size: int = SIZE) -> Tensor:
    """A mask of one smooth piece, about a quarter of the image."""
    noise = torch.rand(1, 1, 4, 4, generator=generator)
    smooth = F.interpolate(noise, (size, size), mode="bicubic")[0, 0]
    return smooth > smooth.quantile(0.7)


def images(count: int, seed: int, shown: float = 0.5) -> list[MaskedImage]:
    """Noise, in which the mask shows a little in the first channel; each has the next one's as the other."""
    generator = torch.Generator().manual_seed(seed)
    own = [blob(generator) for _ in range(count)]
    found = []
    for n, mask in enumerate(own):
        x = torch.randn(1, 3, SIZE, SIZE, generator=generator)
        x[0, 0] += shown * mask
        head = torch.zeros(SIZE, SIZE, dtype=torch.bool)
        head[2:6, 3 : 5 + n] = True
        edge = torch.from_numpy(sobel_magnitude(x[0].sigmoid().numpy()))
        found.append(MaskedImage(x, mask, own[(n + 1) % count], edge, head if n % 2 else None))
    return found


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 5, 3, 1, 1))


def maps_of(net: nn.Module, seen: list[MaskedImage], layer: str, size: int | None = SIZE) -> np.ndarray:
    """A layer's maps of all images (units, images, H, W), by running it as far as there."""
    with torch.no_grad():
        maps = torch.cat([net[: int(layer) + 1](image.x) for image in seen])
        if size:
            maps = F.interpolate(maps, (size, size), mode="bilinear")
    return maps.transpose(0, 1).numpy()


def stacked(seen: list[MaskedImage], name: str) -> np.ndarray:
    return np.stack([getattr(image, name).numpy() for image in seen])


def iou(found: np.ndarray, mask: np.ndarray) -> float:
    return (found & mask).sum() / max((found | mask).sum(), 1)


def thresholds(maps: np.ndarray, ends: tuple[np.ndarray, np.ndarray]) -> dict[tuple[int, int, bool], Any]:
    """Every mask that a threshold makes: unit, number of the level, direction."""
    found = {}
    for unit, values in enumerate(maps):
        low, high = float(ends[0][unit]), float(ends[1][unit])
        for edge in range(BINS):
            above = values >= low + (high - low) * edge / BINS if edge else np.full(values.shape, True)
            found[unit, edge, True], found[unit, edge, False] = above, ~above
    return found


# The search


@pytest.mark.parametrize("layer", LAYERS)
def test_the_best_threshold_of_all_is_found_and_tested(layer: str) -> None:
    net, train, test = network(), images(6, 1), images(5, 2)
    chosen = select_layer_units(net, LAYERS, train, measure_ranges(net, LAYERS, train))
    told = evaluate_selection(net, chosen, test)[layer]
    raw = maps_of(net, train, layer, None)
    ends = raw.min((1, 2, 3)), raw.max((1, 2, 3))
    for name, pick, tested in (
        ("mask", chosen[layer].mask_threshold, told["iou"]),
        ("other_mask", chosen[layer].chance_threshold, told["chance_iou"]),
    ):
        known = stacked(train, name)
        every = {
            key: iou(found, known) for key, found in thresholds(maps_of(net, train, layer), ends).items()
        }
        assert pick.iou == pytest.approx(max(every.values()), abs=1e-12)
        assert every[pick.unit, pick.bin_edge, pick.at_least] == pytest.approx(pick.iou, abs=1e-12)
        level = ends[0][pick.unit] + (ends[1] - ends[0])[pick.unit] * pick.bin_edge / BINS
        found = maps_of(net, test, layer)[pick.unit] >= level
        found = found if pick.at_least else ~found
        assert tested == pytest.approx(iou(found, stacked(test, name)), abs=1e-12)
    best = chosen[layer].mask_threshold
    assert (told["unit"], told["at_least"], told["train_iou"]) == (best.unit, best.at_least, best.iou)
    assert told["threshold"] == pytest.approx(ends[0][best.unit] + np.ptp(raw[best.unit]) * best.bin_edge / BINS)


def test_every_threshold_s_iou_is_that_of_a_loop() -> None:
    net, seen = network(), images(4, 3)
    span = measure_ranges(net, LAYERS, seen)["0"]
    histogram = MaskHistogram(span)
    for image in seen:
        segmentation.visit_feature_maps(
            net, image.x, ["0"], lambda _, maps, i=image: histogram.update(maps, i.mask, i.other_mask)
        )
    known = stacked(seen, "mask")
    every = thresholds(maps_of(net, seen, "0"), (span.low.numpy(), span.high.numpy()))
    found = accumulators.compute_ious(*histogram.counts_by_mask("mask")).numpy()
    assert found.shape == (4, 2, BINS)
    for (unit, edge, above), mask in every.items():
        assert found[unit, 0 if above else 1, edge] == pytest.approx(iou(mask, known), abs=1e-12)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_planted_unit_is_found_with_its_direction(sign: int) -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False))
    net[0].weight.data = sign * torch.eye(3)[[2, 0, 1], :, None, None]  # the mask's channel is unit 1
    train, test = images(4, 4), images(4, 5)
    for image in (*train, *test):
        image.x[0, 0] = 3 * image.mask.float() + 0.1 * torch.rand(SIZE, SIZE)
    told = evaluate_selection(
        net, select_layer_units(net, ["0"], train, measure_ranges(net, ["0"], train)), test
    )["0"]
    assert (told["unit"], told["at_least"]) == (1, sign > 0)
    assert told["train_iou"] == told["iou"] == 1
    assert 0.1 < sign * told["threshold"] < 3.1
    assert told["selective_units"][0] == {"unit": 1, "auc": float(sign > 0)}
    assert told["chance_iou"] < 0.6


def test_shuffled_masks_and_noise_reach_what_the_whole_image_reaches() -> None:
    net, train, test = network(), images(24, 6, shown=0), images(24, 7, shown=0)
    share = stacked(test, "mask").mean()
    for told in evaluate_selection(
        net, select_layer_units(net, LAYERS, train, measure_ranges(net, LAYERS, train)), test
    ).values():
        assert told["chance_iou"] == pytest.approx(share, abs=0.03)
        assert told["iou"] == pytest.approx(share, abs=0.03)


def test_maps_are_taken_in_one_layer_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Conv2d(3, 3, 3, 1, 1) for _ in range(6)))
    layers, seen, alive = [str(n) for n in range(6)], images(3, 8), []
    references: list[weakref.ref[Tensor]] = []

    def watched(add: Callable[..., None]) -> Callable[..., None]:
        def added(self: Any, maps: Tensor, image: MaskedImage) -> None:
            alive.append(sum(reference() is not None for reference in references))
            references.append(weakref.ref(maps))
            add(self, maps, image)

        return added

    monkeypatch.setattr(segmentation.UnitSelector, "update", watched(segmentation.UnitSelector.update))
    monkeypatch.setattr(
        segmentation.SelectionEvaluator, "update", watched(segmentation.SelectionEvaluator.update)
    )
    evaluate_selection(
        net, select_layer_units(net, layers, iter(seen), measure_ranges(net, layers, iter(seen))), iter(seen)
    )
    assert len(alive) == 2 * len(layers) * len(seen)
    assert max(alive) == 0


def test_a_dead_unit_and_values_that_are_not_finite_break_nothing() -> None:
    net, seen = network(), images(4, 9)
    net[0].weight.data[0] = net[0].bias.data[0] = 0
    net[2].bias.data[1:3] = torch.tensor([torch.nan, torch.inf])
    found = evaluate_selection(
        net, select_layer_units(net, LAYERS, seen, measure_ranges(net, LAYERS, seen)), seen
    )
    assert "NaN" not in json.dumps(found)
    for name, units in (("0", 4), ("2", 5)):
        assert found[name]["unit"] < units and 0 <= found[name]["edge_unit"] < units


def test_a_layer_of_few_units_names_no_more() -> None:
    net, seen = nn.Sequential(nn.Conv2d(3, 1, 1)), images(4, 10)
    assert (
        len(
            evaluate_selection(
                net, select_layer_units(net, ["0"], seen, measure_ranges(net, ["0"], seen)), seen
            )["0"]["selective_units"]
        )
        == 1
    )


# What is summed up


def test_auc_is_the_share_of_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    maps, mask = torch.randn(4, SIZE, SIZE, generator=generator), blob(generator)
    maps += torch.tensor([0, 1, -2, 0.3])[:, None, None] * mask
    histogram = MaskHistogram(ValueRange.from_maps(maps))
    histogram.update(maps, mask, ~mask)
    found, turned = (
        compute_aucs(*histogram.counts_by_mask("mask")),
        compute_aucs(*histogram.counts_by_mask("other")),
    )
    bins = histogram.value_range.scale_to_bins(maps).floor().clamp(max=BINS - 1)
    for unit in range(4):
        for values, tolerance in ((bins[unit], 1e-12), (maps[unit], 0.01)):
            pairs = values[mask][:, None] - values[~mask]
            share = ((pairs > 0).double() + 0.5 * (pairs == 0)).mean()
            assert float(found[unit]) == pytest.approx(float(share), abs=tolerance)
    torch.testing.assert_close(found + turned, torch.ones(4, dtype=torch.float64))


def test_values_beyond_the_range_count_in_the_outer_bins() -> None:
    histogram = MaskHistogram(ValueRange(torch.tensor([0.0]), torch.tensor([1.0])))
    values = torch.tensor([[[-5.0, 0.0], [1.0, 7.0]]])
    histogram.update(values, torch.ones(2, 2, dtype=torch.bool), torch.zeros(2, 2, dtype=torch.bool))
    inside, outside = histogram.counts_by_mask("mask")
    assert inside[0].nonzero().flatten().tolist() == [0, BINS - 1]
    assert inside.sum() == 4 and not outside.any()


def test_a_large_layer_is_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, mask = torch.randn(7, 5, 5), blob(torch.Generator().manual_seed(0))
    whole, parts = MaskHistogram(ValueRange.from_maps(maps)), MaskHistogram(ValueRange.from_maps(maps))
    whole.update(maps, mask, ~mask)
    monkeypatch.setitem(accumulators.CHUNK_VALUES, "cpu", 2 * mask.numel())
    parts.update(maps, mask, ~mask)
    assert torch.equal(whole.counts, parts.counts)
    assert whole.counts.sum((1, 2, 3)).tolist() == [SIZE**2] * 7


def test_correlation_is_numpy_s_over_all_images() -> None:
    rng = np.random.default_rng(0)
    found, xs, ys = RunningCorrelation(), [], []
    for n in range(5):
        y = rng.random((6, 7)) + n
        x = np.stack([y + rng.random((6, 7)), 1e4 - 0.1 * y + 0.1 * rng.random((6, 7)), np.full((6, 7), 0.1)])
        found.update(torch.from_numpy(x).float(), torch.from_numpy(y))
        xs.append(x.astype(np.float32).astype(float).reshape(3, -1))
        ys.append(y.ravel())
    expected = np.corrcoef(np.vstack([np.hstack(xs)[:2], np.hstack(ys)]))[:2, 2]
    np.testing.assert_allclose(found.result()[:2], expected, atol=1e-9)
    assert found.result()[2] == 0


def test_edges_are_scikit_image_s_and_units_follow_them_by_magnitude_too() -> None:
    gray = np.random.default_rng(0).random((1, 9, 11))
    np.testing.assert_allclose(sobel_magnitude(gray), sobel(gray[0]), atol=1e-6)
    assert sobel_magnitude(np.repeat(gray, 3, 0)) == pytest.approx(sobel_magnitude(gray), abs=1e-6)
    seen = images(4, 11)
    signs = torch.tensor([1.0, -1]).repeat(SIZE // 2)
    for image in seen:
        image.x[0, 1] = image.edge_magnitude * signs
    net = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False))
    net[0].weight.data = torch.eye(3)[:, :, None, None]
    told = evaluate_selection(
        net, select_layer_units(net, ["0"], seen, measure_ranges(net, ["0"], seen)), seen
    )["0"]
    assert (told["edge_unit"], told["edge_magnitude"]) == (1, True)
    assert told["edge_correlation"] == pytest.approx(1)


@pytest.mark.parametrize("size", [(5, 7), (6, 4), (1, 1), (24, 24)])
def test_a_cell_is_the_mean_over_its_box(size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).random((12, 8)).astype(np.float32)
    found = accumulators.average_to_size(torch.from_numpy(values), size)
    np.testing.assert_allclose(found, classical.resample_to_grid(values, size), atol=1e-6)


def test_the_head_s_share_by_hand() -> None:
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


# What the curve says


def test_the_first_layer_that_reaches_nine_tenths() -> None:
    rows = [{"name": f"c{n}", "ordinal": n, "iou": v} for n, v in enumerate([0.3, 0.73, 0.7, 0.8], 1)]
    assert find_emergence(rows) == {
        "final": {"layer": "c4", "ordinal": 4, "iou": 0.8},
        "emergence": {"layer": "c2", "ordinal": 2, "iou": 0.73},
    }
    assert find_emergence([]) == {"final": None, "emergence": None}


def test_convolutions_that_are_called_and_make_maps_are_measured() -> None:
    layer = {"ordinal": 1, "called": True, "output_shape": [4, 3, 3]}
    others = [{"ordinal": None}, {"called": False, "output_shape": None}, {"output_shape": [4, 9]}]
    assert select_convolutions([layer, *(layer | other for other in others)]) == [layer]


# The script

NET = """
from tests.support.workspace import ROOT
from torch import nn

INPUT = {"size": 32, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}


class Segments(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 6, 3, 2, 1)
        self.up = nn.Sequential(nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(6, 3, 1))

    def forward(self, x):
        return {"aux": 0, "out": self.up(self.down(x))}


def segments():
    return Segments()


def classifies():
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), *pooled, nn.Linear(6, 2))
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("masks_script", ROOT / "scripts/masks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    }
    formats.prepare(folder / "pets", settings | {"on_bad_image": "error"}, "datasets.pets")
    return folder / "pets"


@pytest.fixture
def start(
    script: ModuleType, pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Write a network's folder and run the script on it; the folder that it makes."""
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    monkeypatch.setattr(torch, "set_deterministic_debug_mode", lambda mode: None)

    def start(factory: str, data: Path = pets, **wanted: int) -> Path:
        (tmp_path / "net.py").write_text(NET)
        output = tmp_path / factory
        output.mkdir(exist_ok=True)
        settings = {"architecture": f"{tmp_path}/net.py:{factory}", "input": {}}
        net, preprocessing = build.build_network(settings, None, 0)
        save_file(net.state_dict(), output / "weights.safetensors")
        segments = factory == "segments"
        description = {"architecture": settings["architecture"], "arguments": {}, "weights": {"name": None}}
        description |= {"preprocessing": preprocessing.to_dict()}
        description |= {"classes": ["pet", "background", "border"] if segments else ["cat", "dog"]}
        (output / "network.json").write_text(json.dumps(description))
        (output / "layers.json").write_text(json.dumps(layers_module.list_layers(net, preprocessing.shape)))
        script.main(
            argparse.Namespace(
                name="n", data=str(data), output=str(output), device="cpu", threads=1,
                settings={"train": 6, "test": 5} | wanted,
            )
        )  # fmt: skip
        return output / "masks"

    return start


def test_a_segmentation_network_end_to_end(start: Callable[..., Path], pets: Path) -> None:
    folder = start("segments")
    written = {path.name: path.read_bytes() for path in folder.iterdir()}
    found = json.loads(written["masks.json"])
    assert list(found) == [
        "size", "images", "pet_share", "cutoff_frequency", "final", "emergence", "layers", "examples",
        "is_segmentation",
    ]  # fmt: skip
    assert (found["size"], found["images"], found["cutoff_frequency"]) == ([32, 32], {"train": 6, "test": 5}, 8)
    assert found["is_segmentation"] and 0.1 < found["pet_share"] < 0.6
    assert [(row["name"], row["ordinal"], row["shape"]) for row in found["layers"]] == [
        ("down", 1, [6, 16, 16]),
        ("up.2", 2, [3, 32, 32]),
    ]
    for row in found["layers"]:
        assert all(0 <= row[key] <= 1 for key in ("iou", "train_iou", "chance_iou", "high_frequency_share", "edge_correlation"))
        assert row["head"]["unit"] < row["shape"][0] and 0 < row["head"]["area"] < 1
        assert len(row["selective_units"]) == 3
    assert found["final"]["layer"] == "up.2"

    with np.load(folder / "examples.npz", allow_pickle=False) as arrays:
        truth, prediction, photograph = (arrays[key] for key in ("truth", "prediction", "photograph"))
    assert photograph.shape == (4, 32, 32, 3)
    assert truth.shape == prediction.shape == (4, 32, 32)
    assert {array.dtype for array in (truth, prediction, photograph)} == {np.dtype("uint8")}
    assert set(np.unique(truth)) == {0, 1, 2}
    for row, true, predicted in zip(found["examples"], truth, prediction, strict=True):
        expected = [iou(predicted == n, true == n) for n in range(3)]
        assert list(row["iou"].values()) == pytest.approx(expected)
        assert row["mean_iou"] == pytest.approx(np.mean(expected))
    test = formats.load(pets, "test")
    first, best, median, worst = found["examples"]
    assert (first["rank"], first["index"], first["name"]) == ("first", 0, test.names[0])
    assert best["iou"]["pet"] >= median["iou"]["pet"] >= worst["iou"]["pet"]
    np.testing.assert_array_equal(photograph[0], test.read_images("RGB", 32, 32, [0])[0].transpose(1, 2, 0))

    again = start("segments")
    assert {path.name: path.read_bytes() for path in again.iterdir()} == written


def test_a_classifier_end_to_end(start: Callable[..., Path]) -> None:
    folder = start("classifies", train=100)
    found = json.loads((folder / "masks.json").read_text())
    assert [path.name for path in folder.iterdir()] == ["masks.json"]
    assert (found["examples"], found["is_segmentation"]) == ([], False)
    assert found["images"] == {"train": 24, "test": 5}
    assert [row["shape"] for row in found["layers"]] == [[6, 30, 30]]
    assert found["final"] == found["emergence"]


def test_one_image_is_too_few(start: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the test split has 12 images and 1 are wanted; .*two at least"):
        start("classifies", test=1)
    assert not (tmp_path / "classifies/masks").exists()


def test_a_sample_gives_each_image_with_its_mask_and_that_of_another(script: ModuleType, pets: Path) -> None:
    preprocessing = build.Preprocessing(20, (0.5, 0.5, 0.5), (0.2, 0.3, 0.4), "stretch")
    split = script.MaskSplit.load(str(pets), "test", preprocessing)
    examples, indices = formats.load(pets, "test"), [0, 3, 6, 9, 11]
    pixels = examples.read_images("RGB", 20, "stretch", indices)
    known = [np.asarray(examples.read_trimap(n).resize((20, 20), Image.Resampling.NEAREST)) == 1 for n in indices]
    seen = list(script.MaskSample(split, indices, torch.device("cpu")))
    for n, image in enumerate(seen):
        torch.testing.assert_close(image.x, preprocessing(torch.from_numpy(pixels[n : n + 1])))
        np.testing.assert_array_equal(image.mask, known[n])
        np.testing.assert_array_equal(image.other_mask, known[(n + 2) % 5])
        np.testing.assert_allclose(image.edge_magnitude, sobel_magnitude(pixels[n] / 255))
    assert [image.head_mask is None for image in seen] == [False] * 4 + [True]
    share = script.MaskSample(split, indices, torch.device("cpu")).pet_share()
    assert share == pytest.approx(np.mean(known))


def test_a_data_set_without_masks_is_refused(start: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for n in range(3):
        Image.new("RGB", (9, 9), (n, 0, 0)).save(tmp_path / f"files/{n}.png")
    settings = {"format": "images", "source": str(tmp_path / "files"), "test_share": 0.2}
    formats.prepare(tmp_path / "plain", settings | {"on_bad_image": "error"}, "datasets.plain")
    with pytest.raises(UserError, match="plain has no masks"):
        start("classifies", data=tmp_path / "plain")


def test_images_are_drawn_evenly(script: ModuleType) -> None:
    assert script.sample_indices(9, 3, "d") == [0, 4, 8]
    assert script.sample_indices(3, 9, "d") == [0, 1, 2]


@pytest.mark.parametrize("how", [(24, "stretch"), (24, 30), (20, 20)])
def test_the_head_s_box_lies_where_it_lies_in_the_image(
    script: ModuleType, how: tuple[int, int | str]
) -> None:
    class Boxed:
        def read_head_box(self, n: int) -> tuple[int, ...] | None:
            return [(30, 20, 70, 50), (-5, 0, 10, 200), (0, 0, 1, 1), None][n]

        def read_trimap(self, n: int) -> Image.Image:
            return Image.new("L", (100, 60))

    size, resize = how
    preprocessing = build.Preprocessing(size, (0.5,), (0.5,), resize)
    split = script.MaskSplit(Boxed(), preprocessing, np.empty(0), np.empty(0))
    picture = Image.new("L", (100, 60))
    picture.paste(255, (30, 20, 70, 50))
    bright = script.image_io.resize_to(picture, size, resize)[:, :, 0] > 127
    assert iou(split.head_mask(0), bright) > 0.85
    assert split.head_mask(3) is None
    if resize != "stretch":  # cut off
        assert split.head_mask(2) is None


def test_best_median_and_worst(script: ModuleType) -> None:
    ious = [0.5, 0.9, None, 0.1, 0.9, 0.7]
    scored = [script.PredictionScore(n, {"pet": value}, 0.5) for n, value in enumerate(ious)]
    found = script.rank_predictions(scored)
    assert {which: score.index for which, score in found.items()} == {"best": 1, "median": 5, "worst": 3}


def test_pixels_beyond_the_image_do_not_count(script: ModuleType) -> None:
    truth = np.array([[0, 0, 1, 255]], np.uint8)
    scored = script.PredictionScore.from_prediction(3, np.array([[0, 1, 1, 0]], np.uint8), truth)
    assert (scored.index, scored.iou) == (3, {"pet": 0.5, "background": 0.5, "border": None})
    assert scored.mean_iou == 0.5
