"""Sign distances as boxes are occluded, against loops over pairs, and the places of the boxes."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import hamming_loss
from torch import Tensor, nn

from convatlas.analysis.correspondence.boxes import MAX_OVERLAP, Box, draw_offsets, list_offsets, project_box
from convatlas.analysis.correspondence.measure import (
    compute_p_values,
    compute_sign_distance,
    draw_places,
    measure_correspondence,
    measure_set,
    occlude,
)
from convatlas.analysis.responses import ResponseReader
from convatlas.image_io import resize_labels_to
from convatlas.models.outputs import Output

SIZE = (12, 10)
BOXES = [Box(1, 2, 4, 3), Box(6, 0, 3, 5), Box(0, 6, 5, 4)]
LAYERS = ["0", "1", "4"]
FILL = torch.tensor([0.5, -0.5])


def make_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(80, 6)
    ).eval()


def make_images(seed: int = 1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(3, 2, *SIZE)).astype(np.float32))


def make_reader(network: nn.Module, x: Tensor) -> ResponseReader:
    return ResponseReader(network, LAYERS, Output("none"), x)


def test_the_sign_distance_is_that_of_pairs_of_single_images() -> None:
    network, x = make_network(), make_images()
    measured = measure_set(make_reader(network, x), x, [occlude(x, BOXES, FILL)])
    for layer in LAYERS:
        part, signs = network[: int(layer) + 1], []
        for image, (top, left, height, width) in zip(x, BOXES, strict=True):
            covered = image.clone()
            for channel, value in enumerate(FILL):
                covered[channel, top : top + height, left : left + width] = value
            with torch.no_grad():
                features = part(image[None])
                change = (part(covered[None]) - features).flatten()
            change[change.abs() <= 1e-6 * features.abs().max()] = 0
            signs.append(np.sign(change.numpy()).astype(int))
        expected = np.mean([hamming_loss(first, second) for first, second in combinations(signs, 2)])
        distance, changed = measured[layer][0]
        assert distance == pytest.approx(expected, abs=1e-9)
        assert changed == pytest.approx(np.mean([np.mean(row != 0) for row in signs]))
    assert 0 < measured["0"][0][1] < 1


def test_an_occlusion_by_the_image_itself_changes_nothing_and_the_same_image_changes_alike() -> None:
    network, x = make_network(), make_images()
    for distance, changed in (
        pairs[0] for pairs in measure_set(make_reader(network, x), x, [occlude(x, BOXES, x)]).values()
    ):
        assert (distance, changed) == (0, 0)
    same = x[:1].repeat(3, 1, 1, 1)
    for distance, changed in (
        pairs[0]
        for pairs in measure_set(
            make_reader(network, same), same, [occlude(same, BOXES[:1] * 3, FILL)]
        ).values()
    ):
        assert distance == 0
        assert changed > 0


def test_the_sign_has_three_values() -> None:
    signs = torch.tensor([[1, 0, -1, 0], [1, -1, 1, 0], [0, 0, -1, 0]], dtype=torch.int8)
    assert compute_sign_distance(signs) == pytest.approx((2 / 4 + 1 / 4 + 3 / 4) / 3)


def test_places_elsewhere_have_the_size_of_the_box_and_hardly_overlap_it() -> None:
    generator = np.random.default_rng(0)
    for box in BOXES:
        offsets = list_offsets(box, SIZE)
        allowed = {tuple(offset) for offset in np.argwhere(offsets) - np.array(SIZE)}
        for row in range(-SIZE[0], SIZE[0] + 1):
            for column in range(-SIZE[1], SIZE[1] + 1):
                moved = box.move((row, column))
                mask, other = (np.zeros((40, 40), bool) for _ in range(2))
                mask[15 + box.top :, 15 + box.left :][: box.height, : box.width] = True
                other[15 + moved.top :, 15 + moved.left :][: box.height, : box.width] = True
                is_within = 0 <= moved.top <= SIZE[0] - box.height and 0 <= moved.left <= SIZE[1] - box.width
                is_off = (mask & other).sum() <= MAX_OVERLAP * mask.sum()
                assert ((row, column) in allowed) == (is_within and is_off)
        drawn = {tuple(offset) for offset in draw_offsets(offsets, 2000, generator).tolist()}
        assert drawn == allowed
    places = draw_places(BOXES, (24, 20), 5, generator)
    assert [len(rounds) for rounds in places.values()] == [5, 5]
    for boxes in places["moved"]:
        assert (
            len(
                {
                    (place.top - box.top, place.left - box.left)
                    for place, box in zip(boxes, BOXES, strict=True)
                }
            )
            == 1
        )
    full = [Box(0, 0, 12, 2), Box(0, 0, 2, 10)]  # which no common offset moves
    assert draw_places(full, SIZE, 3, generator)["moved"] == []


def test_features_of_the_part_correspond() -> None:
    """The mean of channel 0 falls as its bright part is covered, and rises or falls with noise elsewhere."""
    random, sets, boxes = np.random.default_rng(0), [], []
    for _ in range(3):
        x = torch.from_numpy(random.normal(size=(3, 2, 16, 16)).astype(np.float32))
        places = [Box(int(top), int(left), 4, 4) for top, left in random.integers(0, 12, (3, 2))]
        for image, place in zip(x, places, strict=True):
            image[1] = 0
            image[0, place.top : place.top + 4, place.left : place.left + 4] = 9
        sets.append(x)
        boxes.append(places)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1)).eval()
    result = measure_correspondence(network, sets, boxes, ["0"], torch.zeros(2), 39, 0)["0"]
    assert result.part.shape == (3,)
    assert result.random.shape == result.moved.shape == (3, 39)
    assert result.part.mean() == 0 < result.random.mean()
    assert result.p_value <= 0.05
    again = measure_correspondence(network, sets, boxes, ["0"], torch.zeros(2), 39, 0)["0"]
    np.testing.assert_array_equal(result.random, again.random)


def test_p_values_count_the_part_among_the_draws() -> None:
    part = {"a": np.array([0.1, 0.1]), "b": np.array([0.5, np.nan]), "c": np.array([np.nan, np.nan])}
    random = np.random.default_rng(0).uniform(0.4, 0.6, (2, 19))
    p_values = compute_p_values(part, dict.fromkeys(part, random))
    assert p_values["a"] == pytest.approx(1 / 20)
    assert 1 / 20 < p_values["b"] <= 1
    assert p_values["c"] == 1
    assert compute_p_values(part, dict.fromkeys(part, np.full((2, 19), np.nan))) == dict.fromkeys(part, 1.0)


def test_values_that_are_not_finite_are_marked() -> None:
    network, x = make_network(), make_images()
    network.state_dict()["4.bias"][2] = torch.nan
    measured = measure_set(make_reader(network, x), x, [occlude(x, BOXES, FILL)])
    assert np.isnan(measured["4"][0]).all()
    assert np.isfinite(measured["1"][0]).all()


@pytest.mark.parametrize("resize", ["cover", "stretch", 20])
@pytest.mark.parametrize("image_size", [(40, 40), (60, 40), (40, 72)])
def test_boxes_are_where_a_mask_of_them_lies_in_the_input(resize: Any, image_size: tuple[int, int]) -> None:
    width, height = image_size
    box = (width // 3, height // 4, width // 3 + 16, height // 4 + 20)
    inside = np.zeros((height, width), np.uint8)
    inside[box[1] : box[3], box[0] : box[2]] = 1
    mask = resize_labels_to(Image.fromarray(inside), (16, 16), resize)
    projected = project_box(box, image_size, (16, 16), resize)
    assert projected is not None
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    expected = (rows[0], columns[0], len(rows), len(columns))
    assert np.abs(np.array(projected) - expected).max() <= 1
    assert project_box((0, 0, 1, 1), image_size, (16, 16), "cover") is None
