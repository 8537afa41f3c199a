"""Attribution of the sample images: the files of the stage and their reader."""

from pathlib import Path

import numpy as np
import pytest

from convatlas import UserError
from convatlas.results import Results
from tests.support.fake_attribution import write_attribution
from tests.support.fake_results import make_results


def test_results_read_the_maps_and_their_description(tmp_path: Path) -> None:
    folder = make_results().write(tmp_path / "own")
    assert Results(folder).attribution is None  # views.attribution: null
    with pytest.raises(UserError, match="missing"):
        Results(folder).attribution_maps("first")["gradient@3"]
    results = Results(write_attribution(folder))
    assert results.attribution is not None
    for entry in results.attribution["images"]["first"]["maps"]:
        values = results.attribution_maps("first")[entry["member"]]
        assert (values.min(), values.max()) == pytest.approx((entry["min"], entry["max"]))
        assert values.dtype == np.float32
