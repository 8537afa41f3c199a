"""The base class of modes: the compiler is not imported for it, and does not compile it where it is."""

import subprocess
import sys

NETWORK = """
import sys, warnings
import torch
from torch import nn
import convatlas as ca

warnings.simplefilter("error")
network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten())
layers = ca.layers(network, (1, 5, 5))
ca.project(network, torch.ones(1, 5, 5), "1", [0])
print("torch._dynamo" in sys.modules)

compiled = torch.compile(torch.relu, backend="eager")


class Compiled(nn.Sequential):
    def forward(self, x):
        return super().forward(compiled(x))


network = Compiled(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten())
print([layer["receptive_field"] for layer in ca.layers(network, (1, 5, 5)) if layer["name"] in "012"]
      == [layer["receptive_field"] for layer in layers])
print(len(torch._dynamo.utils.compilation_time_metrics))
"""


def test_the_compiler_is_neither_imported_nor_used() -> None:
    command = [sys.executable, "-c", NETWORK]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", "True", "0"]
    assert done.stderr == ""
