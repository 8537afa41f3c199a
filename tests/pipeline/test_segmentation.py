"""A network that tells pixels apart, through the pipeline: trained, measured, drawn and shown."""

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
from tests.support.workspace import Workspace

SIZE = 32


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """SD-UNet, as narrow and as short as can be, on a few pets, one of them without its trimap."""
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
    others = {"simple_cnn": None, "lenet5": None, "resnet18": None}
    pets = {"source": "few", "on_bad_image": "skip"}
    workspace.overlay({"datasets": {"pets": pets, "digits": None}, "networks": others | {"sd_unet": small}})
    done = workspace.snakemake()
    assert done.returncode == 0, done.stdout + done.stderr
    return workspace


def told(workspace: Workspace, path: str) -> Any:
    return json.loads((workspace.folder / "results/sd_unet" / path).read_text())


def truth(workspace: Workspace) -> tuple[list[Image.Image], np.ndarray]:
    """The test images and their classes of pixels, as torchvision reads them and Pillow resizes them."""
    found = OxfordIIITPet(workspace.folder / "data/pets", "test", "segmentation")
    images, trimaps = zip(*found, strict=True)
    skipped = {Path(entry["path"]).stem for entry in described(workspace)["skipped"]}
    kept = [n for n, path in enumerate(found._images) if path.stem not in skipped]
    fitted = [trimaps[n].resize((SIZE, SIZE), Image.Resampling.NEAREST) for n in kept]
    return [images[n] for n in kept], np.stack([np.asarray(trimap) for trimap in fitted]) - 1


def described(workspace: Workspace) -> Any:
    return json.loads((workspace.folder / "data/pets/dataset.json").read_text())


def test_the_metrics_are_scikit_learns_of_what_the_network_predicts(made: Workspace) -> None:
    images, classes = truth(made)
    network, preprocessing = build.load_network(made.folder / "results/sd_unet")
    size = (SIZE, SIZE)
    pixels = np.stack([np.asarray(image.resize(size, Image.Resampling.BILINEAR)) for image in images])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    predicted = torch.cat([network(preprocessing(one[None])).argmax(1) for one in x]).numpy()
    found = told(made, "metrics.json")
    assert found["images"] == len(images)
    iou = jaccard_score(classes.ravel(), predicted.ravel(), average=None)
    assert list(found["iou"]) == ["pet", "background", "border"]
    assert list(found["iou"].values()) == pytest.approx(iou, abs=2e-3)  # a pixel may fall to either side
    assert found["mean_iou"] == pytest.approx(iou.mean(), abs=2e-3)
    counts = confusion_matrix(classes.ravel(), predicted.ravel())
    assert np.abs(np.array(found["confusion"]) - counts).sum() < 1e-3 * classes.size


def test_the_examples_are_the_test_images(made: Workspace) -> None:
    images, classes = truth(made)
    found = told(made, "masks/masks.json")
    with np.load(made.folder / "results/sd_unet/masks/examples.npz", allow_pickle=False) as arrays:
        for row, example in enumerate(found["examples"]):
            np.testing.assert_array_equal(arrays["truth"][row], classes[example["index"]])
            photograph = images[example["index"]].resize((SIZE, SIZE), Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(arrays["photograph"][row], np.asarray(photograph))
            pet = (arrays["truth"][row] == 0, arrays["prediction"][row] == 0)
            iou = (pet[0] & pet[1]).sum() / (pet[0] | pet[1]).sum()
            assert example["iou"]["pet"] == pytest.approx(iou)
    assert [example["rank"] for example in found["examples"]] == ["first", "best", "median", "worst"]
    assert found["examples"][0]["index"] == 0


def test_the_network_says_what_it_is(made: Workspace) -> None:
    network = told(made, "network.json")
    assert network["classes"] == ["pet", "background", "border"]
    assert network["arguments"] == {"width": 2, "classes": 3}
    assert "130" in network["source"]
    with (made.folder / "results/sd_unet/history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    best = max(rows, key=lambda row: float(row["validation_mean_iou"]))
    assert int(best["epoch"]) == network["training"]["best_epoch"]
    assert not (made.folder / "results/sd_unet/checkpoint").exists()


def test_every_convolution_has_its_role_and_is_measured(made: Workspace) -> None:
    convs = [layer for layer in told(made, "layers.json") if layer["ordinal"]]
    roles = [layer["role"] for layer in convs]
    counts = {role: roles.count(role) for role in roles}
    assert counts == {"attention": 18, "main": 18, "down": 4, "pyramid": 6, "up": 4, "head": 1}
    assert [layer["ordinal"] for layer in told(made, "masks/masks.json")["layers"]] == list(range(1, 52))
    noted = {layer["ordinal"] for layer in convs if any("dilation" in note for note in layer["notes"])}
    assert noted == {25, 26, 29}  # on 2 x 2 pixels
    assert "only the centre tap" in (made.folder / "logs/sd_unet/record.log").read_text()


def test_what_is_left_out_is_told(made: Workspace) -> None:
    skipped = described(made)["skipped"]
    assert len(skipped) == 1
    page = (made.folder / "reports/gallery/index.html").read_text()
    assert Path(skipped[0]["path"]).name in page


def test_the_page_shows_it(made: Workspace) -> None:
    gallery = made.folder / "reports/gallery"
    page = (gallery / "networks/sd_unet.html").read_text()
    for words in (
        "Where the mask appears",
        "Electronics 2022",
        "Squeeze",
        "Pyramid",
        "mean IoU",
        "Rectified",
    ):
        assert words in page, words
    assert "sd_unet" in (gallery / "masks.html").read_text()
    kinds = [plate["kind"] for plate in told(made, "figures/figures.json")]
    assert {"segmentation", "mask", "curves", "confusion", "maps", "deconv"} <= set(kinds)


def test_nothing_is_left_to_do(made: Workspace) -> None:
    assert made.planned() == set()
