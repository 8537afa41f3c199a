"""Networks from the user's files and modules and from torchvision, and the messages of their errors."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from convatlas import UserError
from convatlas.files import write_json
from convatlas.models import build, torchvision_models
from convatlas.models.build import build_network, load_network
from convatlas.models.factory import import_factory
from convatlas.models.preprocessing import Preprocessing
from convatlas.pipeline import architecture_names

BLOCKS = """
from torch import nn
def block(i, o):
    return nn.Sequential(nn.Conv2d(i, o, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
"""
NET = """
from torch import nn
from {name}_blocks import block
INPUT = {{"size": 16, "mean": [0.5], "std": [0.25]}}

def build(num_classes, width=4):
    return nn.Sequential(block(1, width), nn.Linear(4 * width, num_classes))

def noise():
    return "no network"

weights = nn.Linear(1, 1)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with nets/one.py and a module that it imports; imports are undone at the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets/one_blocks.py").write_text(BLOCKS)
    (tmp_path / "nets/one.py").write_text(NET.format(name="one"))
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def get_error(architecture: str, classes: list[str] | None = None, **settings: object) -> str:
    """Build a network that cannot be built, and return the message."""
    with pytest.raises(UserError) as error:
        build_network({"architecture": architecture, **settings}, classes, 0, "networks.own")
    return str(error.value)


def count_outputs(network: nn.Module, preprocessing: Preprocessing) -> int:
    """Return the number K of a network's outputs (1, K)."""
    (outputs,) = build.run_on_zeros(network, preprocessing)
    return len(outputs)


# The user's own networks


def test_a_file_imports_modules_beside_it(folder: Path) -> None:
    settings = {"architecture": "nets/one.py:build", "arguments": {"width": 3}}
    network, preprocessing = build_network(settings, ["a", "b", "c"], seed=0)
    assert count_outputs(network, preprocessing) == 3
    assert preprocessing == Preprocessing(16, (0.5,), (0.25,))
    assert network[0][0].out_channels == 3


def test_arguments_override_the_number_of_classes(folder: Path) -> None:
    settings = {"architecture": f"{folder}/nets/one.py:build", "arguments": {"num_classes": 5}}
    network, preprocessing = build_network(settings, ["a", "b"], seed=0)
    assert count_outputs(network, preprocessing) == 5


def test_a_module_of_the_working_directory_and_a_file_within_a_package(folder: Path) -> None:
    package = folder / "pack"
    (package / "inner").mkdir(parents=True)
    for place in (package, package / "inner"):
        (place / "__init__.py").touch()
    (package / "blocks.py").write_text(BLOCKS)
    (package / "inner/net.py").write_text(
        "from ..blocks import block\n\ndef build(classes=2):\n    return block(3, 1)\n"
    )
    for architecture in ("pack.inner.net:build", "pack/inner/net.py:build"):
        network, preprocessing = build_network(
            {"architecture": architecture, "input": {"size": 9}}, None, seed=0
        )
        assert preprocessing.shape == (3, 9, 9)
        assert count_outputs(network, preprocessing) == 4
        names = ["__init__.py", "blocks.py", "inner/__init__.py", "inner/net.py"]
        assert architecture_names.list_code_files(architecture) == [f"pack/{name}" for name in names]


def test_a_home_directory_is_expanded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder / "nets"))
    assert architecture_names.find_architecture_error("~/one.py:build") is None
    assert build_network({"architecture": "~/one.py:build"}, ["a"], seed=0)[1].size == (16, 16)


@pytest.mark.parametrize(
    ("code", "settings", "words"),
    [
        ("def build(depth): pass", {}, ["arguments", "missing a required argument: 'depth'", "build(depth)"]),
        ("def build(): pass", {"arguments": {"x": 1}}, ["unexpected keyword argument 'x'", "build()"]),
        ("def build(): pass", {}, ["returned None (NoneType), not a torch.nn.Module"]),
        ("from torch import nn\ndef build(): return nn.ReLU", {}, ["returned the class ReLU"]),
        ("x = 1\ndef build():\n    return 1 / 0", {}, ["bad.py:3: ZeroDivisionError: division by zero"]),
        ("import sys\nsys.exit('usage')", {}, ["cannot be imported", "bad.py:2: SystemExit: usage"]),
        ("import nowhere_at_all", {}, ["bad.py:1: ModuleNotFoundError: No module named 'nowhere_at_all'"]),
        ("def build(:", {}, ["bad.py:1: SyntaxError"]),
        ("def builder(): pass", {}, ["'build' is missing from", "did you mean 'builder'"]),
        ("import torch\nbuild = torch.nn.ReLU()", {}, ["'build' is ReLU() (ReLU), not a function, in"]),
        ("INPUT = 3\ndef build(): pass", {}, ["INPUT must be a mapping"]),
    ],
)
def test_an_error_in_the_users_file_is_reported_in_one_line(
    folder: Path, code: str, settings: dict, words: list[str]
) -> None:
    (folder / "bad.py").write_text(code)
    message = get_error("bad.py:build", **settings)
    assert message.startswith(("networks.own.a", f"{folder}/bad.py"))
    for word in words:
        assert word in message


