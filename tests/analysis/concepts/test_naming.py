"""Units that are planted are named, and random ones are not."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from convatlas.analysis.concepts import naming
from convatlas.analysis.concepts.images import ConceptImages
from convatlas.analysis.concepts.layer_reader import LayerReader
from convatlas.analysis.concepts.naming import Concepts, MeasuredConcepts, NamedUnits, name_units
from convatlas.analysis.concepts.selection import choose_regions, count_regions
from convatlas.analysis.concepts.unit_values import measure_values
from tests.support.planted_concepts import CONCEPTS, LAYER, UNITS, Unit, make_images, make_network

NAMES = list(UNITS)


def name_planted(train: ConceptImages, test: ConceptImages, concepts: Concepts = CONCEPTS) -> NamedUnits:
    return name_units(make_network(), [LAYER], concepts, train, test)


def list_names(named: NamedUnits) -> dict[str, set[str]]:
    """Return the names of the named units: the concept, after a minus if the unit is low on it."""
    result = named.layers[LAYER]
    names: dict[str, set[str]] = {}
    for measured, concepts in ((result.regions, CONCEPTS.regions), (result.kinds, CONCEPTS.kinds)):
        if measured is not None:
            for unit in np.flatnonzero(measured.is_named):
                sign = "" if measured.is_high[unit] else "-"
                names.setdefault(NAMES[unit], set()).add(sign + concepts[measured.concept[unit]].name)
    return names


@pytest.fixture(scope="module")
def named() -> NamedUnits:
    return name_planted(make_images(40, 0), make_images(40, 1))


def test_planted_units_are_named_and_others_are_not(named: NamedUnits) -> None:
    """The centre of the image agrees with pets well, and no better with those of its own image."""
    assert list_names(named) == {
        "pet": {"pet"}, "complement": {"-pet"}, "head": {"head"},
        "breed": {"boxer"}, "not breed": {"-sphynx"},
    }  # fmt: skip
    regions = named.layers[LAYER].regions
    assert regions is not None
    centre = NAMES.index("centre")
    assert regions.auc[centre] == pytest.approx(regions.chance_mean[centre], abs=0.02)
    assert regions.auc[centre] > 0.8


def test_the_measurements_of_perfect_units_are_perfect(named: NamedUnits) -> None:
    regions, kinds = named.layers[LAYER].regions, named.layers[LAYER].kinds
    assert regions is not None
    assert kinds is not None
    for name, auc in (("pet", 1), ("complement", 0), ("head", 1)):
        unit = NAMES.index(name)
        assert regions.auc[unit] == regions.low[unit] == regions.high[unit] == auc
        assert regions.regions["iou"][unit] == regions.regions["iou_ceiling"][unit] == 1
    assert regions.regions["rival_low"][NAMES.index("head")] == 1
    unit = NAMES.index("breed")
    assert kinds.auc[unit] == kinds.low[unit] == kinds.high[unit] == 1


def test_units_with_nan_values_are_excluded(named: NamedUnits) -> None:
    result = named.layers[LAYER]
    assert result.excluded == [NAMES.index("nan")]
    for measured in (result.regions, result.kinds):
        assert isinstance(measured, MeasuredConcepts)
        assert measured.concept[NAMES.index("nan")] == -1
        assert not measured.is_named[NAMES.index("nan")]


def test_a_unit_that_is_nan_on_a_test_image_alone_is_excluded() -> None:
    test = make_images(10, 1)
    inputs = [x.clone() for x in test.inputs]
    inputs[3][0, 0, 2, 2] = torch.inf
    result = name_planted(make_images(10, 0), replace(test, inputs=inputs)).layers[LAYER]
    assert result.excluded == [0, NAMES.index("nan")]


def test_names_are_chosen_on_training_images_alone(named: NamedUnits) -> None:
    other = name_planted(make_images(40, 0), make_images(20, 7))
    for name in ("regions", "kinds"):
        first, second = getattr(named.layers[LAYER], name), getattr(other.layers[LAYER], name)
        np.testing.assert_array_equal(first.concept, second.concept)
        np.testing.assert_array_equal(first.train_auc, second.train_auc)


def test_shuffled_annotations_name_nothing() -> None:
    test = make_images(40, 1)
    order = np.random.default_rng(3).permutation(40)
    assert test.codes is not None
    shuffled = replace(test, codes=[test.codes[n] for n in order], shows=test.shows[:, order])
    assert list_names(name_planted(make_images(40, 0), shuffled)) == {}


def test_random_units_are_seldom_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of repetitions with 30 random units each at most 5 % name one, also without a smallest effect."""
    monkeypatch.setattr(naming, "MIN_AUC_EFFECT", 0)
    repetitions = 40

    def smooth(image: object, noise: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(noise[None], 5, 1, 2)[0] + noise[0, 0]

    units: list[Unit] = [smooth] * 30
    n_false = 0
    for repetition in range(repetitions):
        train, test = (make_images(10, 2 * repetition + split, units, box_share=0.6) for split in range(2))
        result = name_planted(train, test).layers[LAYER]
        measured = [part for part in (result.regions, result.kinds) if part is not None]
        assert len(measured) >= 1
        n_false += any(bool((part.p <= 0.05).any()) for part in measured)
    assert n_false <= 5  # more in 1.4 % of draws from Binomial(40, 0.05)


def test_a_unit_that_is_active_all_over_the_pet_does_not_respond_to_heads() -> None:
    """It separates heads from the rest of the images better than chance, but not from the rest of the pet."""
    images = make_images(20, 0)
    reader = LayerReader.choose(make_network(), [LAYER], images)
    values = measure_values(reader, images, "mean")
    counts = count_regions(reader, values, images, len(CONCEPTS.regions[0].parts))[LAYER]
    only_heads = np.array([False, False, False, True])
    chosen = choose_regions(counts, values[LAYER].is_finite, CONCEPTS.regions, only_heads)
    assert chosen.concept[NAMES.index("pet")] == -1
    assert chosen.concept[NAMES.index("head")] == 3


def test_without_head_boxes_in_the_test_split_the_head_is_not_tested() -> None:
    named = name_planted(make_images(20, 0), make_images(20, 1, box_share=0))
    assert named.tested.tolist() == [True, True, True, False, True, True, True]
    assert named.families == 2
    names = list_names(named)
    assert names["pet"] == {"pet"}
    assert not any("head" in name for unit in names.values() for name in unit)


def test_images_without_regions_are_compared_by_their_kinds_alone() -> None:
    kinds = Concepts([], CONCEPTS.kinds)
    train, test = (replace(make_images(40, seed), codes=None) for seed in (0, 1))
    named = name_units(make_network(), [LAYER], kinds, train, test, "max")
    assert named.layers[LAYER].regions is None
    assert list_names(named)["breed"] == {"boxer"}


def test_images_without_a_label_do_not_count() -> None:
    test = make_images(40, 1)
    shows = test.shows.copy()
    shows[:, :10] = False
    labelled = replace(test, shows=shows, is_labelled=np.arange(40) >= 10)
    kinds = name_planted(make_images(40, 0), labelled).layers[LAYER].kinds
    assert kinds is not None
    assert kinds.auc[NAMES.index("breed")] == 1


def test_layers_without_maps_have_kinds_alone() -> None:
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    named = name_units(network, ["1"], CONCEPTS, make_images(40, 0), make_images(40, 1))
    assert named.layers["1"].regions is None
    kinds = named.layers["1"].kinds
    assert kinds is not None
    assert kinds.is_named[NAMES.index("breed")]
