"""Images as spectra: the Fourier parametrisation of feature visualisation, with decorrelated colours.

Olah, Mordvintsev and Schubert, Feature visualization (Distill 2017, doi 10.23915/distill.00007): an ascent on
the amplitudes of frequencies, scaled as in natural images, and on colours that are independent, follows the
same gradient with another metric, in which high frequencies do not dominate.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

INITIAL_STD = 0.01  # of the spectrum at the start, as in Lucid (optvis/param/spatial.py)
CONTRAST = 1 / 4  # of the values for a spectrum, as in Lucid
# The square root of the covariance of the colours of ImageNet's pixels: rows are red, green and blue, columns
# independent components. From Lucid (optvis/param/color.py).
COLOUR_COMPONENTS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))


@dataclass(frozen=True)
class FourierImages:
    """Maps spectra to pixels in 0..1.

    An image is the sigmoid of a sum of waves, which repeat at its borders.

    Attributes:
        channels: Number C of channels. Three are taken as red, green and blue; others are independent.
        size: Height and width in pixels.
    """

    channels: int
    size: tuple[int, int]

    @property
    def spectrum_shape(self) -> tuple[int, ...]:
        """Shape of the spectrum of an image: (C, H, W // 2 + 1, 2), real and imaginary parts."""
        height, width = self.size
        return self.channels, height, width // 2 + 1, 2

    @cached_property
    def amplitudes(self) -> Tensor:
        """The amplitude of each frequency, (H, W // 2 + 1): 1 over it, and that of the lowest for a constant.

        Frequencies are in cycles per pixel; those of a wave over the longer side bound them from below.
        """
        height, width = self.size
        frequencies = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
        return 1 / frequencies.clamp_min(1 / max(height, width))

    @cached_property
    def colours(self) -> Tensor | None:
        """Components of colours by channel, (3, 3), of unit length at most; None without three channels."""
        if self.channels != 3:
            return None
        components = torch.tensor(COLOUR_COMPONENTS)
        longest: Tensor = torch.linalg.vector_norm(components, dim=0).max()
        return components / longest

    def draw(self, generator: torch.Generator) -> Tensor:
        """Draw the spectrum of a start: almost grey.

        Args:
            generator: The source of all randomness.
        """
        return INITIAL_STD * torch.randn(self.spectrum_shape, generator=generator)

    def compute_values(self, spectra: Tensor) -> Tensor:
        """Return the values of images before the sigmoid, (N, C, H, W): linear in the spectra.

        Args:
            spectra: Their spectra, (N, C, H, W // 2 + 1, 2).
        """
        waves = torch.view_as_complex(spectra) * self.amplitudes
        values = CONTRAST * torch.fft.irfft2(waves, s=self.size, norm="ortho")
        return values if self.colours is None else torch.einsum("rc,nchw->nrhw", self.colours, values)

    def __call__(self, spectra: Tensor) -> Tensor:
        """Return images, (N, C, H, W) in 0..1.

        Args:
            spectra: Their spectra, (N, C, H, W // 2 + 1, 2).
        """
        return self.compute_values(spectra).sigmoid()

    def scramble(self, spectra: Tensor, generator: torch.Generator) -> Tensor:
        """Return spectra of the same amplitudes whose phases are random: the control without a structure.

        The channels keep their relative phases, and the image its mean colour.

        Args:
            spectra: Spectra (N, C, H, W // 2 + 1, 2).
            generator: The source of all randomness.
        """
        angles = 2 * torch.pi * torch.rand(self.spectrum_shape[1:3], generator=generator)
        angles[0, 0] = 0
        phases = torch.polar(torch.ones_like(angles), angles)
        return torch.view_as_real(torch.view_as_complex(spectra) * phases)


def repeat_to_size(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Repeat images, which are periodic, or cut them, to another size about their centre.

    Args:
        images: Images (N, C, h, w).
        size: Height and width of the result.
    """
    for axis, side in ((2, size[0]), (3, size[1])):
        period = images.shape[axis]
        if side != period:
            index = (torch.arange(side, device=images.device) + (period - side) // 2) % period
            images = images.index_select(axis, index)
    return images
