"""Networks of anyone's, on photographs: through the pipeline, from the config to the page."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from convatlas.datasets.synthetic_pets.generate import draw_pets
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
CHOSEN = ["conv1", "relu", "layer1.0/relu:2", "layer1.0", "layer2.0/add", "layer*.2.conv?", "linear"]


SHIPPED = dict.fromkeys(["simple_cnn", "lenet5", "resnet18", "sd_unet"])  # removed


def own(folder: Path) -> dict:
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
        "views": {"layers": CHOSEN, "deconv": {"layers": ["layer1.0", "layer3.2/relu:2"], "units": 5}},
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """An own file with random weights, and torchvision's ResNet-18 trained for one epoch on a few pets."""
    workspace = Workspace(tmp_path_factory.mktemp("any") / "convatlas", {})
    (workspace.folder / "few").mkdir()
    draw_pets(workspace.folder / "few", count=36)
    mine = workspace.folder / "mine"
    mine.mkdir()
    Image.new("RGBA", (40, 30), (255, 0, 0, 100)).save(mine / "a.jpg", format="PNG")
    Image.new("P", (30, 40), 3).save(mine / "b.jpg", format="GIF")
    (mine / "notes.txt").write_text("no image")
    small = {
        "training": {"epochs": 1, "batch_size": 16},
        "input": {"size": 32},
        "images": {"indices": [0], "photographs": None, "files": ["mine"]},
        "record": {"dtype": "float16"},
    }
    networks = SHIPPED | {"resnet18": small, "own": own(workspace.folder)}
    workspace.overlay({"datasets": {"pets": {"source": "few"}}, "networks": networks})
    done = workspace.snakemake()
    assert done.returncode == 0, done.stdout + done.stderr
    return workspace


