"""Ablation of units and layers, against a loop over hooks and other oracles."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convatlas import UserError
from convatlas.analysis.ablation.ablate import Ablation, ablate, choose_images, choose_units
from convatlas.models.outputs import Output
from convatlas.models.preprocessing import Preprocessing
from convatlas.training.labelled_images import LabelledImages

CLASSES = 3
PREPROCESSING = Preprocessing(6, (0.5,), (0.25,))


class Classifier(nn.Module):
    """With a residual connection, a norm, dropout, a dead unit, and a module that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.twice = nn.Conv2d(4, 4, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.hidden = nn.Linear(4, 8)
        self.fc = nn.Linear(8, CLASSES)
        with torch.no_grad():
            self.hidden.weight[2] = 0
            self.hidden.bias[2] = -1  # never above zero: dead

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu_()
        x = x + self.drop(self.twice(self.twice(x)))
        return self.fc(F.relu(self.hidden(x.mean((2, 3)))))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(1)
    network = Classifier()
    network(torch.randn(64, 1, 6, 6))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def split() -> LabelledImages:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (41, 1, 6, 6), generator=generator).byte()
    return LabelledImages(images, torch.randint(0, CLASSES, (41,), generator=generator))


LAYERS = ["first", "twice", "twice:2", "hidden"]


@pytest.fixture(scope="module")
def ablation(network: nn.Module, split: LabelledImages) -> Ablation:
    return ablate(network, PREPROCESSING, split, LAYERS, CLASSES, Output("softmax", "", (3,), 3), n_random=2)


