"""What a batch's maps of one layer come to: maxima, means, deviations and zeros, for every unit.

Each value is read a few times while it is in a cache. Several threads work side by side on a CPU.
"""

import math
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache
from threading import Barrier

import torch
from torch import Tensor

CHUNK = {"cpu": 2**18, "cuda": 2**24}  # values that are worked on at a time, in a buffer that fits a cache
VECTORS = 32  # values that torch takes at a time where it reduces channels that lie side by side

Axes = tuple[int, ...]


class Crew:
    """Threads that measure maps, a piece at a time, each in a buffer that fits a CPU's cache.

    Torch's own threads wait for each other in every operation, of which there are thousands a batch; these
    do so once a layer. A GPU needs none.
    """

    def __init__(self, device: torch.device, threads: int) -> None:
        self.room = CHUNK.get(device.type, CHUNK["cpu"])
        self.count = threads if device.type == "cpu" else 1
        self.buffers = torch.zeros(self.count, self.room, device=device)
        self.pool: ThreadPoolExecutor | None = None
        if self.count > 1:
            all_there = Barrier(self.count)
            self.pool = ThreadPoolExecutor(self.count, initializer=torch.set_num_threads, initargs=(1,))
            wait([self.pool.submit(all_there.wait) for _ in range(self.count)])
            torch.set_num_threads(threads)  # for threads that are yet to come

    def measure(self, pieces: list[Sequence[Tensor]], axes: Axes, sums: Axes) -> None:
        """Measure pieces of maps: the maximum along the third axis, the mean along `axes`, and along `sums`
        the sum of the squares about it and the number of zeros, into the pieces that are given for each.
        """
        todo = deque(zip(*pieces, strict=True))
        if self.pool is None or len(todo) == 1:
            return _measure(todo, axes, sums, self.buffers[0])
        busy = [self.pool.submit(_measure, todo, axes, sums, buffer) for buffer in self.buffers]
        for one in busy:
            one.result()
        return None


def _measure(todo: deque[tuple[Tensor, ...]], axes: Axes, sums: Axes, buffer: Tensor) -> None:
    """Measure one piece after the other, until there are none."""
    while todo:
        try:
            piece, top, mean, about, zeros = todo.popleft()
        except IndexError:  # another thread was faster
            return
        fits = piece.numel() <= len(buffer)
        worked = buffer[: piece.numel()].view(piece.shape) if fits else torch.empty_like(piece)
        torch.amax(piece, 2, keepdim=True, out=top)
        torch.mean(piece, axes, keepdim=True, out=mean)
        torch.ops.aten.mse_loss.out(piece, mean, 0, out=worked)  # each difference squared, in one pass
        torch.sum(worked, sums, keepdim=True, out=about)
        torch.eq(piece, 0, out=worked)
        torch.sum(worked, sums, keepdim=True, out=zeros)


