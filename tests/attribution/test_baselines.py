"""Images without information, against SciPy and by hand."""

from typing import cast

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from convatlas import UserError
from convatlas.attribution.baselines import Baseline, fill_colour, make_baselines
from convatlas.models.preprocessing import Preprocessing

X = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
PREPROCESSING = Preprocessing.from_config(
    {"size": [32, 48], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
)


def test_black_and_grey_are_those_before_normalisation() -> None:
    for value, image in (
        (0.0, make_baselines(X, "black", PREPROCESSING)),
        (0.5, fill_colour(X, 0.5, PREPROCESSING)),
    ):
        for channel, (mean, std) in enumerate(zip(PREPROCESSING.mean, PREPROCESSING.std, strict=True)):
            assert image[:, channel].unique().tolist() == pytest.approx([(value - mean) / std])
    assert not make_baselines(X, "black").any()


def test_the_mean_is_that_of_each_channel_of_each_image() -> None:
    means = make_baselines(X, "mean", PREPROCESSING)
    assert means.shape == X.shape
    for image, mean in zip(X, means, strict=True):
        for channel, constant in zip(image, mean, strict=True):
            assert constant.unique().tolist() == pytest.approx([float(channel.mean())])


def test_the_blur_is_a_gaussian_of_a_sixteenth_of_the_shorter_side() -> None:
    expected = X.numpy()
    for axis in (2, 3):
        expected = gaussian_filter1d(expected, 2.0, axis=axis, mode="nearest", radius=6)
    np.testing.assert_allclose(make_baselines(X, "blurred").numpy(), expected, atol=1e-5)


def test_another_baseline_is_an_error() -> None:
    with pytest.raises(UserError, match="'white'; there are: black, mean, blurred"):
        make_baselines(X, cast(Baseline, "white"))
