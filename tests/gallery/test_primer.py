"""The primer: its examples, against torch and the arrays of a run, and its page."""

import itertools
import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convatlas.files import write_json, write_npz
from convatlas.gallery import pooling_example, primer_examples, value_grid
from convatlas.gallery.context import GalleryContext
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.pages import primer
from convatlas.models.architectures.lenet5 import lenet5
from convatlas.models.architectures.simple_cnn import simple_cnn
from convatlas.results import Results
from convatlas.tracing import layers as layers_module
from tests.support.fake_results import make_layer, make_results
from tests.support.site import CONFIG, HOSTILE_TEXT, PageParser, build_page, build_site, write_network

SECTIONS = ["filter", "feature-map", "receptive-field", "output-size", "pooling", "deconvnet", "scales"]


# Pooling


@pytest.mark.parametrize("case", range(20))
def test_pooling_and_unpooling_are_torchs(case: int) -> None:
    rng = np.random.default_rng(case)
    values = rng.integers(0, 9, (2 * rng.integers(1, 5), 2 * rng.integers(1, 5))).astype(
        np.float32
    )  # ties too
    small, switches = pooling_example.max_pool(values)
    expected, places = F.max_pool2d(torch.from_numpy(values)[None, None], 2, return_indices=True)
    assert np.array_equal(small, expected[0, 0].numpy())
    assert np.array_equal(switches, places[0, 0].numpy())
    signal = rng.normal(size=small.shape).astype(np.float32)
    back = F.max_unpool2d(torch.from_numpy(signal)[None, None], places, 2, output_size=values.shape)
    assert np.array_equal(pooling_example.max_unpool(signal, switches), back[0, 0].numpy())


def read_texts(grid: value_grid.Grid) -> list[str]:
    return [cell.text for cell in grid.cells]


