"""The registry of formats: what every format provides, and that a new one is registered in one place."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from convatlas import UserError
from convatlas.datasets import base, cache, formats
from convatlas.datasets.base import IGNORE_INDEX, ImageDataset, SegmentationDataset
from convatlas.pipeline.config import SCHEMA_PATH
from tests.support.mnist_source import FILES, write_source
from tests.support.pets_source import write_pets_source


@pytest.mark.parametrize("name", ["mnits", "pets"])
def test_an_unknown_format_is_reported(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        UserError, match=f"datasets.d.format: unknown '{name}'.*mnist, oxford-iiit-pet, images"
    ):
        formats.prepare(tmp_path / "data", {"format": name}, "datasets.d")
    assert not (tmp_path / "data").exists()


def test_a_data_set_that_is_not_prepared_is_reported(tmp_path: Path) -> None:
    for read in (lambda: formats.describe(tmp_path), lambda: formats.load(tmp_path, "train")):
        with pytest.raises(UserError, match=r"dataset\.json is missing"):
            read()


def test_the_schema_allows_the_registered_formats() -> None:
    schema = yaml.safe_load(SCHEMA_PATH.read_text())
    assert schema["$defs"]["dataset"]["properties"]["format"]["enum"] == list(formats.FORMATS)


@pytest.mark.parametrize("name", formats.FORMATS)
def test_a_format_provides_all_attributes(name: str) -> None:
    module = formats.FORMATS[name]
    for attribute in formats.DatasetFormat.__annotations__:
        assert hasattr(module, attribute), f"{name} lacks {attribute}"
    assert module.CHANNELS in (1, 3)
    assert module.THREADS >= 1
    for pattern in module.CODE_PATTERNS:
        assert list(Path(formats.__file__).parents[1].glob(pattern)), pattern


TINY_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c6360000000020001e527d4a20000000049454e44ae426082"
)


def write_image_source(folder: Path) -> None:
    """Write two classes of images."""
    for name in ("ant", "bee"):
        (folder / name).mkdir(parents=True)
        for n in range(2):
            image_file = folder / f"{name}/{n}.png"
            image_file.write_bytes(TINY_PNG)


WRITE_SOURCE = {
    "mnist": lambda folder: write_source(folder, FILES),
    "oxford-iiit-pet": write_pets_source,
    "images": write_image_source,
}


def prepare_from_directory(name: str, folder: Path) -> Path:
    """Prepare a small data set of a format in folder/data; return its source, folder/source."""
    source = folder / "source"
    if not source.exists():
        WRITE_SOURCE[name](source)
    settings = {
        "format": name,
        "source": str(source),
        "mirrors": [],
        "target": "breed",
        "test_share": 0.5,
        "on_bad_image": "error",
    }
    formats.prepare(folder / "data", settings, "datasets.d")
    return source


@pytest.mark.parametrize("name", formats.FORMATS)
def test_a_format_writes_its_output_files_and_watches_files_of_the_source(name: str, tmp_path: Path) -> None:
    source = prepare_from_directory(name, tmp_path)
    module, data = formats.FORMATS[name], tmp_path / "data"
    assert formats.describe(data)["format"] == name
    for file in module.OUTPUT_FILES:
        assert (data / file).is_file(), file
    for folder in module.OUTPUT_FOLDERS:
        assert (data / folder).is_dir(), folder
    assert [path for pattern in module.SOURCE_PATTERNS for path in source.glob(pattern)]


@pytest.mark.parametrize("name", formats.FORMATS)
def test_an_interrupted_preparation_leaves_no_description(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A description that remained would describe the files that were replaced."""

    def interrupt(path: Path, value: object) -> None:
        raise KeyboardInterrupt

    prepare_from_directory(name, tmp_path)
    monkeypatch.setattr(base, "write_json", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare_from_directory(name, tmp_path)
    assert not (tmp_path / "data/dataset.json").exists()


@pytest.mark.parametrize("name", formats.FORMATS)
def test_a_format_has_masks_where_it_has_classes_of_pixels(name: str, tmp_path: Path) -> None:
    prepare_from_directory(name, tmp_path)
    description = formats.describe(tmp_path / "data")
    dataset = formats.load(tmp_path / "data", "test")
    assert isinstance(dataset, SegmentationDataset) is formats.has_masks(description)
    assert formats.has_masks(description) is (name == "oxford-iiit-pet")
    assert formats.mask_classes(description) == list(formats.FORMATS[name].MASK_CLASSES)
    if not formats.has_masks(description):
        with pytest.raises(TypeError, match="no masks"):
            cache.load_masks(tmp_path / "data", "test", (8, 8), "stretch")


def test_the_classes_of_masks_are_those_of_the_trimaps(tmp_path: Path) -> None:
    prepare_from_directory("oxford-iiit-pet", tmp_path)
    classes = formats.mask_classes(formats.describe(tmp_path / "data"))
    assert classes == ["pet", "background", "border"]
    dataset = formats.load(tmp_path / "data", "test")
    trimap = np.asarray(dataset.read_trimap(0).resize((16, 16), 0))
    np.testing.assert_array_equal(dataset.read_mask(0, (16, 16), "stretch") + 1, trimap)
    padded = dataset.read_mask(0, (64, 64), 16)
    assert (padded == IGNORE_INDEX).any() and padded[32, 32] in (0, 1, 2)


def test_a_new_format_is_registered_in_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Preparing, describing and loading work for any module that is registered."""

    def prepare(folder: Path, settings: dict, key: str) -> None:
        folder.mkdir()
        (folder / "dataset.json").write_text('{"format": "blank", "sha256": "00"}')

    def load(folder: Path, split: str) -> ImageDataset:
        return ImageDataset(np.zeros(2, np.int64), [f"{split}-0", f"{split}-1"], [None, None])

    module = SimpleNamespace(prepare=prepare, load=load, MASK_CLASSES=["ink", "paper"])
    monkeypatch.setattr(formats, "FORMATS", {"blank": module})
    formats.prepare(tmp_path / "data", {"format": "blank"}, "datasets.d")
    assert formats.has_masks(formats.describe(tmp_path / "data"))
    assert formats.mask_classes(formats.describe(tmp_path / "data")) == ["ink", "paper"]
    assert formats.load(tmp_path / "data", "test").names == ["test-0", "test-1"]


def test_formats_need_neither_torch_nor_scipy() -> None:
    """Snakemake reads the attributes of the formats, and the data jobs start quickly."""
    program = (
        "import sys, convatlas.datasets.formats; "
        "print(*{'torch', 'torchvision', 'scipy', 'sklearn', 'skimage'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
