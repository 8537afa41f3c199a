"""Download torchvision's trained weights."""

import contextlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from convatlas.download import fetch
from convatlas.files import sha256, write_json
from convatlas.models import torchvision_models
from convatlas.records import DownloadedWeights

log = logging.getLogger(__name__)


def download_weights(
    architecture: str, weights: str, mirrors: Sequence[str], output: str | Path, key: str
) -> None:
    """Download torchvision's weights of a network, verified by the hash in their file's name.

    A file that is there already, with this hash, is not downloaded again. Its description is written beside
    it, with the suffix .json.

    Args:
        architecture: "torchvision/<name>".
        weights: Name of the weights, such as "IMAGENET1K_V2".
        mirrors: Addresses of folders that hold the file, tried before torchvision's own.
        output: The file, data/weights/<model>-<weights>.pth.
        key: Place of the network in the config, for messages.

    Raises:
        UserError: torchvision has no such weights, or they cannot be downloaded.
    """
    output = Path(output)
    description = torchvision_models.describe_weights(architecture, weights, key)
    base, _, name = description["url"].rpartition("/")
    expected = torchvision_models.parse_hash_prefix(description["url"])
    if not (expected and output.is_file() and sha256(output).startswith(expected)):
        alternative = f"fetch {name} by hand and put it at {output}"
        (downloaded,) = fetch(
            output.parent, {name: expected}, [*mirrors, base], f"{key}.weights", alternative
        )
        os.replace(downloaded, output)
        with contextlib.suppress(OSError):
            downloaded.parent.rmdir()  # fails where another download is in progress there
    size = output.stat().st_size
    record: DownloadedWeights = {**description, "sha256": sha256(output), "size": size}
    write_json(output.with_suffix(".json"), record)
    log.info("%s: %.1f MB", output, size / 1e6)
