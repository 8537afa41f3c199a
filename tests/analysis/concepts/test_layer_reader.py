"""The outputs of layers in batches are those of each image alone."""

import torch
from torch import Tensor, nn

from convatlas.analysis.concepts.layer_reader import LayerReader
from tests.support.planted_concepts import UNITS, make_images

N_UNITS = len(UNITS) - 1  # without NaN
IMAGES = make_images(5, 0, [unit for name, unit in UNITS.items() if name != "nan"])


def read(reader: LayerReader) -> dict[tuple[int, str], Tensor]:
    outputs: dict[tuple[int, str], Tensor] = {}

    def copy(image: int, layer: str, output: Tensor) -> None:
        outputs[image, layer] = output.clone()

    reader.visit(IMAGES, copy)
    return outputs


def test_each_image_has_the_outputs_that_it_has_alone() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(N_UNITS, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 14 * 14, 2)
    ).eval()
    reader = LayerReader.choose(network, ["0", "3"], IMAGES)
    assert (reader.layers, reader.batch_size) == (["0", "3"], 5)
    outputs = read(reader)
    assert list(outputs) == [(n, layer) for layer in ("0", "3") for n in range(5)]
    for n, x in enumerate(IMAGES.inputs):
        torch.testing.assert_close(outputs[n, "0"], network[0](x)[0])
        torch.testing.assert_close(outputs[n, "3"][:, 0], network(x)[0])


def test_a_network_with_statistics_of_its_batch_gets_one_image_at_a_time() -> None:
    network = nn.Sequential(nn.BatchNorm2d(N_UNITS, track_running_stats=False)).eval()
    assert LayerReader.choose(network, ["0"], IMAGES).batch_size == 1


class SingleImage(nn.Module):
    """A layer that reshapes its input as that of one image."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(1, N_UNITS, 16, 16)


def test_a_network_for_one_image_gets_one_at_a_time() -> None:
    reader = LayerReader.choose(nn.Sequential(SingleImage()), ["0"], IMAGES)
    assert reader.batch_size == 1
    assert torch.equal(read(reader)[3, "0"], IMAGES.inputs[3][0])


class Patches(nn.Module):
    """A layer that folds patches of an image into the batch axis."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, N_UNITS, 8, 8)


def test_layers_whose_first_axis_is_not_that_of_the_images_are_left_out() -> None:
    network = nn.Sequential(nn.Identity(), Patches())
    assert LayerReader.choose(network, ["0", "1"], IMAGES).layers == ["0"]
