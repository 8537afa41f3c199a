"""Build networks from the config, load them from results/<network>/, and choose the device."""

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from convatlas import UserError
from convatlas.files import read_json
from convatlas.models.factory import Factory, explain_device_error, format_error, import_factory
from convatlas.models.forward_inputs import check_single_input
from convatlas.models.input_advice import advise_on_input, list_convolutions
from convatlas.models.outputs import Output
from convatlas.models.preprocessing import (
    IMAGENET_INPUT,
    Preprocessing,
    choose_normalization,
    count_axes,
    merge_input_settings,
)
from convatlas.models.state import load_tensor_state
from convatlas.pipeline.architecture_names import EMBEDDED, TORCHVISION_PREFIX
from convatlas.records import NetworkDescription

log = logging.getLogger(__name__)

# What torch's modules raise for an input whose size or channels they do not take.
INPUT_ERRORS = (RuntimeError, AssertionError, ValueError)
DEFAULT_SIZE = IMAGENET_INPUT["size"]
HALF_PRECISIONS = (torch.float16, torch.bfloat16)


def build_network(
    settings: Mapping[str, Any],
    classes: Sequence[str] | None,
    seed: int,
    key: str = "network",
    state: Mapping[str, Tensor] | None = None,
) -> tuple[nn.Module, Preprocessing]:
    """Build a network's architecture in evaluation mode, with weights drawn from `seed`.

    Args:
        settings: The network's section of the config: `architecture`, and optionally `arguments`, `weights`
            and `input`, which overrides the preprocessing of the architecture or of torchvision's weights.
        classes: Class names, where known; their number is passed to a factory that takes it.
        seed: Seed of torch's global random generator, from which the weights are drawn.
        key: Place of `settings` in the config, for messages.
        state: What the file of torchvision's weights holds, where `settings` names such weights; None leaves
            the network untrained.

    Returns:
        The network and its preprocessing.

    Raises:
        UserError: The factory cannot be imported or called, or the network does not take its input.
    """
    network, preprocessing, _ = build_in_float32(settings, classes, seed, key, state)
    return network, preprocessing


def build_in_float32(
    settings: Mapping[str, Any],
    classes: Sequence[str] | None,
    seed: int,
    key: str = "network",
    state: Mapping[str, Tensor] | None = None,
) -> tuple[nn.Module, Preprocessing, str | None]:
    """Build a network as `build_network` does, and say from which precision it was converted.

    Args:
        settings: The network's section of the config.
        classes: Class names, where known.
        seed: Seed of torch's global random generator.
        key: Place of `settings` in the config, for messages.
        state: What the file of torchvision's weights holds, where `settings` names such weights.

    Returns:
        The network, its preprocessing, and the precision in which its function returned it, such as
        "float16"; None for float32.

    Raises:
        UserError: The factory cannot be imported or called, or the network does not take its input.
    """
    factory = get_factory(settings, key, state)
    torch.manual_seed(seed)
    network = factory(factory.complete_arguments(settings.get("arguments") or {}, classes), key).eval()
    check_single_input(network, factory.architecture, key)
    converted_from = convert_to_float32(network)
    preprocessing = _choose_input(network, factory, settings.get("input") or {}, key, converted_from)
    return network, preprocessing, converted_from


def convert_to_float32(network: nn.Module) -> str | None:
    """Convert parameters and buffers in half precision to float32, in place.

    Inputs are float32, and not all operations exist in half precision on a CPU. The values stay the same.

    Args:
        network: The network.

    Returns:
        The precision of its half-precision parameters, such as "float16"; None if it has none.
    """
    precisions = {p.dtype for p in network.parameters() if p.dtype in HALF_PRECISIONS}
    if not precisions:
        return None
    names = " and ".join(sorted(str(precision).removeprefix("torch.") for precision in precisions))
    for module in network.modules():
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if tensor.dtype in HALF_PRECISIONS:
                tensor.data = tensor.data.float()
    log.info("weights of %s are converted to float32, in which the network is computed", names)
    return names


