"""Download torchvision's trained weights of a network, with what it says of them."""

import argparse
import contextlib
import os
from pathlib import Path

from convatlas import cli
from convatlas.datasets.download import fetch
from convatlas.files import sha256, write_json
from convatlas.models import torchvision_models


def main(given: argparse.Namespace) -> None:
    key, settings, output = f"networks.{given.name}", given.settings, Path(given.output)
    told = torchvision_models.describe_weights(settings["architecture"], settings["weights"], key)
    base, _, name = told["url"].rpartition("/")
    expected = torchvision_models.parse_hash_prefix(told["url"])
    if not (expected and output.is_file() and sha256(output).startswith(expected)):
        instead = f"fetch {name} by hand and put it at {output}"
        mirrors = [*settings["mirrors"], base]
        (arrived,) = fetch(output.parent, {name: expected}, mirrors, f"{key}.weights", instead)
        os.replace(arrived, output)
        with contextlib.suppress(OSError):
            arrived.parent.rmdir()  # unless another download is under way there
    write_json(output.with_suffix(".json"), told | {"sha256": sha256(output), "size": output.stat().st_size})
    cli.log.info("%s: %.1f MB", output, output.stat().st_size / 1e6)


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        '{"architecture": "torchvision/resnet50", "weights": "IMAGENET1K_V2", "mirrors": []}',
        "the file to make, data/weights/<model>-<weights>.pth; a .json is put beside it",
    )
    cli.run(main, parser)
