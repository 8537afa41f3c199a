"""Project the strongest activations of a network's units back to the pixels that caused them."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convatlas import UserError, cli
from convatlas.attribution import patches
from convatlas.attribution.patches import PatchGeometry
from convatlas.datasets.loader import BatchLoader
from convatlas.files import Npz, npz_writer, read_json
from convatlas.layer_selection import choose_layers
from convatlas.models import build
from convatlas.names import suggest_nearest

ACTIVATION_TOLERANCE = (
    1e-3  # of a layer's largest: what an activation may differ by where it is computed again
)
PATCHES_PER_BATCH = 512  # patches whose images are in memory
TOP_ARRAYS = ("values", "images", "positions")


def main(given: argparse.Namespace) -> None:
    torch.set_num_threads(given.threads)
    device = build.choose_device(given.device)
    folder = Path(given.output)
    network, preprocessing = build.load_network(folder)
    network.to(device)
    statistics, about = Npz(folder / "statistics.npz"), read_json(folder / "statistics.json")
    followed = [layer["name"] for layer in about["layers"]]
    layers = read_json(folder / "layers.json")
    key = f"networks.{given.name}.views.strongest.project"
    chosen = choose_projected_layers(layers, followed, given.settings["project"], key)
    images = BatchLoader(given.data, about["split"], preprocessing, 1, workers=given.threads)
    projector = PatchProjector(network, layers, images, given.settings["rectify"], device)
    with npz_writer(folder / "strongest.npz") as write:
        for name in followed:
            top = {what: statistics[f"{name}@{what}"] for what in TOP_ARRAYS}
            for what, array in top.items():
                write(f"{name}@{what}", array)
            if name in chosen:
                units = select_top_units(top["values"], given.settings["units"])
                if len(units) < len(top["values"]):
                    write(f"{name}@units", units)
                for what, array in projector.project_layer(
                    name, units, *(top[what][units] for what in TOP_ARRAYS)
                ).items():
                    write(f"{name}@{what}", array)
                cli.log.info("projected the strongest activations of %d units of %s", len(units), name)


def choose_projected_layers(
    layers: list[dict[str, Any]], followed: list[str], asked: Any, key: str
) -> list[str]:
    """The layers to project from, of those that were followed; `all` are convolutions and pooling layers."""
    if asked == "all":
        named = {layer["name"] for layer in layers if layer["kind"] in ("conv", "pool")}
        return [name for name in followed if name in named]
    names = choose_layers(layers, asked, key)
    if missing := [name for name in names if name not in followed]:
        hint = suggest_nearest(missing[0], followed)
        raise UserError(f"{key}: {missing[0]!r} is not among those of views.strongest.layers; {hint}")
    return names


def select_top_units(values: np.ndarray, wanted: int | str) -> np.ndarray:
    """The units (int32) whose strongest value is largest, strongest first; all in their order."""
    if wanted == "all" or int(wanted) >= len(values):
        return np.arange(len(values), dtype=np.int32)
    return np.argsort(-values[:, 0], kind="stable")[: int(wanted)].astype(np.int32)


class PatchProjector:
    """Projects activations of a network, and cuts out the pixels that they depend on."""

    def __init__(
        self,
        network: torch.nn.Module,
        layers: list[dict[str, Any]],
        images: BatchLoader,
        rectify: bool,
        device: torch.device,
    ) -> None:
        self.network, self.layers, self.images, self.rectify, self.device = (
            network, layers, images, rectify, device,
        )  # fmt: skip

    def project_layer(
        self, name: str, units: np.ndarray, values: np.ndarray, numbers: np.ndarray, positions: np.ndarray
    ) -> dict[str, np.ndarray]:
        """What strongest.npz has of a layer's units (u,), given their k strongest, as in statistics.npz.

        `projections` and `patches`, the input as the network saw it, are (u, k, C, h, w) float32, as large
        as the receptive field, or as the input where that is smaller or it is not known; NaN is what an
        activation does not depend on, or beyond the border. `corners` (u, k, 2) int32 say where in the
        input the upper left pixel lies. All is NaN where there is no such activation.
        """
        layer = next(layer for layer in self.layers if layer["name"] == name)
        shape = self.images.preprocessing.shape
        window = PatchGeometry.from_layer(layer, shape[1:])
        found = np.full((2, *numbers.shape, shape[0], *window.patch_size), np.nan, np.float32)
        corners = np.zeros((*numbers.shape, 2), np.int32)
        there = np.argwhere(numbers >= 0)
        there = there[np.argsort(numbers[tuple(there.T)], kind="stable")]  # each image is read once
        crop = patches.is_croppable(self.network, self.layers, name)
        for first in range(0, len(there), PATCHES_PER_BATCH):
            rows = tuple(there[first : first + PATCHES_PER_BATCH].T)
            inputs = self.read_images(numbers[rows])
            of = (units[rows[0]], positions[rows])
            projections = self.project_inputs(name, inputs, window, *of, values[rows], crop)
            for row, column, image, position, projection in zip(
                *rows, inputs, of[1], projections, strict=True
            ):
                found[:, row, column] = projection, patches.extract_patch(image, window, position)
                corners[row, column] = window.corner(position)
        return {"projections": found[0], "patches": found[1], "corners": corners}

    def read_images(self, numbers: np.ndarray) -> list[np.ndarray]:
        """Read images as the network sees them, (C, H, W); those that come again once."""
        different = np.unique(numbers).tolist()
        inputs = {}
        for number, batch in zip(different, self.images.read_batches(different), strict=True):
            pixels = build.to_device(torch.from_numpy(batch.pixels), self.device)
            inputs[number] = self.images.preprocessing(pixels)[0].cpu().numpy()
        return [inputs[number] for number in numbers.tolist()]

    def project_inputs(
        self,
        name: str,
        inputs: list[np.ndarray],
        window: PatchGeometry,
        units: np.ndarray,
        positions: np.ndarray,
        values: np.ndarray,
        crop: bool,
    ) -> np.ndarray:
        """Project, on crops where they give the activations that the whole images gave."""
        arguments = (self.network, name, inputs, window, units, positions, self.rectify)
        projections, made = patches.project_patches(*arguments, crop=crop)
        if crop and np.abs(made - values).max() > ACTIVATION_TOLERANCE * np.abs(values).max():
            cli.log.info(
                "%s: a part of an image does not give what the whole does; whole ones are taken", name
            )
            projections, _ = patches.project_patches(*arguments, crop=False)
        return projections


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        '{"project": "all", "units": 16, "rectify": false}; of views.strongest, and of views.deconv',
        "its folder, results/<network>, where its statistics are",
    )
    parser.add_argument("--data", required=True, help="the data set's folder, data/<dataset>")
    cli.add_compute_arguments(parser)
    cli.run(main, parser)
