"""The test images that the page of a network's errors shows, with thumbnails from the data set's files."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from convatlas.gallery.dataset_thumbnails import DatasetThumbnails
from convatlas.names import make_printable
from convatlas.records import DatasetDescription, ImagePrediction

MAX_IMAGES = 200  # on a page
MAX_BYTES = 100_000  # of the thumbnails of a page; those beyond are left out


@dataclass(frozen=True)
class PredictedImage:
    """A test image with what a network predicts for it.

    Attributes:
        row: Its row of predictions.csv.
        file: The name of its file; "" where it has none of its own.
        thumbnail: The path of its thumbnail in the site; "" where it cannot be read.
        size: The thumbnail's (width, height) in pixels.
    """

    row: ImagePrediction
    file: str
    thumbnail: str
    size: tuple[int, int]


class ImageSheet:
    """The images of a page, each once, as far as there is room.

    Args:
        name: The data set's name in the config.
        data: The data set's folder, data/<name>.
        previews: The folder of its previews, results/_datasets/<name>.
        description: dataset.json.
    """

    def __init__(self, name: str, data: Path, previews: Path, description: DatasetDescription) -> None:
        self._source = DatasetThumbnails(name, data, previews, description, "test")
        self._images: dict[int, PredictedImage] = {}
        self._bytes = 0
        self.thumbnails: dict[str, bytes] = {}

    @property
    def subclasses(self) -> Sequence[str] | None:
        """The finer class of each test image; None without any."""
        return self._source.dataset.subclasses if self._source.dataset else None

    @property
    def is_full(self) -> bool:
        """Whether no image can be added."""
        return len(self._images) >= MAX_IMAGES or self._bytes >= MAX_BYTES

    def add(self, rows: Iterable[ImagePrediction]) -> list[PredictedImage]:
        """Add images in order of importance, as far as there is room.

        Args:
            rows: Rows of predictions.csv.

        Returns:
            Those of them that are on the page.
        """
        rows = list(rows)
        for row in rows:
            if row["index"] not in self._images and not self.is_full:
                self._images[row["index"]] = self._make_image(row)
        return self.select(rows)

    def select(self, rows: Iterable[ImagePrediction]) -> list[PredictedImage]:
        """Return those of these images that are on the page.

        Args:
            rows: Rows of predictions.csv.
        """
        return [self._images[row["index"]] for row in rows if row["index"] in self._images]

    def _make_image(self, row: ImagePrediction) -> PredictedImage:
        """Make the thumbnail of an image."""
        file = make_printable(PurePosixPath(row["file"]).name) if row["file"] else ""
        thumbnail = self._source.make(row["index"])
        if thumbnail is None:
            return PredictedImage(row, file, "", (0, 0))
        self.thumbnails[thumbnail.path] = thumbnail.content
        self._bytes += len(thumbnail.content)
        return PredictedImage(row, file, thumbnail.path, thumbnail.size)
