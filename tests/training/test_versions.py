"""The versions that network.json states: of what computes, and of the network's own packages."""

from importlib.metadata import version

from torch import nn

from convatlas.training.run import collect_versions


def test_the_version_of_a_networks_package_is_stated() -> None:
    layer = type("Layer", (nn.Identity,), {"__module__": "skimage.networks.small"})
    own = type("Own", (nn.Identity,), {"__module__": "my_networks"})
    plain = collect_versions(nn.Sequential(nn.ReLU()))
    assert plain.keys() - {"torchvision"} == {"convatlas", "python", "torch", "numpy"}
    assert collect_versions(nn.Sequential(layer(), own())) == plain | {
        "scikit-image": version("scikit-image")
    }
