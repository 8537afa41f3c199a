"""Images of a split in batches of one fixed size, in their order, decoded ahead of the network by threads."""

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from convatlas import UserError
from convatlas.datasets import cache, formats
from convatlas.models.preprocessing import Preprocessing

log = logging.getLogger(__name__)

AHEAD = 3  # batches: one that the network runs, one that waits, one that is decoded


@dataclass(frozen=True)
class Batch:
    """Images of one place in the grid: their numbers in the split (n,), and pixels (n, C, H, W) uint8."""

    index: int
    numbers: np.ndarray
    pixels: np.ndarray


@dataclass
class Batches:
    """A split in batches of `size` images, the last one smaller, read as `preprocessing` takes them.

    Image files are decoded by `workers` threads, for Pillow decodes without Python's lock; what training
    has decoded and kept is read from there. An image that cannot be read is left out of its batch, logged
    and noted in `skipped` where `on_bad_image` is "skip"; where it is "stop" there is a UserError.
    """

    folder: str | Path
    split: str
    preprocessing: Preprocessing
    size: int
    on_bad_image: str = "stop"
    workers: int = 2
    skipped: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        how = self.preprocessing
        self.examples = formats.load(self.folder, self.split)
        self.size = max(1, min(self.size, len(self.examples)))
        self.in_files = self.examples.paths[:1] != [None]
        self.kept = (
            cache.kept(self.folder, self.split, how.mode, how.size, how.resize, how.interpolation)
            if self.in_files
            else None
        )

    def __len__(self) -> int:
        return -(-len(self.examples) // self.size)

    def read(self, indices: Iterable[int]) -> Iterator[Batch]:
        """Give the batches of these places in the grid."""
        with ThreadPoolExecutor(max(1, self.workers)) as pool:
            waiting: deque[tuple[int, list[Future[Any]]]] = deque()
            try:
                for index in indices:
                    waiting.append((index, self._begun(pool, index)))
                    if len(waiting) == AHEAD:
                        yield self._finished(*waiting.popleft())
                while waiting:
                    yield self._finished(*waiting.popleft())
            finally:
                pool.shutdown(cancel_futures=True)

    def _begun(self, pool: ThreadPoolExecutor, index: int) -> list[Future[Any]]:
        """Start to read a batch: an image at a time where it has to be decoded, else all at once."""
        numbers = range(index * self.size, min((index + 1) * self.size, len(self.examples)))
        if self.in_files and self.kept is None:
            return [pool.submit(self._decoded, n) for n in numbers]
        return [pool.submit(self._stored, numbers)]

    def _stored(self, numbers: range) -> np.ndarray:
        if self.kept is not None:
            return np.array(self.kept[numbers.start : numbers.stop])
        how = self.preprocessing
        return self.examples.pixels(how.mode, how.size, how.resize, numbers, how.interpolation)

    def _decoded(self, n: int) -> np.ndarray | UserError:
        how = self.preprocessing
        try:
            return self.examples.pixels(how.mode, how.size, how.resize, [n], how.interpolation)[0]
        except UserError as error:
            return error

    def _finished(self, index: int, parts: list[Future[Any]]) -> Batch:
        found = [part.result() for part in parts]
        first = index * self.size
        if not self.in_files or self.kept is not None:
            return Batch(index, np.arange(first, first + len(found[0])), found[0])
        numbers = [first + n for n, image in enumerate(found) if not self._bad(first + n, image)]
        how = self.preprocessing
        pixels = np.empty((len(numbers), len(how.mode), how.size, how.size), np.uint8)
        for place, n in enumerate(numbers):
            pixels[place] = found[n - first]
        return Batch(index, np.array(numbers, np.int64), pixels)

    def _bad(self, n: int, image: np.ndarray | UserError) -> bool:
        """Whether an image could not be read, which is noted, or stops the pass."""
        if not isinstance(image, UserError):
            return False
        if self.on_bad_image != "skip":
            key = f"datasets.{Path(self.folder).name}.on_bad_image"
            raise UserError(f"{image}; mend it, or set {key}: skip, which leaves it out")
        name = self.examples.names[n].encode(errors="surrogateescape").decode(errors="replace")
        self.skipped.append({"image": n, "name": name, "reason": str(image)})
        log.warning("left out: image %d, %s (%s)", n, name, image)
        return True
