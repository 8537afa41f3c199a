"""A segmentation network through the pipeline: trained, evaluated, analysed and drawn."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix, jaccard_score
from torchvision.datasets import OxfordIIITPet

from convatlas.datasets.synthetic_pets.generate import draw_pets
from convatlas.models import build
from convatlas.results import Results
from tests.support.workspace import Workspace

SIZE = 32


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A run of a narrow SD-UNet, trained for two epochs on a few pets, one of them with a damaged trimap."""
    workspace = Workspace(tmp_path_factory.mktemp("segmentation") / "convatlas", {})
    few = workspace.folder / "few"
    few.mkdir()
    draw_pets(few, count=36)
    bad = sorted((few / "annotations/trimaps").glob("*.png"))[0]
    Image.fromarray(np.full((5, 5), 2, np.uint8)).save(bad)
    small = {
        "arguments": {"width": 2},
        "input": {"size": SIZE},
        "training": {"epochs": 2, "lr": 0.01},  # float32, as shipped
        "views": {
            "layers": [1, 26, 43, 51],
            "highlight": [1, 51],
            "deconv": {"layers": [43], "units": 2},
            "masks": {"train": 4, "test": 4},
        },
    }
    others = {"simple_cnn": None, "lenet5": None, "squeezenet": None}
    pets = {"source": "few", "on_bad_image": "skip"}
    workspace.overlay({"datasets": {"pets": pets, "digits": None}, "networks": others | {"sd_unet": small}})
    done = workspace.snakemake()
    assert done.returncode == 0, done.stdout + done.stderr
    return workspace


def read_result(workspace: Workspace, path: str) -> Any:
    """Read a JSON file of the network's results."""
    return json.loads((workspace.folder / "results/sd_unet" / path).read_text())


def read_test_split(workspace: Workspace) -> tuple[list[Image.Image], np.ndarray]:
    """Return the test images, and their pixels' classes as torchvision reads and Pillow resizes them."""
    pets = OxfordIIITPet(workspace.folder / "data/pets", "test", "segmentation")
    images, trimaps = zip(*pets, strict=True)
    skipped = {Path(entry["path"]).stem for entry in read_dataset(workspace)["skipped"]}
    good = [n for n, path in enumerate(pets._images) if path.stem not in skipped]
    resized = [trimaps[n].resize((SIZE, SIZE), Image.Resampling.NEAREST) for n in good]
    return [images[n] for n in good], np.stack([np.asarray(trimap) for trimap in resized]) - 1


def read_dataset(workspace: Workspace) -> Any:
    """Read the description of the data set."""
    return json.loads((workspace.folder / "data/pets/dataset.json").read_text())


def test_the_metrics_are_those_of_scikit_learn_on_the_predictions(workspace: Workspace) -> None:
    images, classes = read_test_split(workspace)
    network, preprocessing = build.load_network(workspace.folder / "results/sd_unet")
    size = (SIZE, SIZE)
    pixels = np.stack([np.asarray(image.resize(size, Image.Resampling.BILINEAR)) for image in images])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    predicted = torch.cat([network(preprocessing(image[None])).argmax(1) for image in x]).numpy()
    metrics = read_result(workspace, "metrics.json")
    assert metrics["images"] == len(images)
    iou = jaccard_score(classes.ravel(), predicted.ravel(), average=None)
    assert list(metrics["iou"]) == ["pet", "background", "border"]
    assert list(metrics["iou"].values()) == pytest.approx(iou, abs=2e-3)  # a pixel may fall to either side
    assert metrics["mean_iou"] == pytest.approx(iou.mean(), abs=2e-3)
    counts = confusion_matrix(classes.ravel(), predicted.ravel())
    assert np.abs(np.array(metrics["confusion"]) - counts).sum() < 1e-3 * classes.size
    rows = Results(workspace.folder / "results/sd_unet").predictions
    names = [str(row["file"]) for row in rows]
    assert all((workspace.folder / "data/pets" / name).is_file() for name in names)
    assert len(set(names)) == len(images)
    intersections, unions = (np.sum([row[key] for row in rows], 0) for key in ("intersections", "unions"))
    assert list(metrics["iou"].values()) == pytest.approx(list(intersections / unions))


def test_the_examples_are_the_test_images(workspace: Workspace) -> None:
    images, classes = read_test_split(workspace)
    analysis = read_result(workspace, "masks/masks.json")
    with np.load(workspace.folder / "results/sd_unet/masks/examples.npz", allow_pickle=False) as arrays:
        for row, example in enumerate(analysis["examples"]):
            np.testing.assert_array_equal(arrays["truth"][row], classes[example["index"]])
            photograph = images[example["index"]].resize((SIZE, SIZE), Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(arrays["photograph"][row], np.asarray(photograph))
            pet = (arrays["truth"][row] == 0, arrays["prediction"][row] == 0)
            iou = (pet[0] & pet[1]).sum() / (pet[0] | pet[1]).sum()
            assert example["iou"]["pet"] == pytest.approx(iou)
    assert [example["rank"] for example in analysis["examples"]] == ["first", "best", "median", "worst"]
    assert analysis["examples"][0]["index"] == 0


def test_the_network_is_described(workspace: Workspace) -> None:
    network = read_result(workspace, "network.json")
    assert network["classes"] == ["pet", "background", "border"]
    assert network["arguments"] == {"width": 2, "classes": 3}
    assert "130" in network["source"]
    with (workspace.folder / "results/sd_unet/history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    scores = [float(row["validation_mean_iou"]) for row in rows]  # rounded: they may be equal
    assert scores[network["training"]["best_epoch"] - 1] == max(scores)
    assert not (workspace.folder / "results/sd_unet/checkpoint").exists()


def test_every_convolution_has_a_role_and_is_analysed(workspace: Workspace) -> None:
    convs = [layer for layer in read_result(workspace, "layers.json") if layer["ordinal"]]
    roles = [layer["role"] for layer in convs]
    counts = {role: roles.count(role) for role in roles}
    assert counts == {"attention": 18, "main": 18, "down": 4, "pyramid": 6, "up": 4, "head": 1}
    assert [layer["ordinal"] for layer in read_result(workspace, "masks/masks.json")["layers"]] == list(
        range(1, 52)
    )
    noted = {layer["ordinal"] for layer in convs if any("dilation" in note for note in layer["notes"])}
    assert noted == {25, 26, 29}  # on 2 x 2 pixels
    assert "only the centre tap" in (workspace.folder / "logs/sd_unet/record.log").read_text()


def test_skipped_images_are_listed(workspace: Workspace) -> None:
    skipped = read_dataset(workspace)["skipped"]
    assert len(skipped) == 1
    page = (workspace.folder / "reports/gallery/index.html").read_text()
    assert Path(skipped[0]["path"]).name in page


def test_the_page_shows_the_analysis(workspace: Workspace) -> None:
    gallery = workspace.folder / "reports/gallery"
    page = (gallery / "networks/sd_unet.html").read_text()
    for words in (
        "Where segmentation emerges",
        "Electronics 2022",
        "Squeeze",
        "Pyramid",
        "mean IoU",
        "Rectified",
    ):
        assert words in page, words
    assert "sd_unet" in (gallery / "masks.html").read_text()
    kinds = [figure["kind"] for figure in read_result(workspace, "figures/figures.json")]
    assert {"segmentation", "mask", "curves", "confusion", "maps", "deconv"} <= set(kinds)


def test_a_second_run_has_nothing_to_do(workspace: Workspace) -> None:
    assert workspace.planned() == set()
