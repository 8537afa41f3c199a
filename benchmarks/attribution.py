"""Measure attribution methods: this project's, and Captum's as its documentation shows, one call per target.

SqueezeNet 1.1 and ResNet-18 at 224 px, one image with one target and with ten, CPU time of one thread. Both
sides explain the same network, each of whose ReLUs is a module of its own and not in place, as Captum needs.
They get the same steps (integrated gradients), noise (SmoothGrad) and squares (occlusion), and batches of the
same size. Captum has no Grad-CAM++.

Both sides take turns, and the results are compared. Medians over the rounds of each side and of the ratio
are printed, at the end as the tables of docs/results.md. The run takes about six minutes on idle cores.

    python benchmarks/attribution.py [--smallest] [--rounds N] [METHOD ...]
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from unittest.mock import patch

import captum.attr
import psutil
import torch
from torch import Tensor, nn
from torchvision.models import resnet18, squeezenet1_1
from torchvision.models.resnet import BasicBlock

from convatlas.attribution.attribute import attribute
from convatlas.attribution.methods import gradients

Method = Callable[[nn.Module, str, Tensor, int], Tensor]  # network, layer, image (1, C, H, W), target -> map

BATCH = 6  # images of 224 px that fit into one pass
STEPS, SAMPLES, NOISE = 32, 10, 0.15
SQUARES = 8  # side by side along the image, as Captum places them
MAX_SECONDS = 15  # of the rounds of a method after the first


class Comparison(NamedTuple):
    """How long a method takes.

    Attributes:
        milliseconds: Of this project, the median over the rounds.
        ratio: How many times as long Captum takes, the median of the ratios within a round.
        difference: The largest between the results, as a share of the largest value.
        rounds: How many rounds.
    """

    milliseconds: float
    ratio: float
    difference: float
    rounds: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smallest", action="store_true", help="small images, one round: a few seconds")
    parser.add_argument("--rounds", type=int, default=7, help="at most, of methods that take seconds fewer")
    parser.add_argument("methods", nargs="*", default=list(CAPTUM), metavar="METHOD")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # Captum warns about its hooks at every call
    torch.manual_seed(0)
    torch.set_num_threads(1)
    size, counts = (64, (2,)) if arguments.smallest else (224, (1, 10))
    rounds = 1 if arguments.smallest else arguments.rounds
    print_load()
    image = torch.randn(1, 3, size, size)
    rows: dict[str, list[Comparison]] = {method: [] for method in arguments.methods}
    columns = []
    for name, network, layer in make_networks():
        for count in counts:
            columns.append(f"{name}, {count} target{'s' * (count > 1)}")
            print(f"{columns[-1]}, {size} px, one thread")
            for method, row in rows.items():
                row.append(compare(method, network, layer, image, list(range(count)), rounds))
                print_comparison(method, row[-1])
    print_load()
    print_table(columns, rows)


def print_comparison(method: str, comparison: Comparison) -> None:
    print(
        f"    {method:22} {comparison.milliseconds:8,.0f} ms, Captum {comparison.ratio:5.2f} times as long; "
        f"rounds: {comparison.rounds}; largest difference {comparison.difference:.0e}",
        flush=True,
    )


def print_table(columns: list[str], rows: dict[str, list[Comparison]]) -> None:
    print("\n| | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1) + "|")
    for method, row in rows.items():
        print(f"| {method} | " + " | ".join(f"{c.milliseconds:,.0f} ms, {c.ratio:.2f}" for c in row) + " |")


def print_load() -> None:
    print(f"load average of the last minute: {psutil.getloadavg()[0]:.1f}", flush=True)


class Block(nn.Module):
    """A residual block whose two ReLUs are separate modules."""

    def __init__(self, block: BasicBlock) -> None:
        super().__init__()
        self.block, self.relu1, self.relu2 = block, nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        block = self.block
        shortcut = x if block.downsample is None else block.downsample(x)
        hidden = self.relu1(block.bn1(block.conv1(x)))
        return self.relu2(block.bn2(block.conv2(hidden)) + shortcut)


def make_networks() -> Iterator[tuple[str, nn.Module, str]]:
    """Yield networks with their names and the layers of Grad-CAM, random weights."""
    for name, network, layer in (
        ("SqueezeNet 1.1", squeezenet1_1(), "features"),
        ("ResNet-18", resnet18(), "layer4"),
    ):
        for stage in ("layer1", "layer2", "layer3", "layer4") if name == "ResNet-18" else ():
            setattr(network, stage, nn.Sequential(*[Block(block) for block in getattr(network, stage)]))
        for module in network.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
        yield name, network.eval().requires_grad_(False), layer


def explain_layer(network: nn.Module, layer: str, image: Tensor, target: int) -> Tensor:
    explainer = captum.attr.LayerGradCam(network, network.get_submodule(layer))
    maps = explainer.attribute(image, target, relu_attributions=True)
    return captum.attr.LayerAttribution.interpolate(maps, image.shape[2:], "bilinear")


def explain_occlusion(network: nn.Module, layer: str, image: Tensor, target: int) -> Tensor:
    window = (3, *[side // SQUARES for side in image.shape[2:]])
    grey = torch.full_like(image, 0.5)
    explainer = captum.attr.Occlusion(network)
    maps = explainer.attribute(image, window, window, grey, target, perturbations_per_eval=BATCH)
    return maps[:, :1]


def explain_smoothly(network: nn.Module, layer: str, image: Tensor, target: int) -> Tensor:
    tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(network))
    return tunnel.attribute(image, "smoothgrad", SAMPLES, BATCH, stdevs=1.0, target=target, abs=False)


def explain_path(network: nn.Module, layer: str, image: Tensor, target: int) -> Tensor:
    explainer = captum.attr.IntegratedGradients(network)
    arguments = {"n_steps": STEPS + 1, "method": "riemann_trapezoid", "internal_batch_size": BATCH}
    baseline = torch.zeros_like(image)
    # Captum weighs P points by 1 / P, not by 1 / (P - 1).
    return explainer.attribute(image, baseline, target, **arguments) * (STEPS + 1) / STEPS


CAPTUM: dict[str, Method] = {
    "gradient": lambda network, layer, image, target: captum.attr.Saliency(network).attribute(
        image, target, abs=False
    ),
    "gradient_x_input": lambda network, layer, image, target: captum.attr.InputXGradient(network).attribute(
        image, target
    ),
    "guided_backpropagation": lambda network, layer, image, target: captum.attr.GuidedBackprop(
        network
    ).attribute(image, target),
    "deconvnet": lambda network, layer, image, target: captum.attr.Deconvolution(network).attribute(
        image, target
    ),
    "integrated_gradients": explain_path,
    "smoothgrad": explain_smoothly,
    "grad_cam": explain_layer,
    "occlusion": explain_occlusion,
}


@contextmanager
def equal_work(image: Tensor) -> Iterator[None]:
    """Let both sides take as many steps, and draw the same noise."""
    deviation = NOISE * (image.max() - image.min())
    noise = torch.stack([gradients.draw_noise(image[0], sample) for sample in range(SAMPLES)]) * deviation
    position = 0

    def normal(mean: float, deviations: Tensor) -> Tensor:
        nonlocal position
        start, position = position, (position + len(deviations)) % SAMPLES
        return noise[start : start + len(deviations)]

    def draw_noise(image: Tensor, sample: int) -> Tensor:
        return noise[sample] / deviation

    with (
        patch.object(gradients, "MAX_STEPS", STEPS),
        patch.object(gradients, "draw_noise", draw_noise),
        patch.object(torch, "normal", normal),
    ):
        yield


def compare(
    method: str, network: nn.Module, layer: str, image: Tensor, targets: list[int], rounds: int
) -> Comparison:
    """Explain an image by both sides in turns."""
    square = image.shape[2] // SQUARES
    settings = {
        "integrated_gradients": {"steps": STEPS, "baseline": "black"},
        "smoothgrad": {"samples": SAMPLES, "noise": NOISE},
        "occlusion": {"size": square, "stride": square},
    }.get(method, {})
    chosen = layer if method == "grad_cam" else None

    def run() -> Tensor:
        return attribute(network, image, method, targets, layer=chosen, **settings).maps[0]

    def run_captum() -> Tensor:
        return torch.cat([CAPTUM[method](network, layer, image, target).detach() for target in targets])

    times: list[tuple[float, float]] = []
    began = time.monotonic()
    with equal_work(image):
        CAPTUM[method](network, layer, image, targets[0])  # the first call prepares kernels
        while len(times) < rounds and (not times or time.monotonic() < began + MAX_SECONDS):
            durations, results = {}, {}
            for side in (run, run_captum) if len(times) % 2 else (run_captum, run):
                start = time.process_time()
                results[side] = side()
                durations[side] = time.process_time() - start
            times.append((durations[run], durations[run_captum]))
    return Comparison(
        1000 * statistics.median(own for own, _ in times),
        statistics.median(captum_time / own for own, captum_time in times),
        float((results[run] - results[run_captum]).abs().max() / results[run_captum].abs().max()),
        len(times),
    )


if __name__ == "__main__":
    main()
