"""Cats and dogs drawn by code: a stand-in for the Oxford-IIIT Pet data set that needs no download.

An animal is a set of round cones (two balls and the hull between them), posed and turned in space
and projected in parallel. Exact intersections with the view's rays give a height field, smooth
unions the outline. The coat is painted in the animal's own coordinates, so it turns with it.
Photographs and textures that scikit-image ships stand behind.
"""

from multiprocessing import Pool
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from convatlas.datasets.synthetic_pets.animal import BREEDS, Breed, Generator, choose_framing, pose_animal
from convatlas.datasets.synthetic_pets.scenery import compose, draw_scenery, simulate_camera
from convatlas.datasets.synthetic_pets.shading import draw_whiskers, render_animal

PET, BACKGROUND, BORDER = 1, 2, 3  # the official trimap's values
PROCESSES = 2  # that draw side by side: the threads of the rule


def draw_pets(folder: Path, count: int = 702, seed: int = 0) -> None:
    """Draw `count` animals into `folder`, in the official layout: images/ and annotations/.

    Every fifth of a breed is for testing. The same count and seed give the same files.
    """
    for name in ("images", "annotations/trimaps", "annotations/xmls"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    classes = sorted(BREEDS, key=str.lower)
    kin = {s: [name for name in classes if BREEDS[name].species == s] for s in ("cat", "dog")}
    lines: dict[str, list[str]] = {
        "list": [
            "#Image CLASS-ID SPECIES BREED ID",
            f"#ID: 1:{len(classes)} Class ids",
            "#SPECIES: 1:Cat 2:Dog",
            f"#BREED ID: 1-{len(kin['cat'])}:Cat 1:{len(kin['dog'])}:Dog",
            "#All images with 1st letter as captial are cat images",  # official, with its slip
            "#images with small first letter are dog images",
        ],
        "trainval": [],
        "test": [],
    }
    pets = []
    for number in range(count):
        label, nth = number % len(classes), number // len(classes)
        breed, name = BREEDS[classes[label]], f"{classes[label]}_{nth + 1}"
        pets.append((folder, name, breed, [seed, number]))
        is_dog, nth_of_kin = breed.species == "dog", kin[breed.species].index(classes[label])
        line = f"{name} {label + 1} {1 + is_dog} {1 + nth_of_kin}"
        for part in ("list", "test" if nth % 5 == 1 else "trainval"):
            lines[part].append(line)
    with Pool(PROCESSES) as pool:
        pool.starmap(_write_pet, pets)
    for part, content in lines.items():
        (folder / f"annotations/{part}.txt").write_text("\n".join(content) + "\n")


def _write_pet(folder: Path, name: str, breed: Breed, seed: list[int]) -> None:
    """Draw one animal and write its three files."""
    image, trimap, box = draw_pet(breed, np.random.default_rng(seed))
    image.save(folder / f"images/{name}.jpg", quality=90)
    trimap.save(folder / f"annotations/trimaps/{name}.png")
    (folder / f"annotations/xmls/{name}.xml").write_text(_format_voc(name, breed.species, image.size, box))


def _format_voc(name: str, species: str, size: tuple[int, int], box: tuple[int, ...]) -> str:
    """Describe the head's box (left, top, right, bottom) in Pascal VOC's manner."""
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return (
        f"<annotation><folder>OXIIIT</folder><filename>{name}.jpg</filename>"
        f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
        f"<segmented>0</segmented><object><name>{species}</name><pose>Frontal</pose><truncated>0</truncated>"
        f"<occluded>0</occluded><bndbox>{corners}</bndbox><difficult>0</difficult></object></annotation>\n"
    )


def draw_pet(breed: Breed, rng: Generator) -> tuple[Image.Image, Image.Image, tuple[int, ...]]:
    """Draw one animal: the photograph, its trimap, and the box of its head (left, top, right, bottom)."""
    size = rng.integers(160, 225, 2)
    animal = pose_animal(breed, rng)
    scale, origin = choose_framing(animal, size, rng)
    fine = float(np.clip(56 / scale, 1.15, 1.4))  # supersampling; what is large needs less of it
    animal = animal.to_pixels(fine * scale, fine * origin)
    drawing, on_head = render_animal(animal, breed, (size[::-1] * fine).astype(int), rng)
    pet = Image.fromarray(drawing, "RGBa").resize(size.tolist(), Image.Resampling.BOX)
    photograph = compose(pet, draw_scenery(size, pet.getbbox()[3], rng), rng)
    if breed.species == "cat":
        photograph = draw_whiskers(photograph, animal, fine, rng)
    box = tuple(int(edge / fine) + 1 for edge in (*on_head.min(axis=0), *on_head.max(axis=0)))
    return simulate_camera(photograph, rng), _compute_trimap(np.asarray(pet)[..., 3] > 127), box


def _compute_trimap(pet: np.ndarray) -> Image.Image:
    """Make the official trimap of a mask (H, W): the border is a band on either side of the outline."""
    band = ndimage.distance_transform_edt(pet) + ndimage.distance_transform_edt(~pet) <= 0.01 * sum(pet.shape)
    return Image.fromarray(np.where(band, BORDER, np.where(pet, PET, BACKGROUND)).astype(np.uint8))
