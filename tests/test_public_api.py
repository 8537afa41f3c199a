"""The public names: listed, documented, and imported on first use."""

import doctest
import subprocess
import sys
from importlib import import_module

import pytest
import torch
from torch import nn

import convatlas as ca


def test_importing_convatlas_imports_neither_torch_nor_numpy() -> None:
    program = (
        "import sys, convatlas\n"
        "assert set(convatlas.__all__) <= set(dir(convatlas))\n"
        "print([name for name in ('torch', 'numpy', 'matplotlib') if name in sys.modules])\n"
        "convatlas.Results\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "False"]


@pytest.mark.parametrize("name", sorted(set(ca.__all__) - {"__version__"}))
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(ca, name)
    assert value.__doc__
    assert getattr(ca, name) is value


@pytest.mark.parametrize(
    "module",
    [
        "tracing.layers",
        "tracing.record",
        "tracing.extractor",
        "attribution.deconvnet",
        "attribution.attribute",
    ],
)
def test_the_examples_of_public_functions_run(module: str) -> None:
    results = doctest.testmod(import_module(f"convatlas.{module}"))
    assert results.attempted > 0
    assert results.failed == 0


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'projekt'"):
        ca.projekt  # noqa: B018


def test_a_network_of_ones_own_is_recorded_and_projected() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2)).eval()
    x = torch.rand(2, 3, 8, 8)
    assert [layer["name"] for layer in ca.layers(network, (3, 8, 8))] == ["0", "1", "2"]
    outputs = ca.record(network, x).outputs
    assert torch.equal(outputs["2"], network(x))
    one, batch = ca.project(network, x[0], "2", [1, 3]), ca.project(network, x, "2", [1, 3])
    assert one.shape == (2, 3, 8, 8) and batch.shape == (2, 2, 3, 8, 8)
    torch.testing.assert_close(batch[0], one, rtol=0, atol=1e-6)
    with pytest.raises(ca.UserError):
        ca.project(network, x[0], "nowhere")
