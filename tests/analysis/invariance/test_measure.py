"""Distances and probabilities under changes of the image, against loops over single images."""

from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score
from torch import Tensor, nn

from convatlas.analysis.invariance.measure import OUTSIDE, compute_mean_iou, measure_invariance
from convatlas.analysis.invariance.transforms import Transform, warp
from convatlas.models.outputs import Output

BLACK = torch.zeros(1)
TRANSFORMS = [Transform("vertical", (-3.0, 0.0, 2.0)), Transform("rotation", (0.0, 30.0, 360.0))]
CLASSIFIER = Output("softmax", "", (3,), 3)


def make_network() -> nn.Sequential:
    """Return a small classifier."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(100, 8),
        nn.ReLU(),
        nn.Linear(8, 3),
    ).eval()


def make_images(count: int = 3) -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).normal(size=(count, 1, 12, 12)).astype(np.float32))


def test_distances_and_probabilities_are_those_of_single_images() -> None:
    network, x = make_network(), make_images()
    measured = measure_invariance(network, x, ["0", "5"], TRANSFORMS, "edge", BLACK, CLASSIFIER, [2, None, 0])
    with torch.no_grad():
        predicted = int(network(x[1:2]).argmax())
        assert measured.classes == [2, predicted, 0]
        for transform in TRANSFORMS:
            for n in range(3):
                for s, step in enumerate(transform.steps):
                    changed = warp(x[n : n + 1], transform.compute_matrix(step), "edge", BLACK)
                    for layer, part in (("0", network[:1]), ("5", network[:6])):
                        expected = float((part(changed) - part(x[n : n + 1])).double().square().sum().sqrt())
                        actual = measured.distances[layer][transform.name][n, s]
                        assert actual == pytest.approx(expected, rel=1e-5, abs=1e-5)
                    probability = float(network(changed).softmax(1)[0, measured.classes[n]])
                    assert measured.scores[transform.name][n, s] == pytest.approx(probability, rel=1e-5)
        features = network[:6](x)
        pairs = [float((a - b).norm()) for a, b in combinations(features, 2)]
        assert measured.different_images["5"] == pytest.approx(sum(pairs) / 3, rel=1e-6)


class Pooled(nn.Module):
    """A network with integer weights whose pooled features do not change as an object moves on black."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.AdaptiveAvgPool2d(1)
        self.conv.weight.data = torch.arange(36.0).reshape(4, 1, 3, 3) % 7 - 3

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.pool(self.conv(x).relu()).flatten(1)
        return pooled


def test_the_distance_is_zero_at_identity_and_a_full_turn_and_of_pooled_features_of_a_moved_object() -> None:
    x = torch.zeros(2, 1, 16, 16)
    x[:, :, 6:10, 5:11] = torch.from_numpy(np.random.default_rng(0).integers(1, 9, (2, 1, 4, 6))).float()
    transforms = [Transform("horizontal", (-3.0, 0.0, 4.0)), Transform("rotation", (0.0, 45.0, 360.0))]
    measured = measure_invariance(
        Pooled().eval(), x, ["conv", "pool"], transforms, "zero", BLACK, Output("none"), [None, None]
    )
    assert measured.distances["pool"]["horizontal"].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert (measured.distances["conv"]["horizontal"][:, [0, 2]] > 1).all()
    for layer in ("conv", "pool"):
        rotated = measured.distances[layer]["rotation"]
        assert (rotated[:, [0, 2]] == 0).all()
        assert (rotated[:, 1] > 0).all()
    assert measured.scores == {}
    assert measured.classes == []


def test_a_segmentation_by_single_pixels_moves_with_the_image() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 1)).eval()
    transforms = [Transform("vertical", (-3.0, 0.0, 2.0)), Transform("rotation", (0.0, 90.0, 180.0))]
    measured = measure_invariance(
        network,
        make_images(),
        ["0"],
        transforms,
        "edge",
        BLACK,
        Output("softmax", "", (3, 12, 12), 3),
        [None] * 3,
    )
    for values in measured.scores.values():
        assert (values == 1).all()


def test_the_iou_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    predicted, expected = random.integers(0, 4, (3, 6, 6)), random.integers(0, 3, (3, 6, 6))
    expected[:, :2] = OUTSIDE
    expected[2][expected[2] == 1] = 0
    ious = compute_mean_iou(torch.from_numpy(predicted), torch.from_numpy(expected))
    for n, iou in enumerate(ious.tolist()):
        counts = expected[n] != OUTSIDE
        pair = (expected[n][counts], predicted[n][counts])
        assert iou == pytest.approx(jaccard_score(*pair, average="macro", labels=np.unique(np.stack(pair))))


class OneImage(nn.Module):
    """A network that takes one image at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 2, 3), nn.Linear(200, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.fc(self.conv(x).squeeze(0).reshape(200))
        return scores


class BatchStatistics(OneImage):
    """A network whose features depend on the other images of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.fc((self.conv(x) - x.mean()).flatten(1))
        return scores


@pytest.mark.parametrize("kind", [OneImage, BatchStatistics])
def test_images_run_alone_where_a_batch_changes_what_the_network_computes(kind: type[OneImage]) -> None:
    torch.manual_seed(0)
    network, x = kind().eval(), make_images()
    arguments = (["conv", "fc"], TRANSFORMS, "edge", BLACK, CLASSIFIER)
    together = measure_invariance(network, x, *arguments, [0, 1, 2])  # type: ignore[arg-type]
    for n in range(3):
        alone = measure_invariance(network, x[n : n + 1], *arguments, [n])  # type: ignore[arg-type]
        assert alone.different_images == {"conv": None, "fc": None}
        for name in ("vertical", "rotation"):
            np.testing.assert_allclose(
                together.distances["fc"][name][[n]], alone.distances["fc"][name], rtol=1e-4
            )
            np.testing.assert_allclose(together.scores[name][[n]], alone.scores[name], rtol=1e-4)


class Masking(nn.Module):
    """A network with a layer of truth values, whose patches are folded into the batch axis before it."""

    def __init__(self) -> None:
        super().__init__()
        self.folding, self.sign, self.fc = nn.Flatten(0, 1), Sign(), nn.Linear(144, 3)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.folding(x.unflatten(2, (2, 6)).movedim(2, 1))
        scores: Tensor = self.fc(self.sign(patches).float().reshape(len(x), 144))
        return scores


class Sign(nn.Module):
    """Where values are positive."""

    def forward(self, x: Tensor) -> Tensor:
        return x > 0


def test_layers_of_truth_values_and_of_patches_are_compared_too() -> None:
    network, x = Masking().eval(), make_images()
    measured = measure_invariance(network, x, ["sign"], TRANSFORMS, "edge", BLACK, CLASSIFIER, [0, 1, 2])
    changed = warp(x, TRANSFORMS[0].compute_matrix(2.0), "edge", BLACK)
    expected = ((changed > 0) != (x > 0)).flatten(1).sum(1).sqrt()
    np.testing.assert_allclose(measured.distances["sign"]["vertical"][:, 2], expected, rtol=1e-6)


def test_values_that_are_not_finite_are_marked() -> None:
    network, x = make_network(), make_images()
    network.state_dict()["6.bias"][1] = torch.nan
    measured = measure_invariance(network, x, ["5", "6"], TRANSFORMS, "edge", BLACK, CLASSIFIER, [1, None, 0])
    assert measured.classes == [1, -1, 0]
    assert np.isnan(measured.scores["vertical"]).all()
    assert np.isnan(measured.distances["6"]["vertical"]).all()
    assert measured.different_images["6"] is None
    assert np.isfinite(measured.distances["5"]["vertical"]).all()
