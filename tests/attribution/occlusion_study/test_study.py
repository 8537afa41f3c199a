"""The occlusion study, against loops over positions."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convatlas import UserError
from convatlas.attribution.occlusion_study.study import OcclusionStudy, study_occlusion
from convatlas.models.outputs import Output
from convatlas.models.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(12, (0.3,), (0.2,))
GREY = (0.5 - 0.3) / 0.2  # grey before normalisation


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.rand(1, 12, 10, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 5, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)
    ).eval()


def hide(image: Tensor, row: int, column: int, side: int) -> Tensor:
    changed = image.clone()
    for y in range(12):
        for x in range(10):
            if row <= y < row + side and column <= x < column + side:
                changed[:, y, x] = GREY
    return changed


@torch.no_grad()
def test_maps_equal_a_loop_over_positions(classifier: nn.Module, image: Tensor) -> None:
    study = study_occlusion(classifier, image, "1", PREPROCESSING, target=2, size=5, stride=3)
    hidden = classifier[1](classifier[0](image[None]))[0].sum((1, 2))
    assert study.unit == int(hidden.argmax())
    assert study.activation == pytest.approx(float(hidden.max()))
    assert (study.rows.tolist(), study.columns.tolist()) == ([-2, 1, 4, 7, 10], [-2, 1, 4, 7])
    assert study.probabilities is not None and study.predictions is not None
    for r, row in enumerate(study.rows):
        for k, column in enumerate(study.columns):
            x = hide(image, int(row), int(column), 5)[None]
            probabilities = classifier(x).softmax(1)[0]
            assert study.probabilities[r, k] == pytest.approx(float(probabilities[2]), abs=1e-6)
            assert study.predictions[r, k] == int(probabilities.argmax())
            total = classifier[1](classifier[0](x))[0, study.unit].sum()
            assert study.activations[r, k] == pytest.approx(float(total), abs=1e-5)


def test_occluding_with_the_image_itself_changes_nothing(classifier: nn.Module, image: Tensor) -> None:
    study = study_occlusion(classifier, image, "1", PREPROCESSING, fill=image)
    assert study.probabilities is not None
    assert np.allclose(study.probabilities, study.probability, atol=1e-6)
    assert np.allclose(study.activations, study.activation, atol=1e-4)
    assert (study.predictions == study.prediction).all()
    assert study.target == study.prediction


def study_segmentation(image: Tensor, reference: np.ndarray | None, fill: Tensor | None) -> OcclusionStudy:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1)).eval()
    return study_occlusion(
        network, image, "0", PREPROCESSING, Output("softmax", "", (3, 12, 10), 3), None, reference, 4, 4, fill
    )


@torch.no_grad()
def test_the_iou_of_a_segmentation_is_with_the_truth_or_the_unoccluded_prediction(image: Tensor) -> None:
    torch.manual_seed(0)
    network = nn.Conv2d(1, 3, 3, padding=1)
    before = network(image[None])[0].argmax(0).numpy()
    unchanged = study_segmentation(image, None, image)
    assert unchanged.iou is not None and unchanged.ious is not None
    present = np.unique(before)
    assert (unchanged.iou[present] == 1).all()
    assert (unchanged.ious[..., present] == 1).all()

    truth = np.arange(120).reshape(12, 10) % 3
    truth[0] = 255
    study = study_segmentation(image, truth, None)
    assert study.ious is not None
    for r, row in enumerate(study.rows):
        for k, column in enumerate(study.columns):
            predicted = network(hide(image, int(row), int(column), 4)[None])[0].argmax(0).numpy()
            for c in range(3):
                known = truth != 255
                both = ((predicted == c) & (truth == c)).sum()
                either = (((predicted == c) | (truth == c)) & known).sum()
                assert study.ious[r, k, c] == pytest.approx(both / either)


def test_what_is_no_image_or_no_layer_is_refused(classifier: nn.Module, image: Tensor) -> None:
    with pytest.raises(UserError, match="does not call the layer 'conv9'"):
        study_occlusion(classifier, image, "conv9")
    with pytest.raises(UserError, match=r"images \(C, H, W\), and the input has the shape \(1, 9\)"):
        study_occlusion(classifier, torch.rand(1, 9), "1")


class OneImage(nn.Module):
    """Takes one image at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 5, 3), nn.Linear(400, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).relu().reshape(1, 400))  # type: ignore[no-any-return]


@torch.no_grad()
@pytest.mark.parametrize("takes_batches", [False, True])
def test_squares_do_not_influence_each_other(image: Tensor, takes_batches: bool) -> None:
    torch.manual_seed(0)
    network: nn.Module = OneImage()
    layer = "conv"
    if takes_batches:
        norm = nn.BatchNorm2d(5, track_running_stats=False)
        network = nn.Sequential(nn.Conv2d(1, 5, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(400, 4))
        layer = "0"
    study = study_occlusion(network.eval(), image, layer, PREPROCESSING, target=2, size=5, stride=3)
    assert study.probabilities is not None
    for r, row in enumerate(study.rows):
        for k, column in enumerate(study.columns):
            alone = network(hide(image, int(row), int(column), 5)[None]).softmax(1)[0, 2]
            assert study.probabilities[r, k] == pytest.approx(float(alone), abs=1e-6)


class NanWhere(nn.Module):
    """Multiplies scores by NaN where the first pixel is grey, and the first map always."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(1, 3, 1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        maps = self.relu(self.conv(x) * torch.tensor([torch.nan, 1.0, 1.0])[:, None, None])
        is_grey = (x[:, :1, :1, :1] - GREY).abs() < 1e-6
        return maps[:, 1:].mean((2, 3)).where(~is_grey[:, :, 0, 0], torch.nan)


def test_nan_gives_no_prediction_and_no_strongest_map(image: Tensor) -> None:
    torch.manual_seed(1)
    study = study_occlusion(NanWhere(), image, "relu", PREPROCESSING, size=4, stride=4)
    assert study.unit in (1, 2)
    assert study.predictions is not None and study.probabilities is not None
    assert study.predictions[0, 0] == -1
    assert (study.predictions >= 0).sum() == study.predictions.size - 1
    np.testing.assert_array_equal(np.isnan(study.probabilities), study.predictions < 0)
    grey = torch.full_like(image, GREY)
    with pytest.raises(UserError, match="the scores of the image as it is are NaN or infinite"):
        study_occlusion(NanWhere(), grey, "relu", PREPROCESSING)
    with pytest.raises(UserError, match="every map"):
        study_occlusion(NanWhere(), torch.full_like(image, torch.nan), "relu", PREPROCESSING)