def get_factory(settings: Mapping[str, Any], key: str, state: Mapping[str, Tensor] | None = None) -> Factory:
    """Return the function that builds a network, as its section of the config names it.

    Args:
        settings: The network's section of the config: `architecture`, and `weights` where it has them.
        key: Place of `settings` in the config, for messages.
        state: What the file of torchvision's weights holds; None leaves the network untrained.

    Raises:
        UserError: There is no such function, or its module cannot be imported.
    """
    architecture, weights = settings["architecture"], settings.get("weights")
    if not architecture.startswith(TORCHVISION_PREFIX):
        return import_factory(architecture, key)
    if weights == EMBEDDED:
        from convatlas.models.embedded import make_embedded_factory  # noqa: PLC0415  imports torchvision

        return make_embedded_factory(architecture, state)
    from convatlas.models import torchvision_models  # noqa: PLC0415  torchvision takes seconds to import

    return torchvision_models.make_torchvision_factory(
        architecture, weights if isinstance(weights, str) else None, state, key
    )


def _choose_input(
    network: nn.Module,
    factory: Factory,
    configured: Mapping[str, Any],
    key: str,
    converted_from: str | None,
) -> Preprocessing:
    """Return a network's preprocessing: as configured, as its file says, or as it is assumed.

    The assumed number of channels is that of the first convolution, or another where the network changes its
    input before that, such as by pixel unshuffling or further coordinates.
    """
    input_settings = {**(factory.input or {}), **configured}
    has_channels = "mean" in input_settings or "channels" in input_settings
    axes = count_axes(input_settings.get("size"))
    if axes != 2 and "size" not in configured:  # the config is checked, and stages chosen, by it
        raise UserError(
            f"{key}.input.size: the INPUT beside {factory.architecture} is none of an image; state its size "
            f"here: {key}.input: {{size: {list(input_settings['size'])}}}"
        )
    errors: list[UserError] = []
    for channels in [3] if has_channels else _list_channel_counts(network):
        known = {"size": DEFAULT_SIZE, **choose_normalization(channels, axes), **(factory.input or {})}
        settings = merge_input_settings(known, configured)
        preprocessing = Preprocessing.from_config(settings, f"{key}.input")
        try:
            _check_input(network, preprocessing, factory, "size" in input_settings, key, converted_from)
        except UserError as error:
            errors.append(error)
            if not isinstance(error.__cause__, INPUT_ERRORS):
                break
            continue
        if not has_channels and axes == 2 and channels not in (1, 3):
            log.info(
                "%s: the network takes %d channels; mean and std are assumed to be 0.5: set %s.input",
                key, channels, key,
            )  # fmt: skip
        return preprocessing
    raise errors[0]


def _list_channel_counts(network: nn.Module) -> list[int]:
    """Return the numbers of channels that a network may take, the likeliest first."""
    first = next((conv.in_channels for conv in list_convolutions(network) if conv.in_channels), 3)
    return [first, *(count for count in (3, 1, 4, 2) if count != first)]


def _check_input(
    network: nn.Module,
    preprocessing: Preprocessing,
    factory: Factory,
    has_known_size: bool,
    key: str,
    converted_from: str | None,
) -> None:
    """Run a network once; raise UserError, which says what to change, where it does not take its input."""
    shape = f"an input of shape {preprocessing.shape}"
    if not has_known_size:
        shape += f" (assumed: neither {key}.input nor an INPUT beside the function gives its size)"
    try:
        run_on_zeros(network, preprocessing)
    except INPUT_ERRORS as error:
        if reason := explain_device_error(factory.architecture, error):
            raise UserError(f"{key}.architecture: {reason}") from error
        advice = advise_on_input(network, preprocessing, str(error), f"{key}.input")
        if converted_from and "type" in str(error):
            advice = (
                f"its weights of {converted_from} are converted to float32 here: remove what converts its "
                "input or activations in forward, such as .half()"
            )
        raise UserError(
            f"{key}.input: {factory.architecture} does not take {shape}: {format_error(error)}; {advice}"
        ) from error
    except Exception as error:
        raise UserError(
            f"{key}.architecture: {factory.architecture} failed on {shape}: {format_error(error)}"
        ) from error


@torch.no_grad()
def run_on_zeros(network: nn.Module, preprocessing: Preprocessing) -> Any:
    """Run a network on one input (1, C, H, W) of zeros.

    Args:
        network: Any network.
        preprocessing: Its preprocessing, which has the shape of its input.

    Returns:
        Its output.
    """
    return network(torch.zeros(1, *preprocessing.shape, device=get_device(network)))


def read_output(folder: str | Path) -> Output:
    """Read what the output of a network of the pipeline means from its network.json.

    Args:
        folder: The network's folder, such as results/lenet5.
    """
    return Output.from_description(read_json(Path(folder) / "network.json"))


