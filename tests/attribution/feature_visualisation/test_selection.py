"""The units for which images are optimised."""

from types import SimpleNamespace
from typing import Any

import pytest

from convatlas import UserError
from convatlas.attribution.feature_visualisation.selection import select_units


def test_a_layer_with_a_single_number_has_no_units() -> None:
    results: Any = SimpleNamespace(layer=lambda name: {"output_shape": []})
    for selection in ("all", 3):
        assert select_units(results, "sum", selection, "units", []) == []
    with pytest.raises(UserError, match="sum has no unit 2; it has 0"):
        select_units(results, "sum", [2], "units", [])
