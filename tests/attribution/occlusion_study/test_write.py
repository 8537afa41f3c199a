"""occlusion/ of a network: its files, and the images that are left out."""

from pathlib import Path

import numpy as np
import torch

from convatlas.attribution.occlusion_study.report import write_occlusion
from convatlas.files import read_json, write_json, write_npz
from convatlas.results import Results
from tests.support.dataset_pass import write_lenet5


def test_the_files_are_the_same_twice_and_leave_out_what_is_not_finite(tmp_path: Path) -> None:
    folder = write_lenet5(tmp_path / "results/lenet5")
    description = read_json(folder / "network.json") | {"dataset_classes": list("0123456789")}
    write_json(folder / "network.json", description)
    random = np.random.default_rng(0)
    images = []
    for index, name in enumerate(("one", "broken", "two")):
        x = random.normal(size=(1, 28, 28)).astype(np.float32)
        image = {"name": name, "split": None, "index": None, "path": None, "label": index, "prediction": 1}
        if name == "broken":
            x[0, 20, 20] = np.nan
            image |= {"non_finite": [{"layer": "input", "nan": 1, "infinite": 0}]}
        write_npz(folder / f"activations/{name}.npz", {"input": x})
        images.append(image | {"probability": 0.2})
    write_json(folder / "images.json", images)
    settings = {"layer": None, "size": 16, "stride": 8, "images": "all", "rectify": True}
    files = []
    for _ in range(2):
        write_occlusion(folder, None, settings, torch.device("cpu"))
        files.append({path.name: path.read_bytes() for path in (folder / "occlusion").iterdir()})
    assert files[0] == files[1]
    assert b"NaN" not in files[0]["occlusion.json"].replace(b"NaN or infinite", b"")
    results = Results(folder)
    analysis, arrays = results.occlusion, results.occlusion_arrays
    assert analysis is not None
    assert analysis["undefined"] is None
    assert [entry["name"] for entry in analysis["images"]] == ["one", "two"]
    assert list(analysis["left_out"]) == ["broken"]
    assert "NaN or infinite" in analysis["left_out"]["broken"]
    for entry, other in zip(analysis["images"], ("two", "one"), strict=True):
        grid = (len(entry["rows"]), len(entry["columns"]))
        for key in ("activations", "probabilities", "predictions"):
            assert arrays[f"{entry['name']}@{key}"].shape == grid
        assert entry["others"] == [other]
        assert arrays[f"{entry['name']}@projection"].shape == (1, 28, 28)
        assert arrays[f"{entry['name']}@other_projections"].shape == (1, 1, 28, 28)
