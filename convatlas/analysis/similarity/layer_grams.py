"""Gram matrices of the layers of a network: inner products of what a layer computes for each two images."""

import logging
from collections.abc import Collection, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from convatlas.models.build import get_device, to_device
from convatlas.models.memory_format import choose_input_format
from convatlas.tracing.calls import Call, composite_modules, raise_on_wrong_input, trace

log = logging.getLogger(__name__)

FEATURES_PER_PRODUCT = 2**16  # whose float32 sums are added in float64


def compute_gram(features: Tensor) -> Tensor:
    """Compute the Gram matrix of some features, up to a shift that CKA is invariant to.

    The features of the first image are subtracted, as sums of large numbers would lose the differences
    between images. No array is as large as the square of the number of features.

    Args:
        features: What a layer computes for each image, (n, ...), real or complex.

    Returns:
        The inner products, (n, n) float64.
    """
    if features.is_complex():
        features = torch.view_as_real(features)
    if features.ndim == 4 and features.is_contiguous(memory_format=torch.channels_last):
        features = features.permute(0, 2, 3, 1)  # flattened without a copy; the order makes no difference
    rows = features.flatten(1)
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
    for part in torch.split(rows, FEATURES_PER_PRODUCT, dim=1):
        values = part if part.dtype == torch.float64 else part.float()
        shifted = values - values[:1]
        gram += (shifted @ shifted.T).double()
    return gram


@torch.no_grad()
def compute_layer_grams(
    network: nn.Module, batches: Iterable[Tensor], names: Collection[str]
) -> dict[str, list[np.ndarray]]:
    """Compute the Gram matrix of each layer on each batch, without keeping the features.

    Args:
        network: Any network; it runs in evaluation mode and is left as it was.
        batches: Preprocessed images (n, C, H, W) of each batch.
        names: Names of layers, as in layers.json.

    Returns:
        Of each layer, in execution order, the matrices (n, n) float64 of the batches. A layer is left out
        whose output has another first axis than the images, or that is not called for all batches.

    Raises:
        UserError: The network does not take the images.
    """
    grams: dict[str, list[np.ndarray]] = {}
    device, count = get_device(network), 0
    x = torch.empty(0)
    blocks = [path for path in composite_modules(network) if path in names]

    def add_gram(call: Call) -> None:
        output = call.output
        has_numbers = output.is_floating_point() or output.is_complex()
        if call.layer in names and has_numbers and output.ndim > 1 and len(output) == len(x):
            grams.setdefault(call.layer, []).append(compute_gram(output).cpu().numpy())

    with trace(network, add_gram, blocks) as restart:
        for batch in batches:
            if not count:
                memory_format = choose_input_format(network, batch.shape[1:])
            x = to_device(batch, device).to(memory_format=memory_format)
            restart()
            with raise_on_wrong_input(x):
                network(x)
            count += 1
    complete = {name: matrices for name, matrices in grams.items() if len(matrices) == count}
    for name in names:
        if name not in complete:
            log.info("%s has no features of each image, and is left out", name)
    return complete
