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

PREFETCH_BATCHES = 3  # batches: one that the network runs, one that waits, one that is decoded


@dataclass(frozen=True)
class Batch:
    """Images of one place in the grid: their numbers in the split (n,), and pixels (n, C, H, W) uint8."""

    index: int
    indices: np.ndarray
    pixels: np.ndarray


@dataclass
class BatchLoader:
    """A split in batches of `size` images, the last one smaller, read as `preprocessing` takes them.

    Image files are decoded by `workers` threads, for Pillow decodes without Python's lock; what training
    has decoded and kept is read from there. An image that cannot be read is left out of its batch, logged
    and noted in `skipped` where `on_bad_image` is "skip"; where it is "error" there is a UserError.
    """

    folder: str | Path
    split: str
    preprocessing: Preprocessing
    batch_size: int
    on_bad_image: str = "error"
    workers: int = 2
    skipped: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        how = self.preprocessing
        self.dataset = formats.load(self.folder, self.split)
        self.batch_size = max(1, min(self.batch_size, len(self.dataset)))
        self.has_image_files = self.dataset.paths[:1] != [None]
        self.cached = (
            cache.find_cached_images(
                self.folder, self.split, how.mode, how.size, how.resize, how.interpolation
            )
            if self.has_image_files
            else None
        )

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def read_batches(self, indices: Iterable[int]) -> Iterator[Batch]:
        """Give the batches of these places in the grid."""
        with ThreadPoolExecutor(max(1, self.workers)) as pool:
            waiting: deque[tuple[int, list[Future[Any]]]] = deque()
            try:
                for index in indices:
                    waiting.append((index, self._submit(pool, index)))
                    if len(waiting) == PREFETCH_BATCHES:
                        yield self._collect(*waiting.popleft())
                while waiting:
                    yield self._collect(*waiting.popleft())
            finally:
                pool.shutdown(cancel_futures=True)

    def _submit(self, pool: ThreadPoolExecutor, index: int) -> list[Future[Any]]:
        """Start to read a batch: an image at a time where it has to be decoded, else all at once."""
        numbers = range(index * self.batch_size, min((index + 1) * self.batch_size, len(self.dataset)))
        if self.has_image_files and self.cached is None:
            return [pool.submit(self._decode, n) for n in numbers]
        return [pool.submit(self._read_range, numbers)]

    def _read_range(self, numbers: range) -> np.ndarray:
        if self.cached is not None:
            return np.array(self.cached[numbers.start : numbers.stop])
        how = self.preprocessing
        return self.dataset.read_images(how.mode, how.size, how.resize, numbers, how.interpolation)

    def _decode(self, n: int) -> np.ndarray | UserError:
        how = self.preprocessing
        try:
            return self.dataset.read_images(how.mode, how.size, how.resize, [n], how.interpolation)[0]
        except UserError as error:
            return error

    def _collect(self, index: int, parts: list[Future[Any]]) -> Batch:
        found = [part.result() for part in parts]
        first = index * self.batch_size
        if not self.has_image_files or self.cached is not None:
            return Batch(index, np.arange(first, first + len(found[0])), found[0])
        numbers = [first + n for n, image in enumerate(found) if not self._skip_or_raise(first + n, image)]
        how = self.preprocessing
        pixels = np.empty((len(numbers), len(how.mode), how.size, how.size), np.uint8)
        for place, n in enumerate(numbers):
            pixels[place] = found[n - first]
        return Batch(index, np.array(numbers, np.int64), pixels)

    def _skip_or_raise(self, n: int, image: np.ndarray | UserError) -> bool:
        """Whether an image could not be read, which is noted, or stops the pass."""
        if not isinstance(image, UserError):
            return False
        if self.on_bad_image != "skip":
            key = f"datasets.{Path(self.folder).name}.on_bad_image"
            raise UserError(f"{image}; mend it, or set {key}: skip, which leaves it out")
        name = self.dataset.names[n].encode(errors="surrogateescape").decode(errors="replace")
        self.skipped.append({"image": n, "name": name, "reason": str(image)})
        log.warning("left out: image %d, %s (%s)", n, name, image)
        return True
