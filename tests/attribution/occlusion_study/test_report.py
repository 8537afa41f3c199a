"""The layer that occlusion follows, and what its page shows."""

from typing import Any

import pytest
from torch import nn

import convatlas as ca
from convatlas import UserError
from convatlas.attribution.occlusion_study.report import choose_layer


def list_layers(*modules: nn.Module) -> Any:
    return ca.layers(nn.Sequential(*modules), (1, 8, 8))


def test_the_default_layer_is_the_last_hidden_convolution_after_its_activation() -> None:
    classifier = list_layers(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)
    )
    assert choose_layer(classifier, None, "key") == "3"
    assert choose_layer(classifier, 1, "key") == "0"
    fully_convolutional = list_layers(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 4, 1), nn.AdaptiveAvgPool2d(1)
    )
    assert choose_layer(fully_convolutional, None, "key") == "0"
    assert choose_layer(list_layers(nn.Flatten(), nn.Linear(64, 2)), None, "key") is None
    with pytest.raises(UserError, match="key: no layer 'conv9'"):
        choose_layer(classifier, "conv9", "key")
