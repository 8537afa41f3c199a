"""Images as spectra: the transform, its energy, its colours, and what repeats."""

import numpy as np
import pytest
import torch

from convatlas.attribution.feature_visualisation.parametrisation import (
    COLOUR_COMPONENTS,
    CONTRAST,
    FourierImages,
    repeat_to_size,
)

SIZES = [(8, 8), (7, 10), (10, 7)]


def draw(images: FourierImages, count: int = 1, seed: int = 0) -> torch.Tensor:
    """Return spectra of starts."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([images.draw(generator) for _ in range(count)])


@pytest.mark.parametrize("size", SIZES)
def test_values_are_the_inverse_transform_and_keep_the_energy(size: tuple[int, int]) -> None:
    images = FourierImages(1, size)
    spectra = draw(images)
    values = images.compute_values(spectra)[0, 0].double().numpy()
    height, width = size
    rows, columns = np.abs(np.fft.fftfreq(height))[:, None], np.abs(np.fft.rfftfreq(width))[None]
    scale = 1 / np.maximum(np.sqrt(rows**2 + columns**2), 1 / max(size))
    waves = CONTRAST * scale * torch.view_as_complex(spectra)[0, 0].numpy()
    np.testing.assert_allclose(values, np.fft.irfft2(waves, s=size) * np.sqrt(height * width), atol=1e-6)
    forward = np.fft.fft2(values)
    assert np.sum(np.abs(forward) ** 2) / values.size == pytest.approx(np.sum(values**2))  # Parseval
    inner = (slice(None), slice(1, (width + 1) // 2))  # the columns without a mirror image of their own
    np.testing.assert_allclose(forward[inner] / np.sqrt(values.size), waves[inner], atol=1e-6)


def test_amplitudes_fall_with_the_frequency() -> None:
    amplitudes = FourierImages(3, (16, 16)).amplitudes
    assert amplitudes[0, 0] == amplitudes[0, 1] == amplitudes[1, 0] == 16
    assert amplitudes[0, 2] == pytest.approx(8)
    assert amplitudes.min() == pytest.approx(2**0.5)  # half a cycle per pixel along both axes


def test_independent_components_get_the_covariance_of_colours() -> None:
    images = FourierImages(3, (64, 64))
    spectra = 100 * draw(images, 40)
    values = images.compute_values(spectra).permute(1, 0, 2, 3).flatten(1).double().numpy()
    components = np.array(COLOUR_COMPONENTS)
    expected = components @ components.T
    scale = np.trace(expected) / np.trace(np.cov(values))
    np.testing.assert_allclose(np.cov(values) * scale, expected, atol=0.1 * expected.max())


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_other_channels_are_independent(channels: int) -> None:
    images = FourierImages(channels, (12, 12))
    spectra = torch.zeros(1, *images.spectrum_shape)
    spectra[0, 0, 1, 1, 0] = 1
    values = images.compute_values(spectra)
    assert values[0, 0].abs().max() > 0
    assert not values[0, 1:].any()


def test_pixels_are_in_range_and_starts_are_almost_grey() -> None:
    images = FourierImages(3, (32, 32))
    assert (images(draw(images)) - 0.5).abs().max() < 0.1
    extreme = images(1e4 * draw(images))
    assert extreme.min() >= 0
    assert extreme.max() <= 1


def test_scrambling_keeps_amplitudes_and_the_mean() -> None:
    images = FourierImages(3, (15, 15))
    spectra = 10 * draw(images, 2)
    noise = images.scramble(spectra, torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        torch.linalg.vector_norm(noise, dim=-1), torch.linalg.vector_norm(spectra, dim=-1)
    )
    means = images.compute_values(noise).mean((2, 3)), images.compute_values(spectra).mean((2, 3))
    torch.testing.assert_close(*means)
    assert (noise - spectra).abs().max() > 0.01


def test_images_repeat_or_are_cut_about_their_centre() -> None:
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    assert repeat_to_size(x, (3, 4)) is x
    np.testing.assert_array_equal(repeat_to_size(x, (5, 4))[0, 0], np.pad(x[0, 0], [(1, 1), (0, 0)], "wrap"))
    np.testing.assert_array_equal(repeat_to_size(x, (3, 8))[0, 0], np.pad(x[0, 0], [(0, 0), (2, 2)], "wrap"))
    np.testing.assert_array_equal(repeat_to_size(x, (1, 2))[0, 0], [[5, 6]])
