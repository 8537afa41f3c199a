"""Networks of users, on photographs, through the pipeline: from the config to the page."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from convatlas.datasets.synthetic_pets.generate import draw_pets
from tests.support.arrays import read_npz
from tests.support.real_data import get_real_data
from tests.support.site import PageParser
from tests.support.workspace import Workspace

RESNET20 = '''
"""The ResNet-20 of Yerlan Idelbayev's CIFAR-10 checkpoints: functional ReLUs, padded shortcuts."""

from torch import nn
from torch.nn import functional as F

from parts import Shortcut


class Block(nn.Module):
    def __init__(self, before, after, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = Shortcut(after // 4) if stride == 2 else nn.Sequential()

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class ResNet20(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, classes)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = F.avg_pool2d(out, out.size()[3])
        return self.linear(out.view(out.size(0), -1))


def build(classes=10):
    return ResNet20(classes)
'''
PARTS = """
from torch import nn
from torch.nn import functional as F


class Shortcut(nn.Module):
    def __init__(self, more):
        super().__init__()
        self.more = more

    def forward(self, x):
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more, self.more))
"""
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
CIFAR = {"size": 32, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
LAYERS = ["conv1", "relu", "layer1.0/relu:2", "layer1.0", "layer2.0/add", "layer3.2.conv?", "linear"]


SILU = """
from torch import nn
INPUT = {"size": 16, "mean": [0.5] * 3, "std": [0.5] * 3}
def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(720, 2))
"""

REMOVED = dict.fromkeys(["simple_cnn", "lenet5", "squeezenet", "sd_unet"])  # the networks of config.yaml


def write_own_network(folder: Path) -> dict[str, Any]:
    """Write a network's code and class names, and return its section of the config."""
    (folder / "nets").mkdir()
    (folder / "nets/resnet.py").write_text(RESNET20)
    (folder / "nets/parts.py").write_text(PARTS)
    (folder / "names.txt").write_text("\n".join(CLASSES))
    return {
        "architecture": "nets/resnet.py:build",
        "input": CIFAR,
        "classes": "names.txt",
        "downsample_name": "shortcut",
        "images": {"photographs": ["cat", "rocket"]},
        "views": {"layers": LAYERS, "deconv": {"layers": ["layer1.0", "layer3.2/relu:2"], "units": 5}},
    }


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A run of two networks of users with random weights, and of torchvision's ResNet-18, trained briefly."""
    workspace = Workspace(tmp_path_factory.mktemp("any") / "convatlas", {})
    (workspace.folder / "few").mkdir()
    draw_pets(workspace.folder / "few", count=36)
    mine = workspace.folder / "mine"
    mine.mkdir()
    Image.new("RGBA", (40, 30), (255, 0, 0, 100)).save(mine / "a.jpg", format="PNG")
    Image.new("P", (30, 40), 3).save(mine / "b.jpg", format="GIF")
    (mine / "notes.txt").write_text("no image")
    resnet18 = {
        "architecture": "torchvision/resnet18",
        "dataset": "pets",
        "training": {"epochs": 1, "batch_size": 16},
        "input": {"size": 32},
        "images": {"indices": [0], "photographs": None, "files": ["mine"]},
        "record": {"dtype": "float16"},
        "views": {
            "layers": ["conv1", "layer1.0/add"],
            "deconv": {"layers": ["maxpool"], "units": 2},
            "strongest": {"project": ["maxpool"], "units": 2},
            "masks": {"train": 2, "test": 2},
        },
    }
    (workspace.folder / "silu.py").write_text(SILU)
    silu = {
        "architecture": "silu.py:build",
        "images": {"photographs": ["coffee"]},
        "views": {"deconv": {"rectify": True}},
    }
    own = write_own_network(workspace.folder)
    networks = REMOVED | {"resnet18": resnet18, "own": own, "silu": silu}
    workspace.overlay({"datasets": {"pets": {"source": "few"}}, "networks": networks})
    done = workspace.snakemake()
    assert done.returncode == 0, done.stdout + done.stderr
    return workspace


def read(workspace: Workspace, path: str) -> dict[str, np.ndarray]:
    """Read an npz under results/."""
    return read_npz(workspace.folder / "results" / path)


def test_functions_operators_and_blocks_are_recorded(workspace: Workspace) -> None:
    activations = read(workspace, "own/activations/cat.npz")
    for layer in ("relu", "avg_pool2d", "view", "layer1.0/relu", "layer1.0/add", "layer2.0.shortcut"):
        assert layer in activations, layer
    np.testing.assert_array_equal(activations["layer1.0"], activations["layer1.0/relu:2"])
    np.testing.assert_array_equal(activations["layer1.0/relu:2"], activations["layer1.0/add"].clip(0))
    means = activations["layer3.2/relu:2"].mean((1, 2))
    np.testing.assert_allclose(means, activations["avg_pool2d"].ravel(), rtol=1e-5)


def test_downsampling_convolutions_have_a_role(workspace: Workspace) -> None:
    layers = json.loads((workspace.folder / "results/own/layers.json").read_text())
    convs = [layer for layer in layers if layer["kind"] == "conv"]
    assert [layer["ordinal"] for layer in convs] == list(range(1, 20))
    roles = {
        layer["name"]: layer["role"]
        for layer in json.loads((workspace.folder / "results/resnet18/layers.json").read_text())
    }
    assert sorted(name for name, role in roles.items() if role == "downsample") == [
        f"layer{n}.0.downsample.0" for n in (2, 3, 4)
    ]


def test_the_most_active_units_are_projected(workspace: Workspace) -> None:
    recorded, projected = (
        read(workspace, "own/activations/rocket.npz"),
        read(workspace, "own/deconv/rocket.npz"),
    )
    for layer in ("layer1.0", "layer3.2/relu:2"):
        maxima = recorded[layer].reshape(len(recorded[layer]), -1).max(1)
        assert projected[f"{layer}@units"].tolist() == np.argsort(-maxima, kind="stable")[:5].tolist()
        assert projected[layer].shape == projected[f"{layer}@peak"].shape == (5, 3, 32, 32)


def test_class_scores_are_attributed_through_functional_relus(workspace: Workspace) -> None:
    for network, images in (("own", ["cat", "rocket"]), ("resnet18", ["test-00000", "a", "b"])):
        analysis = json.loads(
            (workspace.folder / f"results/{network}/attribution/attribution.json").read_text()
        )
        assert list(analysis["images"]) == images
        assert [method["undefined"] for method in analysis["methods"]] == [None] * 6
        maps = read(workspace, f"{network}/attribution/{images[0]}.npz")
        assert {values.shape[1:] for values in maps.values()} == {(32, 32)}
        assert len(maps) == 6 and all(np.isfinite(values).all() and values.any() for values in maps.values())


def test_image_files_with_a_wrong_suffix_are_read_by_content(workspace: Workspace) -> None:
    images = json.loads((workspace.folder / "results/resnet18/images.json").read_text())
    assert [image["name"] for image in images] == ["test-00000", "a", "b"]
    assert [image["label"] is None for image in images] == [False, True, True]
    half = read(workspace, "resnet18/activations/a.npz")
    assert half["input"].dtype == np.float32
    assert {array.dtype for name, array in half.items() if name.endswith("conv1")} == {np.dtype("float16")}


def test_the_page_says_that_nothing_was_trained(workspace: Workspace) -> None:
    page = (workspace.folder / "reports/gallery/networks/own.html").read_text()
    assert "Not trained in this run" in page and "random initialisation" in page
    assert "layer1.0/relu:2" in page and "Classical features" in page


def test_the_page_says_that_activations_are_rectified(workspace: Workspace) -> None:
    page = PageParser(workspace.folder / "reports/gallery/networks/silu.html")
    assert "activations that are not ReLUs" in page.text


def test_an_edit_of_a_module_of_the_users_network_reruns_that_network_only(workspace: Workspace) -> None:
    parts = workspace.folder / "nets/parts.py"
    before = parts.read_text()
    parts.write_text(before + "# edited\n")
    try:
        stages = ("train", "record", "classical", "deconv", "attribution", "figures", "explorer")
        assert workspace.planned() == {f"{stage} own" for stage in stages} | {"gallery"}
    finally:
        parts.write_text(before)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"views": {"layers": ["layer1.0/rel"]}},
            ["views.layers", "no layer 'layer1.0/rel'", "layer1.0/relu"],
        ),
        ({"views": {"deconv": {"layers": ["layer1.9"]}}}, ["no layer 'layer1.9'", "did you mean 'layer1"]),
        (
            {"images": {"files": ["names.txt"], "photographs": None}},
            ["own.images.files", "names.txt", "no image"],
        ),
        ({"weights": {"path": "names.txt"}}, ["own.weights", "names.txt"]),
        ({"input": {"size": 8, "mean": [0.5], "std": [0.5]}}, ["own.input", "channels"]),
    ],
    ids=["layer", "deconv layer", "image", "weights", "channels"],
)
def test_an_error_is_reported_in_one_message(workspace: Workspace, change: dict, words: list[str]) -> None:
    check_error(workspace, "own", change, words)


def test_a_network_without_relus_is_an_error_unless_rectify_is_set(workspace: Workspace) -> None:
    check_error(workspace, "silu", {"views": {"deconv": {"rectify": False}}}, ["1 (Silu)", "rectify: true"])


def check_error(workspace: Workspace, network: str, change: dict, words: list[str]) -> None:
    """Assert that a network's projections fail with a change of its section, and what the message holds."""
    more = workspace.folder / "more.yaml"
    more.write_text(json.dumps({"networks": {network: change}}))
    done = workspace.snakemake("--configfile", "tiny.yaml", "more.yaml", "--", f"results/{network}/deconv")
    text = done.stdout + done.stderr
    assert done.returncode != 0 and "Traceback" not in text
    for word in words:
        assert word in text, text


def test_a_published_checkpoint(tmp_path: Path) -> None:
    """A real checkpoint: logits as of a plain load, a cat classified as cat, maps after functional ReLUs."""
    checkpoint = get_real_data("weights/resnet20-12fca82f.th")
    workspace = Workspace(tmp_path / "convatlas", {})
    weights = {"path": str(checkpoint), "key": "state_dict", "strip_prefix": "module."}
    network = write_own_network(workspace.folder) | {"weights": weights}
    workspace.overlay({"networks": REMOVED | {"own": network}})
    done = workspace.snakemake("--", "results/own/activations")
    assert done.returncode == 0, done.stdout + done.stderr
    cat = json.loads((workspace.folder / "results/own/images.json").read_text())[0]
    assert CLASSES[cat["prediction"]] == "cat" and cat["probability"] > 0.9

    activations = read(workspace, "own/activations/cat.npz")
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")["state_dict"]
    first = F.conv2d(torch.from_numpy(activations["input"])[None], state["module.conv1.weight"], padding=1)
    np.testing.assert_allclose(activations["conv1"], first[0].numpy(), atol=1e-5)
    assert activations["layer3.2/relu:2"].min() == 0 < activations["layer3.2/relu:2"].max()
    logits = state["module.linear.weight"].numpy() @ activations["avg_pool2d"].ravel()
    np.testing.assert_allclose(activations["linear"], logits + state["module.linear.bias"].numpy(), atol=1e-4)