@dataclass(frozen=True)
class Measured:
    """What a batch's maps of one layer come to.

    Of each map `most` and `means` (n, units) float32; over all of them the sum of the squares `about` those
    means (units,) float64, for a constant unit must not deviate by what rounds off its squares, and the
    number of `zeros` (units,) int64. `maps` are the maps themselves, (n, units, area), or, channels last,
    (n, blocks, size, units), with the maxima of the blocks, `tops` (n, blocks, beside, units).
    """

    most: Tensor
    means: Tensor
    about: Tensor
    zeros: Tensor
    maps: Tensor
    tops: Tensor | None = None

    @classmethod
    def of(cls, output: Tensor, crew: Crew) -> "Measured":
        """Measure maps (n, units, ...), as many values at a time as fit a cache."""
        maps = output.flatten(2)
        if maps.stride(1) == 1 < maps.shape[1] and maps.stride(2) == maps.shape[1]:
            return cls._channels_last(maps.transpose(1, 2), crew)
        return cls._by_unit(maps.contiguous(), crew)

    @classmethod
    def _by_unit(cls, maps: Tensor, crew: Crew) -> "Measured":
        """Of (n, units, area), maps that lie one behind the other. A map is never divided."""
        n, units, area = maps.shape
        step = max(1, crew.room // area)
        found = maps.new_empty(4, n, units, 1)
        crew.measure([_pieces(t, step // units, step) for t in (maps, *found)], (2,), (2,))
        most, means, about, zeros = found[..., 0]
        return cls(most, means, _total(about), _total(zeros).long(), maps)

    @classmethod
    def _channels_last(cls, maps: Tensor, crew: Crew) -> "Measured":
        """Of (n, area, units), maps whose values at one place lie side by side.

        Where the units do not fill a CPU's vectors, the values of several places `beside` each other are
        taken for those of so many times the units. What is left of a map in a piece is a strip.
        """
        n, area, units = maps.shape
        beside = _beside(units, area)
        lines, length = area // beside, beside * units
        block = _divisor(lines, math.isqrt(lines)) if beside == 1 else lines  # whose maximum is kept
        blocks, step = lines // block, max(1, crew.room // (block * length))
        images, parts = step // blocks, -(-blocks // step)
        pieces = _pieces(maps.reshape(n, blocks, block, length), images, step)
        tops = maps.new_empty(n, blocks, 1, length)
        strips = maps.new_empty(n, parts, 1, length)
        about, zeros = maps.new_empty(2, len(pieces), 1, 1, length)
        each = [_pieces(tops, images, step), _pieces(strips, images, 1), about.split(1), zeros.split(1)]
        crew.measure([pieces, *each], (1, 2), (0, 1, 2))

        tops, strips = tops.view(n, blocks, beside, units), strips.view(n, parts, beside, units)
        most, means = tops[:, :, 0] if beside == 1 else tops, strips[:, 0, 0]
        about = _total(about).view(beside, units).sum(0)
        if parts * beside > 1:  # squares about the map's mean, not its strips'
            sizes = [block * min(step, blocks - part * step) for part in range(parts)]
            weights = maps.new_tensor(sizes)[:, None, None]
            means = (strips * (weights / area)).sum((1, 2))
            about += _total((strips - means[:, None, None]).square_().mul_(weights).view(-1, units))
        return cls(
            _greatest(most.reshape(n, -1, units)),
            means,
            about,
            _total(zeros).view(beside, units).sum(0).long(),
            maps.reshape(n, blocks, -1, units),
            tops,
        )

    def places(self, images: Tensor, units: Tensor) -> Tensor:
        """The flat index of the maximum of some maps, (maps,); of equals the first."""
        if self.tops is None:
            return self.maps[images, units].argmax(1)
        block = self.tops[images, :, :, units].amax(2).argmax(1)
        return block * self.maps.shape[2] + self.maps[images, block, :, units].argmax(1)


def _total(values: Tensor) -> Tensor:
    """The sum along the first axis, in float64."""
    return values.sum(0, dtype=torch.float64)


def _greatest(values: Tensor) -> Tensor:
    """The maximum along the second axis, of a few values: half with half is fastest."""
    while (count := values.shape[1]) > 1:
        values = torch.maximum(values[:, : (count + 1) // 2], values[:, count // 2 :])
    return values[:, 0]


def _pieces(lines: Tensor, images: int, step: int) -> list[Tensor]:
    """Divide (n, lines, ...) into pieces of so many images, or, where that is 0, of so many lines of one."""
    if images:
        return list(lines.split(images))
    return [piece for image in lines.split(1) for piece in image.split(step, 1)]


@lru_cache
def _beside(units: int, area: int) -> int:
    """How many places to take for one, so that next to nothing is left of a line beyond whole vectors."""

    def left(places: int) -> float:
        return max(units * places % VECTORS / (units * places), 0.05)

    fitting = [n for n in range(1, area + 1) if area % n == 0 and (n == 1 or n * units <= 16 * VECTORS)]
    return min(fitting, key=lambda places: (left(places), places))


def _divisor(number: int, least: int) -> int:
    """The least divisor of a number that is at least so great."""
    return next(n for n in range(max(least, 1), number + 1) if number % n == 0)