def write_steps(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Write the results of steps through a pooling layer, and return the signals and the outputs."""
    rng = np.random.default_rng(3)
    maps = rng.random((2, 6, 6)).astype(np.float32)
    _, places = F.max_pool2d(torch.from_numpy(maps)[None], 2, return_indices=True)
    pooled_signal = rng.normal(size=(2, 3, 3)).astype(np.float32)
    unpooled = F.max_unpool2d(torch.from_numpy(pooled_signal)[None], places, 2)[0].numpy()
    signals = {"pool": pooled_signal, "relu": unpooled, "conv": unpooled.clip(0)}
    outputs = {"input": maps, "relu": maps}
    write_npz(folder / "steps/signals.npz", signals)
    write_npz(folder / "activations/first.npz", outputs)
    window = {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0]}
    pool = make_layer("pool", "pool", (2, 6, 6), (2, 3, 3), **window) | {
        "type": "MaxPool2d",
        "inputs": ["relu"],
    }
    write_json(folder / "layers.json", [pool])
    write_json(folder / "images.json", [{"name": "first"}])
    steps = [{"layer": "pool", "passed_layers": []}, {"layer": "relu", "passed_layers": ["pool"]}]
    steps.append({"layer": "conv", "passed_layers": ["relu"]})
    write_json(folder / "steps/steps.json", {"image": "first", "steps": steps})
    return signals, outputs


def test_the_example_of_pooling_has_numbers_of_the_run(tmp_path: Path) -> None:
    """The pooled, unpooled and rectified values are those at that position in the run's arrays."""
    signals, outputs = write_steps(tmp_path)
    example = pooling_example.make_pooling_example(Results(tmp_path))
    source = example.source
    assert source is not None
    assert (source.pool, source.map, source.image) == ("pool", "relu", "first")

    def cut(array: np.ndarray, step: int, side: int) -> list[str]:
        row, column = source.row // step, source.column // step
        patch = array[source.unit][row : row + side, column : column + side]
        return [value_grid.format_value(value) for value in patch.ravel().tolist()]

    assert read_texts(example.map) == cut(outputs["relu"], 1, 4)
    assert read_texts(example.signal) == cut(signals["pool"], 2, 2)
    assert read_texts(example.unpooled) == cut(signals["relu"], 1, 4)
    assert read_texts(example.rectified) == cut(signals["conv"], 1, 4)
    assert any("−" in text for text in read_texts(example.signal))
    maxima = [n for n, cell in enumerate(example.map.cells) if cell.is_maximum]
    assert maxima == sorted(example.switches) and len(maxima) == 4


def test_without_steps_the_example_has_made_up_numbers_of_both_signs(tmp_path: Path) -> None:
    example = pooling_example.make_pooling_example(Results(tmp_path))
    assert example.source is None
    small, _ = pooling_example.max_pool(pooling_example.EXAMPLE_MAP)
    assert read_texts(example.pooled) == [value_grid.format_value(value) for value in small.ravel().tolist()]
    assert len(np.unique(pooling_example.EXAMPLE_MAP[pooling_example.EXAMPLE_MAP > 0])) >= 8
    assert (pooling_example.EXAMPLE_SIGNAL < 0).any() and (pooling_example.EXAMPLE_SIGNAL > 0).any()


# Filters, receptive fields, scales


def list_network_layers(net: nn.Module, side: int) -> list[dict[str, Any]]:
    return layers_module.list_layers(net, (1, side, side))


@pytest.mark.parametrize(("net", "side"), [(lenet5(), 28), (simple_cnn(), 50)], ids=["lenet5", "simple_cnn"])
def test_the_receptive_field_has_exactly_the_pixels_that_a_value_depends_on(
    net: nn.Module, side: int
) -> None:
    """Against autograd: the pixels with a gradient of the middle value of the last layer that is drawn."""
    layers = list_network_layers(net, side)
    rows = primer_examples.trace_receptive_field(layers)
    assert rows[-1].name == "input" and rows[-1].size == side
    for module_ in net.modules():  # so that no ReLU blocks the gradient
        if isinstance(module_, nn.Conv2d):
            module_.weight.data.abs_()
            module_.bias.data.fill_(1)
    x = torch.rand(1, 1, side, side, requires_grad=True)
    value = x
    for name, module in net.named_children():
        value = nn.functional.avg_pool2d(value, 2) if isinstance(module, nn.MaxPool2d) else module(value)
        if name == rows[0].name:
            break
    value[0, 0, rows[0].first, rows[0].first].backward()
    pixels = np.flatnonzero(x.grad[0, 0].abs().sum(0).numpy())
    assert (pixels.min(), pixels.max()) == (rows[-1].first, rows[-1].last)
    for row in rows[:-1]:
        above = primer_examples.trace_receptive_field(
            layers[: [x["name"] for x in layers].index(row.name) + 1]
        )
        assert above[-1].last - above[-1].first + 1 == row.layer["receptive_field"][-1]


def test_parameters_are_counted_as_in_torch() -> None:
    for conv in (nn.Conv2d(3, 8, (3, 5)), nn.Conv2d(4, 8, 3, groups=2, bias=False), nn.Conv2d(1, 2, 1)):
        (layer,) = layers_module.list_layers(nn.Sequential(conv), (conv.in_channels, 9, 9))
        formula = str(primer_examples.format_parameter_count(layer))
        product, total = formula.split(" = ")
        assert int(total.replace(",", "")) == sum(p.numel() for p in conv.parameters())
        assert eval(product.replace("·", "*")) == int(total.replace(",", ""))
    (layer,) = layers_module.list_layers(nn.Sequential(nn.ConvTranspose2d(2, 3, 2)), (2, 4, 4))
    assert primer_examples.format_parameter_count(layer) is None


def test_the_colour_maps_are_matplotlibs() -> None:
    for name, colormap in (("RdBu_r", value_grid.RDBU), ("viridis", value_grid.VIRIDIS)):
        for n, stop in enumerate(colormap):
            rgb = [round(255 * part) for part in matplotlib.colormaps[name](round(255 * n / 20))[:3]]
            assert stop == "#{:02x}{:02x}{:02x}".format(*rgb)
        for place in np.linspace(0, 1, 201):
            expected = 255 * np.array(matplotlib.colormaps[name](place)[:3])
            rgb = [int(value_grid.interpolate_colour(colormap, place)[i : i + 2], 16) for i in (1, 3, 5)]
            assert np.abs(expected - rgb).max() < 5


def test_numbers_have_enough_contrast() -> None:
    """A contrast of at least 4.5 on every colour (WCAG 2.2, 1.4.3)."""

    def luminance(colour: str) -> float:
        if len(colour) == 4:
            colour = "#" + "".join(2 * letter for letter in colour[1:])
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for colormap, place in itertools.product((value_grid.RDBU, value_grid.VIRIDIS), np.linspace(0, 1, 101)):
        fill = value_grid.interpolate_colour(colormap, place)
        light, dark = sorted([luminance(fill), luminance(value_grid.choose_text_colour(fill))], reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_a_grid_has_its_values_in_rows_and_as_text() -> None:
    grid = value_grid.draw_grid(np.array([[1, -0.5, 0], [0.25, 0, 2]]), 2)
    assert [(cell.x / 46, cell.y / 46) for cell in grid.cells] == [(c, r) for r in (0, 1) for c in (0, 1, 2)]
    assert read_texts(grid) == ["1.00", "−0.50", "0", "0.25", "0", "2.00"]
    assert grid.alt == "1.00, −0.50, 0; 0.25, 0, 2.00"
    assert grid.cells[2].fill == value_grid.RDBU[10] and grid.cells[5].fill == value_grid.RDBU[-1]


# The network, and the layer pairs


def test_a_chain_with_pooling_is_the_preferred_network() -> None:
    chains = {
        "lenet5": list_network_layers(lenet5(), 28),
        "simple_cnn": list_network_layers(simple_cnn(), 50),
    }
    branching = [dict(chains["lenet5"][0]) | {"inputs": ["somewhere"]}]
    pages = [make_network_data(layers) for layers in (branching, chains["simple_cnn"], chains["lenet5"])]
    assert primer_examples.choose_network(pages) is pages[2]
    assert primer_examples.choose_network(pages[:2]) is pages[1]
    assert primer_examples.choose_network(pages[:1]) is pages[0]


def make_network_data(layers: list[dict[str, Any]]) -> NetworkData:
    page = object.__new__(NetworkData)
    object.__setattr__(page, "layers", layers)
    return page


def test_the_layer_pairs_are_those_of_a_chain() -> None:
    layers = list_network_layers(lenet5(), 28)
    pair = primer_examples.pair_layers(layers, {"layer": "pool2"})
    assert [(row.name, row.forward, row.backward, row.shape) for row in pair] == [
        ("conv1", "filter", "transposed filter", "6 × 28 × 28"),
        ("relu1", "rectify", "rectify", "6 × 28 × 28"),
        ("pool1", "max-pool", "unpool", "6 × 14 × 14"),
        ("conv2", "filter", "transposed filter", "16 × 10 × 10"),
        ("relu2", "rectify", "rectify", "16 × 10 × 10"),
        ("pool2", "max-pool", "unpool", "16 × 5 × 5"),
    ]
    for steps in (None, {"layer": "elsewhere"}):
        stage = primer_examples.pair_layers(layers, steps)
        assert [row.backward for row in stage] == ["transposed filter", "rectify", "unpool"]
        assert not any(row.shape for row in stage)


# The page


def test_each_section_has_an_anchor_and_references(tmp_path: Path) -> None:
    write_network(tmp_path, "own")
    site = build_site(tmp_path, "own", config=CONFIG | {"networks": {"own": CONFIG["networks"]["own"]}})
    text = (site / "primer.html").read_text()
    for section in SECTIONS:
        part = text[text.index(f'<section aria-labelledby="{section}"') :]
        part = part[: part.index("</section>")]
        assert f'id="{section}"' in part
        source = re.search(r'<p class="references">(.*?)</p>', part, re.DOTALL)
        assert source and re.search(r"(19|20)\d\d|arXiv", source.group(1))
        assert re.search(r"section|chapter|533–536|\b27\b", source.group(1))
    linked = {link for link in PageParser(site / "index.html").links if link.startswith("primer.html#")}
    assert linked == {f"primer.html#{section}" for section in SECTIONS}
    ids = set(re.findall(r'id="([^"]+)"', text))
    for name in ("networks/own.html", "index.html"):
        for link in PageParser(site / name).links:
            if "primer.html#" in link:
                assert link.partition("#")[2] in ids


def test_the_deconvnet_is_explained_once(tmp_path: Path) -> None:
    """In the primer alone."""
    write_network(tmp_path, "own")
    site = build_site(tmp_path, "own", config=CONFIG | {"networks": {"own": CONFIG["networks"]["own"]}})
    explaining_pages = [
        path.name
        for path in site.rglob("*.html")
        if "All activations of the layer except those of one unit are set to zero" in path.read_text()
    ]
    assert explaining_pages == ["primer.html"]
    assert "Rectify" in PageParser(site / "primer.html").text
    assert "Rectify" not in PageParser(site / "index.html").text


def test_hostile_names_are_text(tmp_path: Path) -> None:
    results = make_results()
    results.layers[0] |= {"name": HOSTILE_TEXT, "module": HOSTILE_TEXT, "parameters": 5 * 3 * 3 * 3 + 5}
    results.filters = {HOSTILE_TEXT: results.filters["conv1"]}
    write_network(tmp_path, "own", results)
    page = NetworkData.read(tmp_path / "results", tmp_path / "data", "own", False)
    context = GalleryContext(tmp_path / "results", tmp_path / "data", CONFIG, [page], {})
    text = build_page(context, next(primer.make_pages(context)))
    assert "<img onerror" not in text
    assert (
        f"unit {primer_examples.choose_kernel(page.layers, results.filters).unit} of &lt;img onerror" in text
    )


@pytest.mark.parametrize("network", ["lenet5"])
def test_the_numbers_of_lenet5(network: str) -> None:
    """As in the literature."""
    layers = list_network_layers(lenet5(), 28)
    formulas = [primer_examples.format_parameter_count(layer) for layer in layers if layer["kind"] == "conv"]
    assert formulas == ["6 · 1 · 5 · 5 + 6 = 156", "16 · 6 · 5 · 5 + 16 = 2,416"]
    rows = primer_examples.trace_receptive_field(layers)
    assert [(row.name, row.last - row.first + 1, row.size) for row in rows] == [
        ("pool2", 1, 5), ("conv2", 2, 10), ("pool1", 6, 14), ("conv1", 12, 28), ("input", 16, 28)
    ]  # fmt: skip
