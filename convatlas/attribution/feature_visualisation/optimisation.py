"""Optimise images for units or classes: gradient ascent on their spectra."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from convatlas import UserError
from convatlas.attribution.class_scores import BATCH_TOLERANCE, MAX_BATCH_VALUES
from convatlas.attribution.feature_visualisation.adam import Adam
from convatlas.attribution.feature_visualisation.dead_starts import open_rectifiers
from convatlas.attribution.feature_visualisation.objectives import Objective, Response
from convatlas.attribution.feature_visualisation.parametrisation import FourierImages, repeat_to_size
from convatlas.attribution.feature_visualisation.transformations import (
    draw_transformations,
    transform_images,
)
from convatlas.attribution.gradient_rules import attach_gradient_rules
from convatlas.models.preprocessing import Preprocessing

OPEN_SHARE = 0.5  # of the steps, the first ones, in which rectifiers that block the gradient are open
CONTROL_COUNT = 2  # images of noise with which an optimised image is compared


@dataclass(frozen=True)
class OptimisedImages:
    """Images that were optimised, each for its unit.

    Attributes:
        images: Their pixels, (N, C, h, w) float32 in 0..1.
        curves: The objective in each step, of the transformed image, (N, steps) float32.
        objectives: The objective of the images themselves, (N,) float32.
        control_objectives: The largest of the objectives of the start and of images with the same amplitudes
            and random phases, (N,) float32.
        maxima: The maxima of all units over the positions of their maps, (N, units) float32.
    """

    images: np.ndarray
    curves: np.ndarray
    objectives: np.ndarray
    control_objectives: np.ndarray
    maxima: np.ndarray


@dataclass(frozen=True)
class Optimiser:
    """Optimises images for the units of an objective.

    The result of a unit depends on its number and the seed alone, not on the units that run with it.

    Attributes:
        objective: What is maximised.
        preprocessing: That of the network.
        device: Where the network runs. Spectra are transformed to images on the CPU.
        size: Height and width of the images.
        steps: Number of steps.
        robust: Transform the image at random in every step.
        seed: Seed of the starts and of the transformations.
        start: Number of the start: another one gives other random numbers.
    """

    objective: Objective
    preprocessing: Preprocessing
    device: torch.device
    size: tuple[int, int]
    steps: int = 128
    robust: bool = True
    seed: int = 0
    start: int = 0

    def __call__(self, units: Sequence[int]) -> OptimisedImages:
        """Optimise an image for each unit, as many at a time as memory allows.

        Args:
            units: Numbers of the units.

        Raises:
            UserError: The network does not take images of the size, or its outputs are not finite.
        """
        count = max(1, MAX_BATCH_VALUES // (self.images.channels * self.size[0] * self.size[1]))
        if count > 1 and len(units) > 1 and not self._is_batchable(units[0]):
            count = 1
        parts = [self._optimise(units[n : n + count]) for n in range(0, len(units), count)]
        return OptimisedImages(
            *(np.concatenate([getattr(p, f) for p in parts]) for f in OptimisedImages.__dataclass_fields__)
        )

    @property
    def images(self) -> FourierImages:
        """The parametrisation of the images."""
        return FourierImages(self.preprocessing.shape[0], self.size)

    def _optimise(self, units: Sequence[int]) -> OptimisedImages:
        """Optimise the images of a batch of units."""
        generators = [self._make_generator(unit) for unit in units]
        images = self.images
        starts = torch.stack([images.draw(generator) for generator in generators])
        transformations = torch.stack(
            [draw_transformations(generator, self.steps, self.size) for generator in generators], 1
        )
        spectra, adam = starts.clone(), Adam(starts.shape)
        curves = []
        for step in range(self.steps):
            spectra.requires_grad_()
            pixels = images(spectra)
            if self.robust:
                pixels = transform_images(pixels, transformations[step])
            x = self.preprocess(pixels)
            objective, gradient = self._differentiate(x.detach(), units, step < OPEN_SHARE * self.steps)
            (by_spectra,) = torch.autograd.grad(x, spectra, gradient)
            spectra = spectra.detach() + adam.compute_step(by_spectra)
            curves.append(objective)
        return self._describe(units, starts, spectra, torch.stack(curves, 1), generators)

    def _differentiate(self, x: Tensor, units: Sequence[int], is_open: bool) -> tuple[Tensor, Tensor]:
        """Return the objective of each input, (N,), and its gradient by the input, both on the CPU."""
        response = self._record(x)
        signal = self.objective.make_signal(response.values, units)
        with ExitStack() as rules:
            rules.enter_context(attach_gradient_rules(response.edge.node, {}))
            if is_open:
                rules.enter_context(open_rectifiers(response.edge.node))
            (gradient,) = torch.autograd.grad([response.edge], [response.x], [signal])
        objective = (response.values * signal).flatten(1).sum(1)
        if not (objective.isfinite().all() and gradient.isfinite().all()):
            raise UserError("the output or its gradient is NaN or infinite, so that there is no ascent")
        return objective.cpu(), gradient.cpu()

    def _describe(
        self,
        units: Sequence[int],
        starts: Tensor,
        spectra: Tensor,
        curves: Tensor,
        generators: Sequence[torch.Generator],
    ) -> OptimisedImages:
        """Return the images with what they reach, and what noise reaches."""
        images = self.images
        pixels = images(spectra)
        objectives, maxima = self._evaluate(pixels, units)
        controls = [self._evaluate(images(starts), units)[0]]
        for _ in range(CONTROL_COUNT):
            noise = [images.scramble(s[None], g)[0] for s, g in zip(spectra, generators, strict=True)]
            controls.append(self._evaluate(images(torch.stack(noise)), units)[0])
        return OptimisedImages(
            images=pixels.numpy(),
            curves=curves.float().numpy(),
            objectives=objectives.numpy(),
            control_objectives=torch.stack(controls).amax(0).numpy(),
            maxima=maxima.numpy(),
        )

    def _evaluate(self, pixels: Tensor, units: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the objectives of images, (N,), and the maxima of all units over positions, (N, units)."""
        values = self._record(self.preprocess(pixels)).values
        if not values.isfinite().all():
            raise UserError("the output for an optimised image is NaN or infinite")
        objectives = (values * self.objective.make_signal(values, units)).flatten(1).sum(1)
        maxima = values.flatten(2).amax(2) if values.ndim > 2 else values
        return objectives.float().cpu(), maxima.float().cpu()

    def find_maxima(self, images: np.ndarray, units: Sequence[int]) -> np.ndarray:
        """Return the largest output over the positions of a unit's map, as measured over a data set, (N,).

        Images of another size than the network's input are repeated, or cut, to that size.

        Args:
            images: An image of each unit, (N, C, h, w) in 0..1.
            units: Numbers of the units.
        """
        _, height, width = self.preprocessing.shape
        maxima = []
        for image, unit in zip(torch.from_numpy(images), units, strict=True):
            x = self.preprocessing(255 * repeat_to_size(image[None], (height, width)))
            maxima.append(self._record(x).values[0, unit].max().float().cpu())
        return torch.stack(maxima).numpy()

    def preprocess(self, pixels: Tensor) -> Tensor:
        """Return the network's input of images of `size`, which are not resized.

        Args:
            pixels: Images (N, C, h, w) in 0..1.
        """
        return replace(self.preprocessing, size=self.size)(255 * pixels)

    def _is_batchable(self, unit: int) -> bool:
        """Return whether the outputs of an image are the same in a batch as alone."""
        generator = self._make_generator(unit)
        x = self.preprocess(self.images(torch.stack([self.images.draw(generator) for _ in range(2)])))
        alone = self._record(x[:1])
        try:
            together = self._record(x)
        except UserError:  # such as without a batch axis
            return False
        difference = (together.values[:1] - alone.values).abs().max()
        return not bool(difference > BATCH_TOLERANCE * alone.values.abs().max())

    def _record(self, x: Tensor) -> Response:
        return self.objective.record(x.to(self.device))

    def _make_generator(self, unit: int) -> torch.Generator:
        """Return the source of the randomness of a unit."""
        numbers = np.random.SeedSequence([self.seed, self.start, unit]).generate_state(1)
        return torch.Generator().manual_seed(int(numbers[0]))