def run_with_hook(
    network: nn.Module, x: Tensor, layer: str, change: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Run a network with the output of one call of a module changed; return the output and the original."""
    path, _, number = layer.partition(":")
    calls: list[Tensor] = []

    def hook(module: nn.Module, args: object, output: Tensor) -> Tensor:
        calls.append(output)
        return change(output.clone()) if len(calls) == int(number or 1) else output

    handle = network.get_submodule(path).register_forward_hook(hook)
    try:
        return network(x), calls[int(number or 1) - 1]
    finally:
        handle.remove()


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("kind", ["zero", "mean"])
def test_costs_equal_a_loop_over_hooks(
    network: nn.Module, split: LabelledImages, ablation: Ablation, layer: str, kind: str
) -> None:
    """Of each unit alone and of all: accuracy and loss, overall and by class."""
    result = next(item for item in ablation.layers if item.layer == layer)
    chosen = split[torch.from_numpy(ablation.images)]
    x, labels = PREPROCESSING(chosen.images), chosen.labels
    scores, output = run_with_hook(network, x, layer, lambda output: output)
    means = output.transpose(0, 1).flatten(1).mean(1)
    assert np.allclose(result.means, means, atol=1e-6)
    before = F.cross_entropy(scores, labels, reduction="none")
    is_right = (scores.argmax(1) == labels).float()
    groups = [[unit] for unit in result.units] + [list(range(result.n_units))]
    for n, units in enumerate(groups):

        def change(output: Tensor, units: list[int] = units) -> Tensor:
            for unit in units:
                output[:, unit] = 0 if kind == "zero" else means[unit]
            return output

        effects = result.effects[kind] if n < len(result.units) else result.layer_effects[kind]  # type: ignore[index]
        row = n if n < len(result.units) else 0
        ablated, _ = run_with_hook(network, x, layer, change)
        after = F.cross_entropy(ablated, labels, reduction="none")
        still_right = (ablated.argmax(1) == labels).float()
        assert effects.values[row] == pytest.approx(float(still_right.mean()))
        assert effects.effects[row] == pytest.approx(float((is_right - still_right).mean()), abs=1e-6)
        assert effects.loss_changes[row] == pytest.approx(float((after - before).mean()), abs=1e-5)
        assert effects.loss_errors[row] == pytest.approx(float((after - before).std()) / 41**0.5, abs=1e-5)
        for c in range(CLASSES):
            of_class = labels == c
            drop = float((is_right - still_right)[of_class].mean())
            assert effects.class_effects[row, c] == pytest.approx(drop, abs=1e-6)
            change_of_class = float((after - before)[of_class].mean())
            assert effects.class_loss_changes[row, c] == pytest.approx(change_of_class, abs=1e-5)


def test_a_dead_unit_changes_nothing(ablation: Ablation) -> None:
    effects = ablation.layers[-1].effects["zero"]
    assert effects.effects[2] == effects.loss_changes[2] == 0
    assert not effects.class_loss_changes[2].any()
    assert effects.p[2] == effects.loss_p[2] == 1
    assert np.abs(effects.loss_changes).max() > 0


def test_a_layer_of_zeros_is_a_constant_input_to_the_rest(network: nn.Module, ablation: Ablation) -> None:
    """All images get the prediction that the bias alone gives."""
    prediction = int(network.get_parameter("fc.bias").argmax())
    share = ablation.class_images[prediction] / ablation.class_images.sum()
    effects = ablation.layers[-1].layer_effects["zero"]
    assert effects.values[0] == pytest.approx(share)


def test_curves_are_measured_on_other_images_than_the_order(
    network: nn.Module, split: LabelledImages, ablation: Ablation
) -> None:
    assert not set(ablation.importance_images) & set(ablation.curve_images)
    assert sorted([*ablation.importance_images, *ablation.curve_images]) == list(range(41))
    counts = [np.bincount(split.labels[torch.from_numpy(half)]) for half in
              (ablation.importance_images, ablation.curve_images)]  # fmt: skip
    assert np.abs(counts[0] - counts[1]).max() <= 1
    layer = ablation.layers[0]
    half = split[torch.from_numpy(ablation.importance_images)]
    other = split[torch.from_numpy(ablation.curve_images)]

    def measure(images: LabelledImages, units: list[int]) -> tuple[float, float]:
        def change(output: Tensor) -> Tensor:
            output[:, units] = 0
            return output

        scores, _ = run_with_hook(network, PREPROCESSING(images.images), "first", change)
        accuracy = (scores.argmax(1) == images.labels).float().mean()
        return float(F.cross_entropy(scores, images.labels)), float(accuracy)

    losses = [measure(half, [unit])[0] for unit in range(4)]
    order = sorted(range(4), key=lambda unit: -losses[unit])
    curve = layer.curves["zero"]
    assert curve.counts.tolist() == [0, 1, 2, 3, 4]
    assert curve.important_first == pytest.approx([measure(other, order[:n])[1] for n in range(5)])
    assert curve.important_last == pytest.approx([measure(other, order[::-1][:n])[1] for n in range(5)])
    assert curve.random.shape == (2, 5)
    assert (curve.random[:, [0, -1]] == curve.important_first[[0, -1]]).all()


def test_a_segmentation_network_is_measured_by_its_iou() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1)).eval()
    images = torch.randint(0, 256, (9, 1, 6, 6)).byte()
    masks = torch.randint(0, 2, (9, 6, 6)).byte()
    masks[:, 0] = 255  # no class
    split = LabelledImages(images, masks)
    output = Output("softmax", "", (2, 6, 6), 2)
    with torch.no_grad():
        ablation = ablate(network, PREPROCESSING, split, ["0"], 2, output, n_random=1)

        def measure(unit: int | None) -> np.ndarray:
            hidden = network[0](PREPROCESSING(images)).relu()
            if unit is not None:
                hidden[:, unit] = 0
            predicted, known = network[2](hidden).argmax(1), masks != 255
            pairs = [((masks == c) & known, (predicted == c) & known) for c in range(2)]
            return np.array([float((a & b).sum() / (a | b).sum()) for a, b in pairs])

        before = measure(None)
        assert ablation.measure == "mean_iou"
        assert ablation.value == pytest.approx(before.mean())
        assert ablation.class_values == pytest.approx(before)
        effects = ablation.layers[0].effects["zero"]
        for unit in range(4):
            assert effects.class_effects[unit] == pytest.approx(before - measure(unit), abs=1e-6)
            assert effects.effects[unit] == pytest.approx((before - measure(unit)).mean(), abs=1e-6)


def test_a_multi_label_network_is_measured_by_its_loss(network: nn.Module, split: LabelledImages) -> None:
    output = Output("multi-label", "", (3,), 3)
    ablation = ablate(network, PREPROCESSING, split, ["hidden"], CLASSES, output, n_random=1)
    targets = F.one_hot(split.labels, 3).float()
    expected = F.binary_cross_entropy_with_logits(network(PREPROCESSING(split.images)), targets)
    assert ablation.measure == "loss"
    assert ablation.value == pytest.approx(float(expected), rel=1e-5)
    effects = ablation.layers[0].effects["zero"]
    assert np.array_equal(effects.effects, effects.loss_changes)


def test_layers_without_units_are_left_out(network: nn.Module, split: LabelledImages) -> None:
    class Transposed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.unused, self.turn = network, nn.Conv2d(1, 1, 1), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            self.turn(x.transpose(0, 1))
            return self.inner(x)

    layers = ["turn", "unused", "inner.hidden"]
    ablation = ablate(Transposed(), PREPROCESSING, split, layers, CLASSES, n_random=1)
    assert [layer.layer for layer in ablation.layers] == ["inner.hidden"]
    assert ablation.left_out == {
        "turn": "its output (1, 41, 6, 6) for 41 images has no axis of units",
        "unused": "it is not called",
    }


def test_subsets_are_stratified_and_evenly_spaced(split: LabelledImages) -> None:
    chosen = choose_images(split, 20)
    counts, all_counts = (
        np.bincount(split.labels[index]) for index in (torch.from_numpy(chosen), slice(None))
    )
    assert len(set(chosen)) == 20
    assert np.abs(counts - all_counts * 20 / 41).max() <= 1
    assert choose_units(6, None).tolist() == choose_units(6, 6).tolist() == [0, 1, 2, 3, 4, 5]
    assert choose_units(100, 4).tolist() == [12, 37, 62, 87]


def test_too_few_images_are_refused(network: nn.Module, split: LabelledImages) -> None:
    with pytest.raises(UserError, match="at least 4 images with labels; there are 3"):
        ablate(network, PREPROCESSING, split[torch.arange(3)], ["hidden"], CLASSES)
