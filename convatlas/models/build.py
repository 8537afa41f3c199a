"""Networks, built from the config or loaded from disk, each with its preprocessing."""

import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from convatlas import UserError
from convatlas.files import read_json
from convatlas.models.factory import Factory, format_error, import_factory
from convatlas.models.preprocessing import GREY_INPUT, IMAGENET_INPUT, Preprocessing, merge_input_settings
from convatlas.pipeline.architecture_names import TORCHVISION_PREFIX

log = logging.getLogger(__name__)


def build_network(
    settings: dict[str, Any],
    classes: Sequence[str] | None,
    seed: int,
    key: str = "network",
    state: dict[str, Tensor] | None = None,
) -> tuple[nn.Module, Preprocessing]:
    """Build a network's architecture with fresh weights drawn from `seed`, in evaluation mode.

    `settings` is the network's entry in the config, and `key` its place there. What its `input`
    names overrides the preprocessing that comes with the architecture or the weights; `classes`,
    where known, is passed on to a function that takes it. Where `settings` names torchvision's
    weights, `state` is what their file holds, or None to leave the network untrained.
    """
    factory = get_factory(settings, key, state)
    torch.manual_seed(seed)
    network = factory(factory.complete_arguments(settings.get("arguments") or {}, classes), key).eval()
    given = settings.get("input") or {}
    known = {**_guess_input(network), **(factory.input or {})}
    preprocessing = Preprocessing.from_config(merge_input_settings(known, given), f"{key}.input")
    _check_input(network, preprocessing, factory, "size" in {**given, **(factory.input or {})}, key)
    return network, preprocessing


def get_factory(settings: dict[str, Any], key: str, state: dict[str, Tensor] | None = None) -> Factory:
    """Give the function that makes a network, as its entry in the config names it."""
    architecture, weights = settings["architecture"], settings.get("weights")
    if not architecture.startswith(TORCHVISION_PREFIX):
        return import_factory(architecture, key)
    from convatlas.models import torchvision_models  # noqa: PLC0415  torchvision takes seconds to import

    return torchvision_models.make_torchvision_factory(
        architecture, weights if isinstance(weights, str) else None, state, key
    )


def _guess_input(network: nn.Module) -> dict[str, Any]:
    """What is assumed of a network of which nothing is known: ImageNet's input, or grey for one channel."""
    channels = [module.in_channels for module in network.modules() if isinstance(module, nn.Conv2d)]
    return GREY_INPUT if channels[:1] == [1] else IMAGENET_INPUT


def _check_input(
    network: nn.Module, preprocessing: Preprocessing, factory: Factory, known: bool, key: str
) -> None:
    """Run a network once. Raises UserError where it does not take its input, which says what to change."""
    shape = f"an input of shape {preprocessing.shape}"
    if not known:
        shape += f" (assumed: neither {key}.input nor an INPUT beside the function says its size)"
    try:
        run_on_zeros(network, preprocessing)
    except (RuntimeError, AssertionError, ValueError) as error:
        advice = f"change {key}.input.size to what the network was made for, or raise it"
        if "channels" in str(error):
            advice = f"give {key}.input.mean and std as many numbers as it takes channels, 1 or 3"
        raise UserError(
            f"{key}.input: {factory.architecture} does not take {shape}: {format_error(error)}; {advice}"
        ) from error
    except Exception as error:
        raise UserError(
            f"{key}.architecture: {factory.architecture} failed on {shape}: {format_error(error)}"
        ) from error


@torch.no_grad()
def run_on_zeros(network: nn.Module, preprocessing: Preprocessing) -> Tensor | None:
    """Give what a network makes of a black image: its main output, or None where that is no tensor."""
    made = select_main_output(network(torch.zeros(1, *preprocessing.shape, device=get_device(network))))
    return made if isinstance(made, Tensor) else None


