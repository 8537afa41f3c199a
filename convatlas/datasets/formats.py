"""The registry of data set formats, and what works with any of them.

To add a format, write a module with the attributes and functions of `DatasetFormat` and register it in
FORMATS, under its name in the config. The Snakemake rules and the gallery read what they have to know about a
format from these attributes. Then name the format where the config is checked, in convatlas/pipeline:
config.schema.yaml (`format` of a data set; the settings of a format are described there too),
`DatasetConfig` of config_types.py, and resources.py, which holds a copy of IMAGE_COUNT and INPUT_SIZE.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from convatlas import UserError
from convatlas.datasets import image_folder, mnist, oxford_pets
from convatlas.datasets.base import ImageDataset, read_description
from convatlas.pipeline.config_types import DatasetConfig
from convatlas.records import DatasetDescription


class DatasetFormat(Protocol):
    """What the module of a format provides.

    Attributes:
        TITLE: The name of the published data set, or what the format holds.
        LAYOUT: The layout under data/<name>/ in words, for the data set's page.
        MASK_CLASSES: The classes of the pixels, where each image has a mask; otherwise empty.
        CHANNELS: Channels of an image, 1 or 3.
        INPUT_SIZE: Height and width in pixels, where all images have the same; otherwise None.
        IMAGE_COUNT: Typical number of images, for resource requests before the data set is prepared.
        SOURCE_PATTERNS: Glob patterns in a source directory: a change of these files prepares the data anew.
        OUTPUT_FILES: Files that `prepare` writes under data/<name>/, besides dataset.json.
        OUTPUT_FOLDERS: Folders that `prepare` writes under data/<name>/.
        THREADS: Threads or processes that `prepare` uses.
        CODE_PATTERNS: Glob patterns in convatlas/ of the code that `prepare` imports only when it is called.
    """

    TITLE: str
    LAYOUT: str
    MASK_CLASSES: Sequence[str]
    CHANNELS: int
    INPUT_SIZE: int | None
    IMAGE_COUNT: int
    SOURCE_PATTERNS: Sequence[str]
    OUTPUT_FILES: Sequence[str]
    OUTPUT_FOLDERS: Sequence[str]
    THREADS: int
    CODE_PATTERNS: Sequence[str]

    def prepare(self, folder: Path, settings: DatasetConfig, key: str) -> None:
        """Write the data set's files or links to them, verify them, and write dataset.json last.

        Args:
            folder: The data set's folder, data/<name>.
            settings: The data set's section of the config, with all defaults filled in.
            key: The place of that section in the config, such as "datasets.pets", for error messages.
        """

    def list_classes(self, folder: Path, settings: DatasetConfig) -> list[str] | None:
        """Return the names of the classes, if they are known before the data set is prepared, else None.

        Args:
            folder: The data set's folder, data/<name>.
            settings: The data set's section of the config, with all defaults filled in.

        Raises:
            UserError: The source is missing or damaged.
        """

    def load(self, folder: Path, split: str) -> ImageDataset:
        """Return a split of a prepared data set; a SegmentationDataset where there are MASK_CLASSES.

        Args:
            folder: The data set's folder, data/<name>.
            split: "train" or "test".
        """


FORMATS: Mapping[str, DatasetFormat] = {
    "mnist": mnist,
    "oxford-iiit-pet": oxford_pets,
    "images": image_folder,
}


def prepare(folder: str | Path, settings: DatasetConfig, key: str) -> None:
    """Prepare a data set: write its files or links to them, verify them, and write dataset.json last.

    A data set that is there already is replaced only once the new one is verified.

    Args:
        folder: The data set's folder, data/<name>.
        settings: The data set's section of the config, with all defaults filled in.
        key: The place of that section in the config, such as "datasets.pets", for error messages.

    Raises:
        UserError: The source is missing, incomplete or damaged, or cannot be downloaded.
    """
    find_format(settings["format"], f"{key}.format").prepare(Path(folder), settings, key)


def list_known_classes(folder: str | Path, settings: DatasetConfig) -> list[str] | None:
    """Return the names of a data set's classes before it is prepared; None where they are not known.

    Args:
        folder: The data set's folder, data/<name>.
        settings: The data set's section of the config, with all defaults filled in.
    """
    with suppress(UserError):  # which its own job reports
        return find_format(settings["format"], "format").list_classes(Path(folder), settings)
    return None


def describe(folder: str | Path) -> DatasetDescription:
    """Return the description of a prepared data set, its dataset.json.

    Args:
        folder: The data set's folder, data/<name>.

    Raises:
        UserError: The data set is not prepared, or dataset.json is damaged.
    """
    return read_description(folder)


def load(folder: str | Path, split: str) -> ImageDataset:
    """Return a split of a prepared data set.

    Args:
        folder: The data set's folder, data/<name>.
        split: "train" or "test".

    Raises:
        UserError: The data set is not prepared, or its files are damaged.
    """
    name = describe(folder)["format"]
    return find_format(name, f"{Path(folder) / 'dataset.json'}: format").load(Path(folder), split)


def mask_classes(description: DatasetDescription) -> list[str]:
    """Return the classes of the pixels of a data set's masks; empty where it has no masks.

    Args:
        description: The data set's dataset.json.
    """
    dataset_format = FORMATS.get(description["format"])
    return list(dataset_format.MASK_CLASSES) if dataset_format else []


def has_masks(description: DatasetDescription) -> bool:
    """Return whether each image of a data set has a mask: the class of each pixel.

    Args:
        description: The data set's dataset.json.
    """
    return bool(mask_classes(description))


def find_format(name: str, key: str) -> DatasetFormat:
    """Return the format of this name.

    Args:
        name: A key of FORMATS.
        key: Where the name was given, for the error message.

    Raises:
        UserError: There is no such format.
    """
    if name not in FORMATS:
        raise UserError(f"{key}: unknown {name!r}; there are: {', '.join(FORMATS)}")
    return FORMATS[name]
