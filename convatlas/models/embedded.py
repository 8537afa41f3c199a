"""Trained weights that need no download: read from the data file of a locked package, never its code."""

import hashlib
import importlib.metadata
import io
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from convatlas import UserError
from convatlas.files import atomic_write, sha256, write_json
from convatlas.models.factory import Factory
from convatlas.models.preprocessing import Preprocessing
from convatlas.pipeline.architecture_names import EMBEDDED, EMBEDDED_ARCHITECTURE
from convatlas.pipeline.config_types import InputConfig
from convatlas.records import DownloadedWeights

log = logging.getLogger(__name__)

# Iandola et al. 2016, https://arxiv.org/abs/1602.07360, trained on the ImageNet ILSVRC 2012 training images.
PACKAGE = "ndf"
PACKAGE_FILE = "ndf/example_models/weights/squeezenet_weights.pkl"
PACKAGE_FILE_SHA256 = "f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1"
PACKAGE_URL = "https://github.com/primozgodec/ndf"
LICENCE = "MIT, © 2019 Primoz Godec"
# Means of the ImageNet training images by channel, out of 255; the values are not divided by a deviation.
INPUT: InputConfig = {
    "size": 224,
    "resize": 256,
    "mean": [123.68 / 255, 116.779 / 255, 103.939 / 255],
    "std": [1 / 255, 1 / 255, 1 / 255],
}
FIRE_MODULES = {2: 3, 3: 4, 4: 6, 5: 7, 6: 9, 7: 10, 8: 11, 9: 12}  # the paper's number: torchvision's
# What NumPy's arrays are pickled with: nothing else is ever called.
NUMPY_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _NumpyUnpickler(pickle.Unpickler):
    """Unpickles NumPy arrays in plain containers, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a function or class of NUMPY_GLOBALS."""
        if (module, name) not in NUMPY_GLOBALS:
            raise pickle.UnpicklingError(f"{module}.{name} is refused")
        return NUMPY_GLOBALS[module, name]


def make_embedded_factory(architecture: str, state: Mapping[str, Tensor] | None) -> Factory:
    """Return the function that builds the network of the embedded weights.

    Args:
        architecture: "torchvision/squeezenet1_1", the only one that has embedded weights.
        state: What the file of `write_embedded_weights` holds; None leaves the network untrained.
    """

    def build(**arguments: Any) -> nn.Module:
        network: nn.Module = models.squeezenet1_1(weights=None, **arguments)
        if state is not None:
            network.load_state_dict(state)
        return network

    return Factory(build, architecture, INPUT)


def write_embedded_weights(output: str | Path, key: str) -> None:
    """Convert the package's weights to a safetensors file, and write its description beside it.

    Args:
        output: The file, data/weights/<model>-embedded.safetensors; its description has the suffix .json.
        key: Place of the network in the config, for messages.

    Raises:
        UserError: The package is not installed, or its file is another one than was checked.
    """
    output = Path(output)
    state = convert_squeezenet(_read_arrays(f"{key}.weights"))
    with atomic_write(output) as temporary:
        # One entry: safetensors writes several in an order that differs from process to process.
        save_file(state, temporary, {"origin": f"{PACKAGE_URL}: {PACKAGE_FILE}; licence: {LICENCE}"})
    description: DownloadedWeights = {
        "architecture": EMBEDDED_ARCHITECTURE,
        "weights": EMBEDDED,
        "url": PACKAGE_URL,
        "licence": LICENCE,
        "categories": models.SqueezeNet1_1_Weights.IMAGENET1K_V1.meta["categories"],
        "preprocessing": Preprocessing.from_config(INPUT).to_dict(),
        "parameters": sum(tensor.numel() for tensor in state.values()),
        "metrics": {},
        "recipe": None,
        "sha256": sha256(output),
        "size": output.stat().st_size,
    }
    write_json(output.with_suffix(".json"), description)
    log.info("%s: %.1f MB, from the package %s (%s)", output, output.stat().st_size / 1e6, PACKAGE, LICENCE)


def _read_arrays(key: str) -> dict[str, list[np.ndarray]]:
    """Return the kernel and bias of each layer from the package's file, once its hash is verified."""
    try:
        path = importlib.metadata.distribution(PACKAGE).locate_file(PACKAGE_FILE)
        content = Path(str(path)).read_bytes()
    except (importlib.metadata.PackageNotFoundError, OSError) as error:
        raise UserError(
            f"{key}: embedded weights are read from the package {PACKAGE}, which is not installed completely "
            f"({error}); run `make setup`"
        ) from error
    if (digest := hashlib.sha256(content).hexdigest()) != PACKAGE_FILE_SHA256:
        raise UserError(
            f"{key}: {PACKAGE_FILE} of the package {PACKAGE} has the SHA-256 {digest}, not "
            f"{PACKAGE_FILE_SHA256}: it is damaged or another version; install {PACKAGE} again, as "
            "requirements.lock names it"
        )
    arrays: dict[str, list[np.ndarray]] = _NumpyUnpickler(io.BytesIO(content)).load()
    return arrays


def convert_squeezenet(arrays: dict[str, list[np.ndarray]]) -> dict[str, Tensor]:
    """Convert SqueezeNet 1.1 from Keras' layout to torchvision's state dict.

    Args:
        arrays: By layer, the kernel (height, width, inputs, outputs) and the bias (outputs,). The first layer
            takes BGR.

    Returns:
        The state dict of torchvision's `squeezenet1_1`, whose first layer takes RGB.
    """
    names = {"conv1": "features.0", "conv10": "classifier.1"}
    for paper, module in FIRE_MODULES.items():
        for part, name in (("squeeze1x1", "squeeze"), ("expand1x1",) * 2, ("expand3x3",) * 2):
            names[f"fire{paper}/{part}"] = f"features.{module}.{name}"
    state = {}
    for layer, (kernel, bias) in arrays.items():
        kernel = kernel.transpose(3, 2, 0, 1)
        if layer == "conv1":
            kernel = kernel[:, ::-1]  # BGR to RGB
        state[f"{names[layer]}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel, np.float32))
        state[f"{names[layer]}.bias"] = torch.from_numpy(np.ascontiguousarray(bias, np.float32))
    return state
