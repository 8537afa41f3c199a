"""Twenty networks of the sweep, chosen for their different code, with the checks of `make zoo`."""

import warnings
from collections.abc import Iterator

import pytest
import torch

from tests.zoo.catalogue import list_entries
from tests.zoo.checks import Row, check_network

SAMPLE = """
    torchvision/alexnet torchvision/squeezenet1_1 torchvision/mnasnet0_5
    torchvision/mobilenet_v3_small torchvision/shufflenet_v2_x0_5 torchvision/lraspp_mobilenet_v3_large
    torchvision/fasterrcnn_mobilenet_v3_large_320_fpn
    timm/convnext_atto timm/dla46_c timm/efficientnet_lite0 timm/ghostnet_050 timm/inception_next_atto
    timm/lcnet_035 timm/nf_regnet_b0 timm/repghostnet_050 timm/resnetblur18 timm/skresnet18 timm/starnet_s050
    segmentation-models-pytorch/Unet_resnet18 segmentation-models-pytorch/Linknet_mobilenet_v2
""".split()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the networks' own code
        yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("key", SAMPLE)
def test_a_network_of_another_package_is_right(key: str) -> None:
    (entry,) = [
        entry for entry in list_entries(key.partition("/")[0] + "/") if entry.key.replace(" ", "_") == key
    ]
    row = Row(entry.package, entry.name)
    check_network(row, entry.network, entry.shape, entry.until, projected=2)
    assert row.result == "ok", row.reason