def read(workspace: Workspace, path: str) -> dict[str, np.ndarray]:
    with np.load(workspace.folder / "results" / path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def test_functions_operators_and_blocks_are_recorded(made: Workspace) -> None:
    found = read(made, "own/activations/cat.npz")
    for layer in ("relu", "avg_pool2d", "view", "layer1.0/relu", "layer1.0/add", "layer2.0.shortcut"):
        assert layer in found, layer
    np.testing.assert_array_equal(found["layer1.0"], found["layer1.0/relu:2"])
    np.testing.assert_array_equal(found["layer1.0/relu:2"], found["layer1.0/add"].clip(0))
    means = found["layer3.2/relu:2"].mean((1, 2))
    np.testing.assert_allclose(means, found["avg_pool2d"].ravel(), rtol=1e-5)


def test_downsampling_and_never_called_are_told(made: Workspace) -> None:
    layers = json.loads((made.folder / "results/own/layers.json").read_text())
    convs = [layer for layer in layers if layer["kind"] == "conv"]
    assert [layer["ordinal"] for layer in convs] == list(range(1, 20))
    roles = {
        layer["name"]: layer["role"]
        for layer in json.loads((made.folder / "results/resnet18/layers.json").read_text())
    }
    assert sorted(name for name, role in roles.items() if role == "downsample") == [
        f"layer{n}.0.downsample.0" for n in (2, 3, 4)
    ]


def test_the_strongest_units_are_projected(made: Workspace) -> None:
    recorded, projected = read(made, "own/activations/rocket.npz"), read(made, "own/deconv/rocket.npz")
    for layer in ("layer1.0", "layer3.2/relu:2"):
        most = recorded[layer].reshape(len(recorded[layer]), -1).max(1)
        assert projected[f"{layer}@units"].tolist() == np.argsort(-most, kind="stable")[:5].tolist()
        assert projected[layer].shape == projected[f"{layer}@peak"].shape == (5, 3, 32, 32)


def test_files_that_are_not_what_their_name_says(made: Workspace) -> None:
    images = json.loads((made.folder / "results/resnet18/images.json").read_text())
    assert [image["name"] for image in images] == ["test-00000", "a", "b"]
    assert [image["label"] is None for image in images] == [False, True, True]
    half = read(made, "resnet18/activations/a.npz")
    assert half["input"].dtype == np.float32
    assert {array.dtype for name, array in half.items() if name.endswith("conv1")} == {np.dtype("float16")}


def test_the_page_says_what_was_not_trained(made: Workspace) -> None:
    page = (made.folder / "reports/gallery/networks/own.html").read_text()
    assert "Nothing was trained here" in page and "random" in page
    assert "layer1.0/relu:2" in page and "Classical features" in page


def test_an_edit_beside_the_own_file_reruns_its_network_only(made: Workspace) -> None:
    parts = made.folder / "nets/parts.py"
    before = parts.read_text()
    parts.write_text(before + "# edited\n")
    try:
        stages = ("train", "record", "classical", "deconv", "figures", "explorer")
        assert made.planned() == {f"{stage} own" for stage in stages} | {"gallery"}
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
def test_faults_are_told_in_one_message(made: Workspace, change: dict, words: list[str]) -> None:
    more = made.folder / "more.yaml"
    more.write_text(json.dumps({"networks": {"own": change}}))
    done = made.snakemake("--configfile", "tiny.yaml", "more.yaml", "--", "results/own/deconv")
    text = done.stdout + done.stderr
    assert done.returncode != 0 and "Traceback" not in text
    for word in words:
        assert word in text, text


def test_a_network_without_relus_stops_unless_told_otherwise(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "convatlas", {})
    (workspace.folder / "net.py").write_text(
        "from torch import nn\n"
        "INPUT = {'size': 16, 'mean': [0.5] * 3, 'std': [0.5] * 3}\n"
        "def build():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 5, 3), nn.Flatten(),\n"
        "                         nn.Linear(720, 2))\n"
    )
    silu = {"architecture": "net.py:build", "images": {"photographs": ["coffee"]}}
    workspace.overlay({"networks": SHIPPED | {"silu": silu}})
    done = workspace.snakemake()
    assert done.returncode != 0
    assert "1 (Silu)" in done.stdout + done.stderr and "rectify: true" in done.stdout + done.stderr
    workspace.overlay({"networks": SHIPPED | {"silu": silu | {"views": {"deconv": {"rectify": True}}}}})
    done = workspace.snakemake()
    assert done.returncode == 0, done.stdout + done.stderr
    page = (workspace.folder / "reports/gallery/networks/silu.html").read_text()
    assert "activations that are not ReLUs" in page


def test_somebody_else_s_trained_network(tmp_path: Path) -> None:
    """The real checkpoint: the logits of a plain load, a cat that is a cat, maps after functional ReLUs."""
    data = os.environ.get("CONVATLAS_TEST_DATA")
    if not data:
        pytest.skip("CONVATLAS_TEST_DATA names no folder of real data")
    checkpoint = Path(data) / "weights/resnet20-12fca82f.th"
    workspace = Workspace(tmp_path / "convatlas", {})
    given = {"path": str(checkpoint), "key": "state_dict", "strip_prefix": "module."}
    network = own(workspace.folder) | {"weights": given}
    workspace.overlay({"networks": SHIPPED | {"own": network}})
    done = workspace.snakemake()
    assert done.returncode == 0, done.stdout + done.stderr
    cat = json.loads((workspace.folder / "results/own/images.json").read_text())[0]
    assert CLASSES[cat["prediction"]] == "cat" and cat["probability"] > 0.9

    found = read(workspace, "own/activations/cat.npz")
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")["state_dict"]
    first = F.conv2d(torch.from_numpy(found["input"])[None], state["module.conv1.weight"], padding=1)
    np.testing.assert_allclose(found["conv1"], first[0].numpy(), atol=1e-5)
    assert found["layer3.2/relu:2"].min() == 0 < found["layer3.2/relu:2"].max()
    logits = state["module.linear.weight"].numpy() @ found["avg_pool2d"].ravel()
    np.testing.assert_allclose(found["linear"], logits + state["module.linear.bias"].numpy(), atol=1e-4)