CONV = """
from torch import nn
def build():
    return nn.Sequential(nn.Conv2d({0}, 4, 3), nn.Flatten(), nn.Linear({1}, 2))
"""


@pytest.mark.parametrize(
    ("channels", "features", "settings", "words"),
    [
        (1, 4, {}, ["(1, 224, 224) (assumed", "cannot be multiplied", "set networks.own.input.size"]),
        (3, 4, {}, ["(3, 224, 224) (assumed"]),
        (3, 4, {"mean": [0.5], "std": [0.5], "size": 8}, ["(1, 8, 8)", "3 channels", "input.channels"]),
        (4, 4, {"size": 8, "channels": "rgb"}, ["(3, 8, 8)", "4 channels", "input.channels"]),
    ],
)
def test_an_input_that_does_not_fit_says_what_to_change(
    folder: Path, channels: int, features: int, settings: dict, words: list[str]
) -> None:
    (folder / "conv.py").write_text(CONV.format(channels, features))
    message = get_error("conv.py:build", input=settings)
    assert message.startswith("networks.own.input: conv.py:build does not take an input of shape")
    for word in words:
        assert word in message


CHANNELS = """
import torch
from torch import nn
def five():
    return nn.Conv2d(5, 4, 3)
def coordinates():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(5, 4, 3)
        def forward(self, x):
            return self.conv(torch.cat([x, x.new_zeros(len(x), 2, *x.shape[2:])], 1))
    return Network()
def unshuffled():
    return nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4, 4, 3))
"""


@pytest.mark.parametrize(("name", "channels"), [("five", 5), ("coordinates", 3), ("unshuffled", 1)])
def test_the_number_of_channels_is_what_the_network_computes_with(
    folder: Path, name: str, channels: int
) -> None:
    (folder / "channels.py").write_text(CHANNELS)
    settings = {"architecture": f"channels.py:{name}", "input": {"size": 16}}
    _, preprocessing = build_network(settings, None, 0)
    assert preprocessing.shape == (channels, 16, 16)


def test_an_error_in_the_forward_pass_names_file_and_line(folder: Path) -> None:
    (folder / "odd.py").write_text(
        "from torch import nn\nclass Odd(nn.Module):\n    def forward(self, x):\n        self.gone(x)\n"
    )
    assert "odd.py:4: AttributeError: 'Odd' object has no attribute 'gone'" in get_error("odd.py:Odd")


# What is checked before any job


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("lenet", ["did you mean 'lenet5'", "torchvision/<name>", "file.py:function"]),
        ("nets/one.py", ["names no function", "nets/one.py:<function"]),
        ("nets/two.py:build", ["no file 'nets/two.py'", "relative to"]),
        ("nets.two:build", ["no module 'nets.two'"]),
        ("nowhere.at.all:build", ["no module 'nowhere.at.all'"]),
        ("nets/one.py:not a name", ["'not a name' is no function's name"]),
        ("torchvision/resnet5", ["did you mean 'resnet50'"]),
        ("nets/wrong.py:build", ["nets/helper_wrong.py:2: SyntaxError"]),
    ],
)
def test_a_wrong_architecture_is_reported_without_running_it(
    folder: Path, architecture: str, words: list[str]
) -> None:
    (folder / "nets/wrong.py").write_text("import helper_wrong\nraise SystemExit")
    (folder / "nets/helper_wrong.py").write_text("\nclass:")
    message = str(architecture_names.find_architecture_error(architecture))
    for word in words:
        assert word in message


def test_the_code_files_of_correct_architectures_are_listed(folder: Path) -> None:
    (folder / "nets/one.py").write_text("def build():\n    import one_blocks, torch\n\nraise SystemExit")
    assert architecture_names.find_architecture_error("nets/one.py:build") is None
    assert architecture_names.list_code_files("nets/one.py:build") == ["nets/one.py", "nets/one_blocks.py"]
    assert architecture_names.list_code_files("lenet5") == ["convatlas/models/architectures/lenet5.py"]
    assert architecture_names.list_code_files("torchvision/resnet18") == []
    assert architecture_names.list_code_files("torch.nn:Linear") == [nn.__file__]
    for architecture in ("lenet5", "torchvision/resnet18", "torch.nn:Linear"):
        assert architecture_names.find_architecture_error(architecture) is None


