"""The numbers on the page of a network's ablation: only what exceeds its noise."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from convatlas.gallery.ablation_data import AblationReader, describe_unit_costs, make_effect_columns

CURVE = {"counts": [0, 1, 2], "important_first": [0.9, 0.5, 0.1], "important_last": [0.9, 0.8, 0.1],
         "random": [[0.9, 0.6, 0.1], [0.9, 0.8, 0.1]]}  # fmt: skip
COST = {"value": 0.1, "effect": 0.8, "interval": [0.7, 0.9], "p": 0.001, "class_effects": [0.9, 0.7],
        "class_p": [0.5, 0.01], "loss_change": None}  # fmt: skip


def make_reader(measure: str = "accuracy", n_classes: int = 2) -> AblationReader:
    """Return the ablation of two layers of two units; unit 1 of b matters, unit 0 of a within noise."""
    arrays: dict[str, np.ndarray] = {}
    for layer, p, effect in (("a", [0.3, 1.0], [0.2, 0.0]), ("b", [1.0, 0.001], [0.0, 0.4])):
        arrays[f"{layer}@units"] = np.array([0, 1])
        for kind in ("zero", "mean"):
            prefix = f"{layer}@{kind}_"
            arrays[f"{prefix}effects"] = arrays[f"{prefix}loss_changes"] = np.array(effect)
            arrays[f"{prefix}p"] = arrays[f"{prefix}loss_p"] = np.array(p)
            arrays[f"{prefix}intervals"] = np.stack([np.array(effect) - 0.1, np.array(effect) + 0.1], 1)
            arrays[f"{prefix}class_effects"] = np.repeat(np.array(effect)[:, None], n_classes, 1)
            arrays[f"{prefix}class_p"] = np.repeat(np.array(p)[:, None], n_classes, 1)
    both = {"costs": {"zero": COST, "mean": COST}, "curves": {"zero": CURVE, "mean": CURVE}}
    layer: Any = {"units": 2, "measured": 2, "significant": {"zero": 1, "mean": 1}, **both}
    analysis: Any = {
        "undefined": None, "measure": measure, "images": 40, "significance": 0.05,
        "classes": [f"class {n}" for n in range(n_classes)], "class_images": [20] * n_classes,
        "layers": [{"layer": name} | layer for name in "ab"],
    }  # fmt: skip
    network: Any = SimpleNamespace(results=SimpleNamespace(ablation_arrays=arrays))
    return AblationReader(network, analysis)


def test_units_within_noise_are_left_out() -> None:
    reader = make_reader()
    (unit,) = reader.list_units()
    assert (unit.layer, unit.unit, unit.effect) == ("b", 1, "40.0 (30.0 to 50.0)")
    assert [cell.text for cell in unit.classes] == ["40.0", "40.0"]
    assert [cell.magnitude for cell in unit.classes] == [1.0, 1.0]
    findings = reader.list_findings()
    assert findings[0].startswith("Unit 1 of b matters most: without it the accuracy drops by 40.0 points")
    assert "the largest of 4 effects, chosen on the same images; the interval is not adjusted" in findings[0]
    assert "the largest of 8 effects of units on classes" in findings[1]
    assert len(findings) == 3


def test_only_the_loss_decides_which_units_matter() -> None:
    reader = make_reader()
    reader.arrays["b@zero_loss_p"] = np.array([1.0, 0.2])
    assert reader.list_units() == []
    assert describe_unit_costs(reader) == {"a": {}, "b": {}}


def test_what_is_not_finite_is_a_dash() -> None:
    reader = make_reader("loss")
    for name in ("effects", "loss_changes"):
        reader.arrays[f"b@zero_{name}"] = np.array([0.0, np.inf])
    reader.arrays["b@zero_intervals"] = np.full((2, 2), np.nan)
    reader.arrays["b@zero_class_effects"] = np.array([[0.0, 0.0], [np.inf, 0.4]])
    (unit,) = reader.list_units()
    assert (unit.loss_change, unit.effect) == ("", "")
    assert [(cell.text, cell.magnitude) for cell in unit.classes] == [("", 0.0), ("0.400", 1.0)]
    assert "without it the loss is no longer finite (95 % interval – to –)" in reader.list_findings()[0]
    columns = {column.key: column for column in reader.make_columns([])}
    assert columns["loss"].format_cell(0) == "–"
    assert reader.format_value(None) == "–"
    for layer in reader.analysis["layers"]:
        curve: Any = CURVE | {"important_first": [0.9, None, None]}
        layer["curves"] = {"zero": curve, "mean": curve}
    (_, chart), _ = next(reader.list_curves()).charts
    assert "– with the most important first" in chart.alt


def test_columns_are_empty_within_noise_and_sorted_by_the_loss() -> None:
    columns = {column.key: column for column in make_reader().make_columns(["a"])}
    assert columns["unit"].values.tolist()[:2] == [1, 0]
    assert columns["layer"].values.tolist()[:2] == [1, 0]
    assert columns["layer"].unlinked == [1]
    assert columns["zero"].values[0] == 40
    assert np.isnan(columns["zero"].values[1:]).all()
    assert np.isnan(columns["class-0"].values[1:]).all()


def test_many_classes_have_the_columns_of_those_that_matter() -> None:
    reader = make_reader(n_classes=1000)
    assert len(reader.class_columns) == 12
    assert reader.class_sizes == "20"


@pytest.mark.parametrize("measure", ["accuracy", "mean_iou", "loss"])
def test_curves_have_the_random_order_as_their_control(measure: str) -> None:
    curves = list(make_reader(measure).list_curves())
    assert [item.layer["layer"] for item in curves] == ["a", "b"]
    (_, chart), _ = curves[0].charts
    assert list(chart.positions) == [0, 50, 100]
    control = next(line.series for line in chart.series if line.series.dashed)
    factor = 100 if measure == "accuracy" else 1
    assert control.values == pytest.approx([0.9 * factor, 0.7 * factor, 0.1 * factor])
    assert (list(control.low)[1], list(control.high)[1]) == pytest.approx((0.6 * factor, 0.8 * factor))


def test_the_unit_table_and_the_explorer_say_what_a_unit_costs() -> None:
    reader = make_reader()
    (column,) = make_effect_columns(reader, ["other", "b"], [1, 3])
    assert np.isnan(column.values[[0, 1, 3]]).all()
    assert column.values[2] == 0.4
    assert describe_unit_costs(reader) == {
        "a": {},
        "b": {1: "Replaced by zero, the loss rises by 0.4 and the accuracy drops by 40.0 points."},
    }


def test_the_class_that_a_layer_costs_most_is_one_beyond_noise() -> None:
    reader = make_reader()
    assert reader.describe_class_cost(COST) == "class 1 (70.0)"  # type: ignore[arg-type]