def load_network(folder: str | Path) -> tuple[nn.Module, Preprocessing]:
    """Load a network of the pipeline with its trained weights, ready for inference.

    The architecture is built again as network.json describes it, which imports the user's file or module
    where the network comes from one; the weights are read from weights.safetensors, bit for bit.

    Args:
        folder: The network's folder, such as results/lenet5.

    Returns:
        The network, on the CPU, in evaluation mode, with parameters that require no gradient; and its
        preprocessing, which reads an image file (`read_pixels`) and maps uint8 pixels (N, C, H, W) to the
        network's input (N, C, H, W), float32, when called.

    Raises:
        UserError: network.json is missing or damaged, the architecture can no longer be built, or the
            weights are damaged or belong to another network.

    Examples:
        >>> import convatlas as ca
        >>> network, preprocessing = ca.load("results/lenet5")
        >>> preprocessing.shape
        (1, 28, 28)
        >>> pixels = torch.zeros(1, *preprocessing.shape, dtype=torch.uint8)
        >>> network(preprocessing(pixels)).shape
        torch.Size([1, 10])
    """
    key = f"networks.{Path(folder).name}"
    network, preprocessing = build_from_description(read_json(Path(folder) / "network.json"), seed=0, key=key)
    path = Path(folder) / "weights.safetensors"
    try:
        load_tensor_state(network, load_file(path))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise UserError(
            f"{path} is damaged or belongs to another network ({error}); delete it and run again"
        ) from error
    return network.eval().requires_grad_(False), preprocessing


def build_from_description(
    description: NetworkDescription, seed: int, key: str = "network"
) -> tuple[nn.Module, Preprocessing]:
    """Build the network that a network.json describes, untrained.

    Args:
        description: Contents of network.json.
        seed: Seed from which the weights are drawn.
        key: Place of the network in the config, for messages.

    Returns:
        The network, in evaluation mode, with parameters that require no gradient, and its preprocessing.

    Raises:
        UserError: The architecture cannot be built.
    """
    settings = {
        "architecture": description["architecture"],
        "arguments": description["arguments"],
        "weights": description["weights"].get("name"),
        # The number, where no order is recorded: it overrides "bgr" of the network's own file.
        "input": {"channels": len(description["preprocessing"]["mean"]), **description["preprocessing"]},
    }
    network, preprocessing = build_network(settings, None, seed, key)
    return network.requires_grad_(False), preprocessing


def get_device(network: nn.Module) -> torch.device:
    """Return the device of a network's parameters; the CPU for a network without parameters.

    Args:
        network: The network, all on one device.
    """
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


def choose_device(name: str) -> torch.device:
    """Return the device that the config's `device` means on this machine, and make torch deterministic.

    Args:
        name: "auto" (CUDA where there is one), "cpu" or "cuda".

    Raises:
        UserError: There is no CUDA device, and `name` is "cuda", or it is "auto" and the environment has
            CONVATLAS_GPU=required, as in jobs on a cluster, which would otherwise keep a GPU idle for hours.
    """
    use_cuda = name != "cpu" and torch.cuda.is_available()
    if name == "cuda" and not use_cuda:
        raise UserError(
            f"device: cuda was requested, but {_describe_missing_cuda()}; use auto or cpu, or another machine"
        )
    if name == "auto" and not use_cuda:
        if os.environ.get("CONVATLAS_GPU") == "required":
            raise UserError(
                f"this job requested a GPU, but {_describe_missing_cuda()}. Fix that, or set `device: cpu` "
                "in the config, or CONVATLAS_GPU=optional in the environment, to compute on the CPU"
            )
        log.warning("no CUDA here: computing on the CPU")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # makes cuBLAS deterministic
    torch.set_deterministic_debug_mode("warn")  # use_deterministic_algorithms, without seconds of imports
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # full float32 precision
    return torch.device("cuda" if use_cuda else "cpu")


def _describe_missing_cuda() -> str:
    """Return that torch sees no CUDA device, with all that may explain it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    path = Path("/proc/driver/nvidia/version")
    driver = (
        path.read_text(encoding="utf-8").splitlines()[0] if path.exists() else "no NVIDIA driver is loaded"
    )
    return (
        f"torch {torch.__version__} sees no CUDA device on {socket.gethostname()} "
        f"(CUDA_VISIBLE_DEVICES: {'not set' if visible is None else repr(visible)}; "
        f"torch is built for CUDA {torch.version.cuda or '(none)'}; "
        f"driver: {driver})"
    )


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device; to a GPU from pinned memory, while the GPU still computes.

    Args:
        tensor: The tensor, of any shape.
        device: The device to copy to.

    Returns:
        The copy; the tensor itself where it is on the device already.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