def test_a_method_of_a_class_builds_a_network(folder: Path) -> None:
    (folder / "nets/one.py").write_text(
        "from torch import nn\nclass Net(nn.Linear):\n    @classmethod\n"
        "    def from_name(cls, size, num_classes=2):\n        return cls(size, num_classes)"
    )
    assert architecture_names.find_architecture_error("nets/one.py:Net.from_name") is None
    factory = import_factory("nets/one.py:Net.from_name", "networks.n")
    assert factory.class_count_parameter == "num_classes"
    assert factory({"size": 7}, "networks.n").weight.shape == (2, 7)
    for name in ("Net.from_nam", "No.x"):
        with pytest.raises(UserError, match=f"'{name}' is missing from"):
            import_factory(f"nets/one.py:{name}", "networks.n")


def test_weights_within_a_package_are_located_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ships/models").mkdir(parents=True)
    (tmp_path / "ships/__init__.py").write_text("raise SystemExit")
    weights = tmp_path / "ships/models/w.pth"
    weights.touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert architecture_names.locate_weights_file("ships:models/w.pth") == weights
    assert architecture_names.find_weights_file_error("ships:models/w.pth") is None
    for path, words in (
        ("ships:models/v.pth", "the package 'ships' has no file 'models/v.pth'"),
        ("no_ships:models/w.pth", "no package 'no_ships' is installed; to install a package, name it in"),
        ("no-ships:models/w.pth", "give the name that `import` takes"),
        ("C:/w.pth", "there is no file 'C:/w.pth'"),
        ("w.pth", "there is no file 'w.pth'"),
    ):
        assert words in str(architecture_names.find_weights_file_error(path))
    monkeypatch.chdir(tmp_path)
    Path("epoch:3.pth").touch()  # a file whose name has a colon
    assert architecture_names.find_weights_file_error("epoch:3.pth") is None
    assert architecture_names.locate_weights_file("epoch:3.pth") == Path("epoch:3.pth")


def test_checking_names_imports_no_torch() -> None:
    program = """
import sys
from convatlas.pipeline.architecture_names import find_architecture_error
find_architecture_error("torchvision/resnet5")
find_architecture_error("torch.nn:Linear")
print("torch" in sys.modules, "torchvision" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


# torchvision


def test_the_names_read_from_torchvisions_source_are_its_networks() -> None:
    weights_by_model = architecture_names.list_torchvision_models()
    assert list(weights_by_model) == models.list_models()
    for name, weights in weights_by_model.items():
        entries = models.get_model_weights(name).__members__
        assert weights == {key: entry.name for key, entry in entries.items()}


def test_torchvisions_networks_take_the_number_of_classes_and_arguments() -> None:
    settings = {"architecture": "torchvision/mobilenet_v3_small", "arguments": {"dropout": 0.4}}
    network, preprocessing = build_network(settings, ["a", "b", "c"], seed=0)
    assert count_outputs(network, preprocessing) == 3
    assert preprocessing == Preprocessing(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert network.classifier[2].p == 0.4


def test_without_weights_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    settings = {"architecture": "torchvision/lraspp_mobilenet_v3_large", "input": {"size": 64}}
    network, preprocessing = build_network(settings, ["a", "b", "c"], seed=0)
    with torch.no_grad():
        assert network(torch.rand(1, *preprocessing.shape))["out"].shape == (1, 3, 64, 64)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"architecture": "torchvision/resnet5"}, ["own.architecture", "did you mean 'resnet50'"]),
        ({"architecture": "torchvision/resnet18", "weights": "V3"}, ["weights: ", "IMAGENET1K_V1, DEFAULT"]),
        (
            {"architecture": "torchvision/resnet18", "arguments": {"depth": 3}},
            ["{'depth': 3}", "unexpected keyword argument 'depth'"],
        ),
        ({"architecture": "torchvision/vit_b_32", "input": {"size": 64}}, ["(3, 64, 64)", "Expected 224"]),
        ({"architecture": "torchvision/r3d_18"}, ["does not take an input of shape (3, 224, 224)"]),
    ],
)
def test_networks_that_torchvision_cannot_build_are_reported(settings: dict, words: list[str]) -> None:
    message = get_error(**settings)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("name", "weights", "photograph"),
    [
        ("resnet50", "IMAGENET1K_V2", "astronaut.png"),
        ("vgg16", "IMAGENET1K_V1", "coffee.png"),
        ("swin_t", "IMAGENET1K_V1", "chelsea.png"),
    ],
)
def test_preprocessing_is_that_of_torchvisions_weights_bit_for_bit(
    name: str, weights: str, photograph: str
) -> None:
    data = pytest.importorskip("skimage.data")
    entry = models.get_model_weights(name)[weights]
    path = Path(data.__file__).parent / photograph
    preprocessing = Preprocessing.from_config(torchvision_models.get_input_settings(entry))
    with Image.open(path) as image:
        expected = entry.transforms()(image.convert("RGB"))
    assert torch.equal(preprocessing(preprocessing.read_pixels(path))[0], expected)


def googlenet_state() -> dict[str, Tensor]:
    """The contents of a file of GoogLeNet's weights, with the auxiliary heads, which the network drops."""
    return models.GoogLeNet(aux_logits=True, init_weights=False).state_dict()


