"""Thumbnails of a data set's images in the site: one file per image, for every page and network."""

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from convatlas import UserError
from convatlas.datasets import formats
from convatlas.datasets.base import ImageDataset
from convatlas.datasets.thumbnails import PAGE_SIDE, Thumbnail, make_thumbnail, read_thumbnails
from convatlas.records import DatasetDescription, Split

log = logging.getLogger(__name__)

MAX_WARNINGS = 5  # of images that cannot be read


@dataclass(frozen=True)
class PageThumbnail:
    """A thumbnail in the site.

    Attributes:
        path: Its place in the site.
        size: Its (width, height) in pixels.
        image_size: The (width, height) of the image itself.
        content: The content of its file.
    """

    path: str
    size: tuple[int, int]
    image_size: tuple[int, int]
    content: bytes


def load_split(data: Path, split: Split) -> ImageDataset | None:
    """Return a split of a data set; None, with a warning, where its files are gone.

    Args:
        data: The data set's folder, data/<name>.
        split: The split.
    """
    try:
        return formats.load(data, split)
    except UserError as error:
        log.warning("no thumbnails of %s images: %s", split, error)
        return None


class DatasetThumbnails:
    """The thumbnails of a split: those that are stored, and others each made once, when it is asked for.

    Args:
        name: The data set's name in the config.
        data: The data set's folder, data/<name>.
        previews: The folder of its previews, results/_datasets/<name>, which may hold thumbnails of the test
            split.
        description: dataset.json.
        split: The split.
    """

    def __init__(
        self, name: str, data: Path, previews: Path, description: DatasetDescription, split: Split
    ) -> None:
        self._name, self._data, self._previews, self._description = name, data, previews, description
        self.split = split
        self._thumbnails: dict[int, PageThumbnail | None] = {}
        self._n_failures = 0

    @cached_property
    def dataset(self) -> ImageDataset | None:
        """The split; None, with a warning, where its files are gone."""
        return load_split(self._data, self.split)

    @cached_property
    def _stored(self) -> dict[int, Thumbnail]:
        """The thumbnails of the previews, by the number of the image."""
        return read_thumbnails(self._previews) if self.split == "test" else {}

    def make(self, index: int) -> PageThumbnail | None:
        """Return the thumbnail of an image; None, with a warning, where it cannot be read.

        Args:
            index: The image's index in the split.
        """
        if index not in self._thumbnails:
            self._thumbnails[index] = self._make_thumbnail(index)
        return self._thumbnails[index]

    def _make_thumbnail(self, index: int) -> PageThumbnail | None:
        if self.dataset is None:
            return None
        try:
            thumbnail = self._stored.get(index) or make_thumbnail(
                self.dataset, index, self._description, PAGE_SIDE
            )
        except (UserError, LookupError) as error:  # LookupError: the data set has changed
            self._n_failures += 1
            level = logging.WARNING if self._n_failures <= MAX_WARNINGS else logging.DEBUG
            log.log(level, "no thumbnail of %s image %d: %s", self.split, index, error)
            return None
        path = f"thumbnails/{self._name}/{self.split}-{index:05d}{thumbnail.suffix}"
        return PageThumbnail(path, thumbnail.size, thumbnail.image_size, thumbnail.content)
