"""The images of a split in batches of a fixed size, in order, decoded ahead of the network by threads."""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from convatlas import UserError
from convatlas.datasets import cache, formats
from convatlas.models.preprocessing import Preprocessing
from convatlas.names import make_printable
from convatlas.records import SkippedImage

log = logging.getLogger(__name__)

PREFETCH_BATCHES = 3  # one that the network runs, one that waits, one that is being decoded

BatchFuture = Future[np.ndarray]  # pixels (n, C, H, W)
ImageFuture = Future[np.ndarray | UserError]  # pixels (C, H, W), or why they cannot be read


@dataclass(frozen=True)
class Batch:
    """A batch: its index, the indices of its images in the split (n,), and pixels (n, C, H, W)."""

    index: int
    indices: np.ndarray
    pixels: np.ndarray


@dataclass
class BatchLoader:
    """A split in batches of `batch_size` images, the last one smaller.

    Image files are decoded by `workers` threads, since Pillow releases the interpreter's lock; images that
    training has decoded and cached are read from the cache.

    Attributes:
        folder: The data set's folder, data/<name>.
        split: "train" or "test".
        preprocessing: The channels, range and size at which the network takes images.
        batch_size: Images in a batch; reduced to the number of images of the split.
        on_bad_image: What to do with an image that cannot be read: "error" raises a UserError, "skip" leaves
            it out of its batch.
        workers: Threads that decode.
        skipped: The skipped images, filled in while batches are read.
    """

    folder: str | Path
    split: str
    preprocessing: Preprocessing
    batch_size: int
    on_bad_image: str = "error"
    workers: int = 2
    skipped: list[SkippedImage] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dataset = formats.load(self.folder, self.split)
        self.batch_size = max(1, min(self.batch_size, len(self.dataset)))
        self._cached: np.ndarray | None = None
        if self.dataset.has_image_files:
            target = self.preprocessing
            self._cached = cache.find_cached_images(
                self.folder, self.split, target.pixel_format, target.size, target.resize, target.interpolation
            )
        self._has_to_decode = self.dataset.has_image_files and self._cached is None

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self.dataset) // self.batch_size)

    def read_batches(self, indices: Iterable[int]) -> Iterator[Batch]:
        """Yield the batches of these indices, in this order.

        Args:
            indices: Numbers of batches, from 0 to `len(self)` - 1.

        Raises:
            UserError: An image cannot be read and `on_bad_image` is "error".
        """
        with ThreadPoolExecutor(max(1, self.workers)) as pool:
            pending: deque[tuple[int, BatchFuture | list[ImageFuture]]] = deque()
            try:
                for index in indices:
                    pending.append((index, self._submit(pool, self._image_range(index))))
                    if len(pending) == PREFETCH_BATCHES:
                        yield self._collect(*pending.popleft())
                while pending:
                    yield self._collect(*pending.popleft())
            finally:
                pool.shutdown(cancel_futures=True)

    def _image_range(self, index: int) -> range:
        """Return the indices in the split of a batch's images."""
        start = index * self.batch_size
        return range(start, min(start + self.batch_size, len(self.dataset)))

    def _submit(self, pool: ThreadPoolExecutor, images: range) -> BatchFuture | list[ImageFuture]:
        """Start to read a batch: image by image where they have to be decoded, otherwise all at once."""
        if self._has_to_decode:
            return [pool.submit(self._decode, n) for n in images]
        return pool.submit(self._read_range, images)

    def _read_range(self, images: range) -> np.ndarray:
        """Read consecutive images from the cache, or from a format that has no image files."""
        if self._cached is not None:
            return np.array(self._cached[images.start : images.stop])
        return self._read_images(images)

    def _decode(self, n: int) -> np.ndarray | UserError:
        """Decode an image, or return why it cannot be read."""
        try:
            pixels: np.ndarray = self._read_images([n])[0]
        except UserError as error:
            return error
        return pixels

    def _read_images(self, images: Sequence[int]) -> np.ndarray:
        """Read images as the network takes them."""
        target = self.preprocessing
        return self.dataset.read_images(
            target.pixel_format, target.size, target.resize, images, target.interpolation
        )

    def _collect(self, index: int, reading: BatchFuture | list[ImageFuture]) -> Batch:
        """Wait for the images of a batch, without those that are skipped."""
        images = self._image_range(index)
        if isinstance(reading, Future):
            return Batch(index, np.arange(images.start, images.stop), reading.result())
        decoded = dict(zip(images, (future.result() for future in reading), strict=True))
        usable = {n: image for n, image in decoded.items() if not isinstance(image, UserError)}
        for n, image in decoded.items():
            if isinstance(image, UserError):
                self._skip_or_raise(n, image)
        target = self.preprocessing
        dtype = self.dataset.get_dtype(target.pixel_format)
        pixels = np.empty((len(usable), *target.shape), dtype)
        for position, image in enumerate(usable.values()):
            pixels[position] = image
        return Batch(index, np.array(list(usable), np.int64), pixels)

    def _skip_or_raise(self, n: int, error: UserError) -> None:
        """Note and log an image that cannot be read, or raise the error."""
        if self.on_bad_image != "skip":
            key = f"datasets.{Path(self.folder).name}.on_bad_image"
            raise UserError(f"{error}; fix it, or set {key}: skip, which skips it")
        name = make_printable(self.dataset.names[n])
        self.skipped.append({"image": n, "name": name, "reason": str(error)})
        log.warning("skipped: image %d, %s (%s)", n, name, error)