def test_a_network_has_the_form_of_its_weights_and_keeps_it_when_loaded(tmp_path: Path) -> None:
    settings = {"architecture": "torchvision/googlenet", "weights": "IMAGENET1K_V1"}
    state = googlenet_state()
    network, preprocessing = build_network(settings, ["ignored"], 0, "networks.own", state)
    assert network.transform_input
    assert network.aux1 is None
    assert torch.equal(network.conv1.conv.weight, state["conv1.conv.weight"])
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    write_json(
        tmp_path / "network.json",
        {
            "architecture": settings["architecture"],
            "arguments": {},
            "weights": {"name": settings["weights"]},
            "preprocessing": preprocessing.to_dict(),
        },
    )
    loaded, loaded_preprocessing = load_network(tmp_path)
    assert loaded_preprocessing == preprocessing
    assert loaded.transform_input
    x = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(loaded(x), network(x))


FORMS = {
    "googlenet": "IMAGENET1K_V1",  # the auxiliary heads are dropped, transform_input
    "densenet121": "IMAGENET1K_V1",  # renames the weights of its file
    "vit_b_16": "IMAGENET1K_SWAG_E2E_V1",  # another image size
    "fcn_resnet50": "COCO_WITH_VOC_LABELS_V1",
    "fasterrcnn_resnet50_fpn": "COCO_V1",  # frozen norms, whose eps is 0
    "keypointrcnn_resnet50_fpn": "COCO_LEGACY",  # modules are added after the network's constructor
    "ssdlite320_mobilenet_v3_large": "COCO_V1",
}


def describe_form(network: nn.Module) -> list[tuple]:
    """Return all modules with their numbers and flags, and the shapes of all weights."""
    modules = [
        (name, str(module), {k: v for k, v in vars(module).items() if isinstance(v, int | float)})
        for name, module in network.named_modules()
    ]
    parameters = [(name, parameter.requires_grad) for name, parameter in network.named_parameters()]
    return [*modules, *parameters, *((n, t.shape) for n, t in network.state_dict().items())]


@pytest.mark.parametrize("name", FORMS)
def test_an_untrained_network_has_the_form_of_torchvisions_weights(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torchvision builds it where loading does nothing; without memory, on the meta device."""
    architecture = f"torchvision/{name}"
    with torch.device("meta"):
        factory = torchvision_models.make_torchvision_factory(architecture, FORMS[name], None, "own")
        network = factory({}, "own")
        monkeypatch.setattr(models.WeightsEnum, "get_state_dict", lambda *_, **__: {})
        monkeypatch.setattr(nn.Module, "load_state_dict", lambda *_, **__: None)
        expected = models.get_model(name, weights=FORMS[name])
    assert describe_form(network) == describe_form(expected)


def test_an_untrained_network_keeps_the_weights_of_its_seed() -> None:
    settings = {"architecture": "torchvision/squeezenet1_1", "input": {"size": 64}}
    network, _ = build_network(settings | {"weights": "DEFAULT"}, None, seed=3)
    expected, _ = build_network(settings, None, seed=3)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name


def test_building_changes_nothing_in_torch_and_torchvision() -> None:
    before = models.WeightsEnum.get_state_dict, nn.Module.load_state_dict
    settings = {"architecture": "torchvision/squeezenet1_1", "input": {"size": 64}}
    build_network(settings | {"weights": "DEFAULT"}, None, 0)
    assert (models.WeightsEnum.get_state_dict, nn.Module.load_state_dict) == before
    assert not torch.nn.modules.module._global_module_registration_hooks
