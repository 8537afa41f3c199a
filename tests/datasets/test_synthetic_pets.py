"""The synthetic pets: their layout and annotations, and that colour alone does not segment them."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.ensemble import HistGradientBoostingClassifier
from torchvision.datasets import OxfordIIITPet

from convatlas.datasets.synthetic_pets.breeds import BREEDS
from convatlas.datasets.synthetic_pets.generate import draw_pets
from convatlas.datasets.trimaps import BORDER, PET

IMAGES_PER_BREED = 10  # two of them test images
COUNT = IMAGES_PER_BREED * len(BREEDS)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic")
    (root / "oxford-iiit-pet").mkdir()
    draw_pets(root / "oxford-iiit-pet", COUNT)
    return root


def read_with_torchvision(root: Path, split: str) -> OxfordIIITPet:
    """Return a split as torchvision reads it."""
    return OxfordIIITPet(root, split, target_types=("category", "binary-category", "segmentation"))


def read_list(root: Path, part: str) -> list[list[str]]:
    """Return the columns of a list: name, breed, species, breed of the species."""
    lines = (root / f"oxford-iiit-pet/annotations/{part}.txt").read_text().splitlines()
    return [line.split() for line in lines if not line.startswith("#")]


def test_torchvision_reads_it(root: Path) -> None:
    for split, breed_count in (("trainval", 8), ("test", 2)):
        dataset = read_with_torchvision(root, split)
        assert len(dataset) == breed_count * len(BREEDS)
        examples = [targets for _, targets in dataset]
        assert np.bincount([category for category, _, _ in examples]).tolist() == [breed_count] * len(BREEDS)
        for (image, (category, species, trimap)), (name, label, species_number, _) in zip(
            dataset, read_list(root, split), strict=True
        ):
            assert image.size == trimap.size and 160 <= min(image.size) <= max(image.size) <= 260
            assert (category, species) == (int(label) - 1, int(species_number) - 1)
            assert dataset.classes[category] == name.rsplit("_", 1)[0].replace("_", " ").title()
            assert name[0].isupper() == (dataset.bin_classes[species] == "Cat")


def test_the_splits_partition_the_list(root: Path) -> None:
    parts = [{name for name, *_ in read_list(root, part)} for part in ("trainval", "test")]
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == {name for name, *_ in read_list(root, "list")}
    numbers = {(label, species_number, breed) for _, label, species_number, breed in read_list(root, "list")}
    assert len(numbers) == len({label for label, _, _ in numbers}) == len(BREEDS)


def test_a_border_lies_between_pet_and_background(root: Path) -> None:
    for _, (_, _, image) in read_with_torchvision(root, "trainval"):
        trimap = np.asarray(image)
        assert set(np.unique(trimap)) == {1, 2, 3}
        assert not (ndimage.binary_dilation(trimap == 1, iterations=2) & (trimap == 2)).any()
        assert 0.02 < (trimap == 1).mean() < 0.85


def test_the_head_is_in_the_image_and_on_the_pet(root: Path) -> None:
    folder = root / "oxford-iiit-pet/annotations"
    for name, _, species_number, _ in read_list(root, "list"):
        trimap = np.asarray(Image.open(folder / f"trimaps/{name}.png"))
        annotation = ElementTree.parse(folder / f"xmls/{name}.xml").getroot()
        size = tuple(int(annotation.findtext(f"size/{side}")) for side in ("height", "width"))
        assert size == trimap.shape
        assert annotation.findtext("object/name") == ("cat", "dog")[int(species_number) - 1]
        x0, y0, x1, y1 = (
            int(annotation.findtext(f"object/bndbox/{edge}")) for edge in ("xmin", "ymin", "xmax", "ymax")
        )
        assert 1 <= x0 < x1 <= trimap.shape[1] and 1 <= y0 < y1 <= trimap.shape[0]
        assert max(x1 - x0, y1 - y0) > 0.2 * min(trimap.shape)
        assert (trimap[y0 - 1 : y1, x0 - 1 : x1] != 2).mean() > 0.5


def test_the_same_seed_draws_the_same_files(root: Path, tmp_path: Path) -> None:
    draw_pets(tmp_path, 3)
    names = [name for name, *_ in read_list(root, "list")][:3]
    for name in (f"{stem}.{suffix}" for suffix in ("jpg", "png", "xml") for stem in names):
        place = {"jpg": "images", "png": "annotations/trimaps", "xml": "annotations/xmls"}[name[-3:]]
        again, before = tmp_path / place / name, root / "oxford-iiit-pet" / place / name
        assert again.read_bytes() == before.read_bytes()
    draw_pets(tmp_path, 1, seed=1)
    other = f"images/{names[0]}.jpg"
    assert (tmp_path / other).read_bytes() != (root / "oxford-iiit-pet" / other).read_bytes()


def collect_pixels(dataset: OxfordIIITPet, side: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Return colour and position (N, 5) of the pixels outside the border, and whether they are pet (N,)."""
    position = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1)
    features, pet = [], []
    for image, (_, _, trimap) in dataset:
        trimap_values = np.asarray(trimap.resize((side, side), Image.Resampling.NEAREST))
        known = trimap_values != BORDER
        features.append(np.concatenate([np.asarray(image.resize((side, side))), position], axis=-1)[known])
        pet.append(trimap_values[known] == PET)
    return np.concatenate(features), np.concatenate(pet)


def test_colour_and_position_do_not_give_the_pet_away(root: Path) -> None:
    model = HistGradientBoostingClassifier(random_state=0).fit(
        *collect_pixels(read_with_torchvision(root, "trainval"))
    )
    features, pet = collect_pixels(read_with_torchvision(root, "test"))
    prediction = model.predict(features)
    assert 0.2 < (prediction & pet).sum() / (prediction | pet).sum() <= 0.55
