"""Draw cats and dogs, with trimaps, in the layout of Oxford-IIIT Pet.

An animal is a set of round cones (two balls and their convex hull), posed and rotated in space and projected
in parallel. Exact intersections with the rays of the view give a height field, smooth unions the outline. The
fur is painted in the coordinates of the body, so it turns with the animal. The background consists of
photographs and textures that scikit-image ships.
"""

from multiprocessing import Pool
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from convatlas.datasets.synthetic_pets.backgrounds import compose, draw_scenery, simulate_camera
from convatlas.datasets.synthetic_pets.breeds import BREEDS, Breed
from convatlas.datasets.synthetic_pets.shading import draw_whiskers, render_animal
from convatlas.datasets.synthetic_pets.skeleton import Generator, choose_framing, pose_animal
from convatlas.datasets.trimaps import BACKGROUND, BORDER, PET

PROCESSES = 2  # as many as oxford_pets.THREADS requests
TEST_EVERY = 5  # of each breed one image in five is a test image


def draw_pets(folder: Path, count: int = 702, seed: int = 0) -> None:
    """Draw animals in the official layout, images/ and annotations/.

    Args:
        folder: The folder to write into.
        count: Number of images, distributed over the breeds in turn.
        seed: The same count and seed give the same files.
    """
    for name in ("images", "annotations/trimaps", "annotations/xmls"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    classes = sorted(BREEDS, key=str.lower)
    species_breeds = {
        species: [name for name in classes if BREEDS[name].species == species] for species in ("cat", "dog")
    }
    lines: dict[str, list[str]] = {
        "list": [
            "#Image CLASS-ID SPECIES BREED ID",
            f"#ID: 1:{len(classes)} Class ids",
            "#SPECIES: 1:Cat 2:Dog",
            f"#BREED ID: 1-{len(species_breeds['cat'])}:Cat 1:{len(species_breeds['dog'])}:Dog",
            "#All images with 1st letter as captial are cat images",  # the typo is in the official list
            "#images with small first letter are dog images",
        ],
        "trainval": [],
        "test": [],
    }
    pets = []
    for index in range(count):
        label, breed_index = index % len(classes), index // len(classes)
        breed, name = BREEDS[classes[label]], f"{classes[label]}_{breed_index + 1}"
        pets.append((folder, name, breed, [seed, index]))
        species_number = 2 if breed.species == "dog" else 1
        breed_number = 1 + species_breeds[breed.species].index(classes[label])
        line = f"{name} {label + 1} {species_number} {breed_number}"
        for part in ("list", "test" if breed_index % TEST_EVERY == 1 else "trainval"):
            lines[part].append(line)
    with Pool(PROCESSES) as pool:
        pool.starmap(_write_pet, pets)
    for part, content in lines.items():
        (folder / f"annotations/{part}.txt").write_text("\n".join(content) + "\n", encoding="utf-8")


def _write_pet(folder: Path, name: str, breed: Breed, seed: list[int]) -> None:
    """Draw one animal and write its three files."""
    image, trimap, box = draw_pet(breed, np.random.default_rng(seed))
    image.save(folder / f"images/{name}.jpg", quality=90)
    trimap.save(folder / f"annotations/trimaps/{name}.png")
    annotation = _format_voc(name, breed.species, image.size, box)
    (folder / f"annotations/xmls/{name}.xml").write_text(annotation, encoding="utf-8")


def _format_voc(name: str, species: str, size: tuple[int, int], box: tuple[int, ...]) -> str:
    """Format the head's box (left, top, right, bottom) as an annotation of Pascal VOC."""
    names = ("xmin", "ymin", "xmax", "ymax")
    corners = "".join(f"<{name}>{value}</{name}>" for name, value in zip(names, box, strict=True))
    return (
        f"<annotation><folder>OXIIIT</folder><filename>{name}.jpg</filename>"
        f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
        f"<segmented>0</segmented><object><name>{species}</name><pose>Frontal</pose><truncated>0</truncated>"
        f"<occluded>0</occluded><bndbox>{corners}</bndbox><difficult>0</difficult></object></annotation>\n"
    )


def draw_pet(breed: Breed, rng: Generator) -> tuple[Image.Image, Image.Image, tuple[int, ...]]:
    """Draw one animal.

    Args:
        breed: Its breed.
        rng: Draws everything that varies between two animals of a breed.

    Returns:
        The photograph, its trimap, and the bounding box (left, top, right, bottom) of the head in pixels,
        from 1.
    """
    size = rng.integers(160, 225, 2)
    animal = pose_animal(breed, rng)
    scale, origin = choose_framing(animal, size, rng)
    fine = float(np.clip(56 / scale, 1.15, 1.4))  # supersampling: large animals need less
    animal = animal.to_pixels(fine * scale, fine * origin)
    drawing, on_head = render_animal(animal, breed, (size[::-1] * fine).astype(int), rng)
    pet = Image.fromarray(drawing, "RGBa").resize(size.tolist(), Image.Resampling.BOX)
    pet_box = pet.getbbox()
    assert pet_box is not None  # choose_framing places the head in the image
    photograph = compose(pet, draw_scenery(size, pet_box[3], rng), rng)
    if breed.species == "cat":
        photograph = draw_whiskers(photograph, animal, fine, rng)
    box = tuple(int(edge / fine) + 1 for edge in (*on_head.min(axis=0), *on_head.max(axis=0)))
    return simulate_camera(photograph, rng), _compute_trimap(np.asarray(pet)[..., 3] > 127), box


def _compute_trimap(pet: np.ndarray) -> Image.Image:
    """Return the trimap of a mask (H, W): the border is a band on both sides of the outline."""
    band = ndimage.distance_transform_edt(pet) + ndimage.distance_transform_edt(~pet) <= 0.01 * sum(pet.shape)
    return Image.fromarray(np.where(band, BORDER, np.where(pet, PET, BACKGROUND)).astype(np.uint8))
