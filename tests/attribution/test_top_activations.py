"""The projections and patches of top activations, against those of the whole images one by one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convatlas import UserError
from convatlas.attribution.contradictions import check_patches, check_top_activations
from convatlas.attribution.deconvnet import project
from convatlas.attribution.patches import PatchGeometry, extract_context, extract_patch
from convatlas.attribution.top_activations import project_top_activations
from convatlas.datasets import formats
from convatlas.files import read_json, write_json
from convatlas.models import build
from convatlas.results import Results
from tests.support.arrays import read_npz
from tests.support.dataset_pass import (
    SETTINGS,
    run_pass,
    write_digits,
    write_lenet5,
    write_photographs,
    write_resnet18,
)

PROJECT_ALL: dict[str, Any] = {"project": "all", "units": "all", "relevance": None, "rectify": False}


def run_stage(folder: Path, data: Path, settings: dict[str, Any]) -> Results:
    key = f"networks.{folder.name}.views.strongest.project"
    project_top_activations(folder, data, settings, torch.device("cpu"), 2, key)  # type: ignore[arg-type]
    return Results(folder)


@pytest.mark.parametrize("name", ["lenet5", "resnet18"])
def test_the_file_holds_projections_and_patches_of_the_top_activations(name: str, tmp_path: Path) -> None:
    if name == "lenet5":
        folder, data = write_lenet5(tmp_path / "results/lenet5"), write_digits(tmp_path, 21)
        settings, layers = PROJECT_ALL, ["conv1", "pool1", "pool2"]
    else:
        folder, data = write_resnet18(tmp_path / "results/resnet18"), write_photographs(tmp_path)
        layers = ["maxpool", "layer1.0.conv2", "layer3.0.conv1"]
        settings = PROJECT_ALL | {"project": layers, "units": 3}
    run_pass(folder, data, settings=SETTINGS | {"k": 4})
    results = run_stage(folder, data, settings)
    arrays = results.top_activations
    for key, array in results.statistics.items():
        if key.endswith(("@values", "@images", "@positions")):
            np.testing.assert_array_equal(arrays[key], array)

    network, preprocessing = build.load_network(folder)
    size = preprocessing.size, preprocessing.resize
    x = preprocessing(
        torch.from_numpy(formats.load(data, "test").read_images(preprocessing.pixel_format, *size))
    )
    assert {key.split("@")[0] for key in arrays if key.endswith("@projections")} >= set(layers)
    for layer in layers:
        values = arrays[f"{layer}@values"]
        units = arrays[f"{layer}@units"] if f"{layer}@units" in arrays else np.arange(len(values))
        if name == "resnet18":
            assert values[units, 0].tolist() == sorted(values[:, 0], reverse=True)[:3]
        geometry = PatchGeometry.from_layer(results.layer(layer), preprocessing.shape[1:])
        projections, patches, corners = (
            arrays[f"{layer}@{end}"] for end in ("projections", "patches", "corners")
        )
        assert projections.shape == patches.shape == (len(units), 4, x.shape[1], *geometry.patch_size)
        for row, unit in enumerate(units):
            for rank in range(4):
                image = x[arrays[f"{layer}@images"][unit, rank]]
                position = arrays[f"{layer}@positions"][unit, rank]
                patch = extract_patch(image.numpy(), geometry, position)
                np.testing.assert_array_equal(patches[row, rank], patch)
                peak = project(network, image, layer, [int(unit)], "peak")[0]
                expected = extract_patch(peak.numpy(), geometry, position)
                np.testing.assert_allclose(projections[row, rank], expected, rtol=1e-3, atol=1e-5)
                top, left = corners[row, rank]
                y, x_ = (int(size) // 2 for size in geometry.patch_size)
                if not np.isnan(patch[0, y, x_]):
                    assert patch[0, y, x_] == image[0, top + y, left + x_]
        assert (f"{layer}@contexts" in arrays) == (max(geometry.patch_size) <= 9)


@pytest.mark.parametrize(
    ("position", "corner"), [((10, 14), (0, 2)), ((0, 0), (0, 0)), ((17, 39), (0, 16)), ((9, 20), (0, 8))]
)
def test_the_context_of_a_patch_is_the_image_around_it(
    position: tuple[int, int], corner: tuple[int, int]
) -> None:
    image = np.arange(18 * 40, dtype=np.float32).reshape(1, 18, 40)
    geometry = PatchGeometry((18, 40), (-1, -1), (1, 1), (3, 3), is_global=False)
    context, context_corner = extract_context(image, geometry, np.array(position), 24)
    assert context.shape == (1, 18, 24) and context_corner.tolist() == list(corner)
    top, left = context_corner
    np.testing.assert_array_equal(context, image[:, top : top + 18, left : left + 24])


def test_a_layer_that_is_not_tracked_is_refused(tmp_path: Path) -> None:
    folder, data = write_lenet5(tmp_path / "results/lenet5"), write_digits(tmp_path, 9)
    run_pass(folder, data, settings=SETTINGS | {"layers": ["conv*"]})
    arrays = run_stage(folder, data, PROJECT_ALL).top_activations  # "all" means all that are tracked
    assert "conv1@patches" in arrays
    assert "pool1@values" not in arrays
    words = (
        r"networks\.lenet5\.views\.strongest\.project: 'pool1' is not among those of views\.strongest\.layers"
    )
    with pytest.raises(UserError, match=words):
        run_stage(folder, data, PROJECT_ALL | {"project": ["pool1"]})
    with pytest.raises(UserError, match="no layer 'conv9'"):
        run_stage(folder, data, PROJECT_ALL | {"project": ["conv9"]})


def test_top_activations_that_do_not_exist_are_nan(tmp_path: Path) -> None:
    folder, data = write_lenet5(tmp_path / "results/lenet5"), write_digits(tmp_path, 9)
    run_pass(folder, data)
    statistics = read_npz(folder / "statistics.npz")
    statistics["conv1@images"][2, 1:] = -1
    with (folder / "statistics.npz").open("wb") as file:
        np.savez(file, **statistics)
    projections = run_stage(folder, data, PROJECT_ALL | {"project": ["conv1"]}).top_activations[
        "conv1@projections"
    ]
    assert np.isnan(projections[2, 1:]).all()
    assert not np.isnan(projections[2, 0]).all()


# Contradictions


def test_a_patch_without_the_pixels_that_caused_it_stops_the_stage(tmp_path: Path) -> None:
    folder, data = write_lenet5(tmp_path / "results/lenet5"), write_digits(tmp_path, 9)
    run_pass(folder, data)
    layers = read_json(folder / "layers.json")
    next(layer for layer in layers if layer["name"] == "conv2")["receptive_field"] = [6, 6]  # it is 14
    write_json(folder / "layers.json", layers)
    with pytest.raises(UserError, match=r"layer 'conv2'.* outside its receptive field of 6 × 6 pixels"):
        run_stage(folder, data, PROJECT_ALL | {"project": ["conv2"], "units": 2})


def test_statistics_that_are_not_the_networks_stop_the_stage(tmp_path: Path) -> None:
    folder, data = write_lenet5(tmp_path / "results/lenet5"), write_digits(tmp_path, 9)
    run_pass(folder, data)
    statistics = read_npz(folder / "statistics.npz")
    statistics["conv1@values"][2, 0] *= 1.5
    with (folder / "statistics.npz").open("wb") as file:
        np.savez(file, **statistics)
    with pytest.raises(UserError, match="layer 'conv1': a top activation over the data set is"):
        run_stage(folder, data, PROJECT_ALL | {"project": ["conv1"]})


def sum_of_patch(images: Sequence[np.ndarray]) -> np.ndarray:
    """Return the sum of 3 × 3 pixels of each image, which depends on the position too, as in CoordConv."""
    return np.array([image[:, 2:5, 2:5].sum() + 7 for image in images])


def has_large_sum(images: Sequence[np.ndarray]) -> np.ndarray:
    """Return a binary activation of each image: of 3 × 3 ones it is at its threshold."""
    return np.array([float(image[:, 2:5, 2:5].sum() >= 9) for image in images])


def test_rounding_does_not_stop_a_network_with_thresholds() -> None:
    images = [np.ones((1, 8, 8), np.float32)] * 4
    values, activations = np.zeros(4), np.ones(4)  # as another order of sums could give
    check_top_activations("binary", images, values, activations, has_large_sum)
    with pytest.raises(UserError, match="layer 'sum'"):
        check_top_activations("sum", images, values, sum_of_patch(images), sum_of_patch)


@pytest.mark.parametrize(("field", "is_right"), [(3, True), (5, True), (2, False)])
def test_pixels_outside_a_patch_must_not_matter(field: int, is_right: bool) -> None:
    images = list(np.random.default_rng(1).random((4, 1, 8, 8), np.float32))
    geometry = PatchGeometry((8, 8), (0, 0), (1, 1), (field, field), is_global=False)
    arguments = (images, geometry, np.full((4, 2), 5 - max(field, 3)), sum_of_patch(images), sum_of_patch)
    if is_right:
        check_patches("sum", *arguments)
    else:
        with pytest.raises(UserError, match="outside its receptive field of 2 × 2"):
            check_patches("sum", *arguments)