def select_main_output(made: Any) -> Any:
    """The output that counts of a network that gives several: `out`, `logits`, or the first."""
    while isinstance(made, dict | tuple | list) and made:
        if isinstance(made, dict):
            made = made.get("out", next(iter(made.values())))
        else:
            made = getattr(made, "logits", made[0])
    return made


def count_classes(network: nn.Module, preprocessing: Preprocessing) -> int | None:
    """How many classes a network tells apart: the K of an output (N, K); None where it gives another."""
    made = run_on_zeros(network, preprocessing)
    return made.shape[1] if made is not None and made.ndim == 2 and len(made) == 1 else None


def count_pixel_classes(network: nn.Module, preprocessing: Preprocessing) -> int | None:
    """How many classes of pixels a network tells apart: the K of (N, K, H, W), as large as its input."""
    made = run_on_zeros(network, preprocessing)
    if made is None or made.ndim != 4 or made.shape[2:] != preprocessing.shape[1:] or made.shape[1] < 2:
        return None
    return made.shape[1]


def load_network(folder: str | Path) -> tuple[nn.Module, Preprocessing]:
    """Load a network with its weights, and its preprocessing, from results/<network>/."""
    key = f"networks.{Path(folder).name}"
    network, preprocessing = build_from_description(read_json(Path(folder) / "network.json"), seed=0, key=key)
    weights = Path(folder) / "weights.safetensors"
    try:
        network.load_state_dict(load_file(weights))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise UserError(
            f"{weights} is damaged or of another network ({error}); delete it and run again"
        ) from error
    return network.eval().requires_grad_(False), preprocessing


def build_from_description(
    description: dict[str, Any], seed: int, key: str = "network"
) -> tuple[nn.Module, Preprocessing]:
    """Build the network that a network.json describes, untrained, and its preprocessing."""
    settings = {
        "architecture": description["architecture"],
        "arguments": description["arguments"],
        "weights": description["weights"].get("name"),
        "input": description["preprocessing"],
    }
    network, preprocessing = build_network(settings, None, seed, key)
    return network.requires_grad_(False), preprocessing


def get_device(network: nn.Module) -> torch.device:
    """Where a network is; the CPU for one without parameters."""
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


def choose_device(name: str) -> torch.device:
    """Give the device that `auto`, `cpu` or `cuda` means here, set to compute reproducibly where it can.

    Raises UserError where there is no CUDA and `cuda` was asked for, or, with CONVATLAS_GPU=required in the
    environment, `auto`: the jobs of a cluster have it, which would keep a GPU idle for hours.
    """
    there = name != "cpu" and torch.cuda.is_available()
    if name == "cuda" and not there:
        raise UserError(
            f"device: cuda was asked for, but {_describe_missing_cuda()}; use auto or cpu, or run where it is"
        )
    if name == "auto" and not there:
        if os.environ.get("CONVATLAS_GPU") == "required":
            raise UserError(
                f"this job asked for a GPU, but {_describe_missing_cuda()}. Mend that, or set `device: cpu` in the config, "
                "or CONVATLAS_GPU=optional in the environment, to compute on the CPU"
            )
        log.warning("no CUDA here: computing on the CPU")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which cuBLAS needs to be deterministic
    torch.set_deterministic_debug_mode("warn")  # use_deterministic_algorithms, less seconds of imports
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # float32 means it
    return torch.device("cuda" if there else "cpu")


def _describe_missing_cuda() -> str:
    """That torch sees no CUDA device, and all that tells why."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    driver = Path("/proc/driver/nvidia/version")
    return (
        f"torch {torch.__version__} sees no CUDA device on {socket.gethostname()} "
        f"(CUDA_VISIBLE_DEVICES: {'not set' if visible is None else repr(visible)}; "
        f"torch is made for CUDA {torch.version.cuda or '(none)'}; "
        f"driver: {driver.read_text().splitlines()[0] if driver.exists() else 'no NVIDIA driver is loaded'})"
    )


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to where it is computed with: to a GPU from pinned memory, while that still computes."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
