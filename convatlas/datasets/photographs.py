"""Real photographs that need no download: square crops of those that scikit-image and scikit-learn ship."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from convatlas import UserError
from convatlas.datasets.base import SourceDescription, remove_description
from convatlas.datasets.image_files import ImageFacts, ImageRecord, hash_files, write_metadata
from convatlas.files import atomic_write
from convatlas.image_files import open_image
from convatlas.pipeline.dependencies import find_install_folder
from convatlas.records import PhotographCredit

log = logging.getLogger(__name__)

MAX_SIDE = 256  # pixels to which larger crops are reduced
# Crops by the part of the photograph's shorter side that they are long, and the part of their own side by
# which neighbours are at most apart.
SCALES = {"whole": (1, 1 / 2), "half": (1 / 2, 1 / 2), "third": (1 / 3, 2 / 3)}
SCIKIT_IMAGE, SCIKIT_LEARN = "skimage", "sklearn"
FOLDERS = {SCIKIT_IMAGE: "data", SCIKIT_LEARN: "datasets/images"}
CC0 = "CC0 1.0"
PUBLIC_DOMAIN = "public domain"
CC_BY = "CC BY 2.0"


@dataclass(frozen=True)
class Photograph:
    """A photograph in a package, and what the package's documentation says of its origin."""

    name: str
    package: str
    file: str
    subject: str
    author: str
    licence: str
    url: str


SCIKIT_IMAGE_DATA = "https://scikit-image.org/docs/stable/api/skimage.data.html"
FLICKR = "https://www.flickr.com/photos"
PHOTOGRAPHS = (
    Photograph(
        "astronaut",
        SCIKIT_IMAGE,
        "astronaut.png",
        "the astronaut Eileen Collins",
        "NASA",
        PUBLIC_DOMAIN,
        "https://flic.kr/p/r9qvLn",
    ),
    Photograph(
        "cat", SCIKIT_IMAGE, "chelsea.png", "Chelsea the cat", "Stefan van der Walt", CC0, SCIKIT_IMAGE_DATA
    ),
    Photograph(
        "coffee",
        SCIKIT_IMAGE,
        "coffee.png",
        "a cup of coffee on wood",
        "Rachel Michetti",
        CC0,
        SCIKIT_IMAGE_DATA,
    ),
    Photograph(
        "rocket",
        SCIKIT_IMAGE,
        "rocket.jpg",
        "launch of a Falcon 9",
        "SpaceX",
        PUBLIC_DOMAIN,
        f"{FLICKR}/spacexphotos/16511594820/",
    ),
    Photograph(
        "galaxies",
        SCIKIT_IMAGE,
        "hubble_deep_field.jpg",
        "the Hubble eXtreme Deep Field",
        "NASA",
        PUBLIC_DOMAIN,
        "http://hubblesite.org/newscenter/archive/releases/2012/37/image/a/",
    ),
    Photograph(
        "retina",
        SCIKIT_IMAGE,
        "retina.jpg",
        "a human retina",
        "Mikael Häggström",
        CC0,
        "https://commons.wikimedia.org/wiki/File:Fundus_photograph_of_normal_left_eye.jpg",
    ),
    Photograph(
        "camera",
        SCIKIT_IMAGE,
        "camera.png",
        "a photographer with a camera, grey",
        "Lav Varshney",
        CC0,
        "https://github.com/scikit-image/scikit-image/issues/3927",
    ),
    Photograph(
        "coins",
        SCIKIT_IMAGE,
        "coins.png",
        "Greek coins from Pompeii, grey",
        "Brooklyn Museum",
        "no known copyright restrictions",
        "https://www.brooklynmuseum.org/opencollection/archives/image/51611",
    ),
    Photograph(
        "brick",
        SCIKIT_IMAGE,
        "brick.png",
        "a brick wall, grey",
        "CC0Textures",
        CC0,
        "https://cc0textures.com/view.php?tex=Bricks25",
    ),
    Photograph(
        "grass",
        SCIKIT_IMAGE,
        "grass.png",
        "grass, grey",
        "linolafett",
        CC0,
        "https://www.deviantart.com/linolafett/art/Grass-01-434853879",
    ),
    Photograph(
        "temple",
        SCIKIT_LEARN,
        "china.jpg",
        "a Chinese temple",
        "danielbuechele",
        CC_BY,
        f"{FLICKR}/danielbuechele/6061409035/",
    ),
    Photograph(
        "flower",
        SCIKIT_LEARN,
        "flower.jpg",
        "a dahlia",
        "vultilion",
        CC_BY,
        f"{FLICKR}/vultilion/6056698931/",
    ),
)
TEXTS = SourceDescription(
    "Crops of real photographs",
    f"Overlapping square crops, at three scales, of {len(PHOTOGRAPHS)} photographs that scikit-image and "
    "scikit-learn ship; crops of one photograph share its content. All are test images, without labels.",
    "that of each photograph, in the table of photographs",
)


def prepare_photographs(folder: Path, key: str) -> None:
    """Write the crops under `folder`/images, splits.csv and dataset.json; see `formats.prepare`.

    Args:
        folder: The data set's folder, data/<name>.
        key: The place of the data set in the config, for error messages.

    Raises:
        UserError: A photograph is missing from its package, or the folder cannot be written.
    """
    images: list[ImageRecord] = []
    credits: list[PhotographCredit] = []
    with atomic_write(folder / "images") as temporary:
        temporary.mkdir()
        for photograph in PHOTOGRAPHS:
            first = len(images)
            for name, crop in crop_squares(_read_photograph(photograph, key)):
                path = temporary / f"{photograph.name}-{name}.png"
                crop.save(path)
                facts = ImageFacts(crop.height, crop.width, channels=3)
                images.append(ImageRecord("test", -1, f"images/{path.name}", facts, hash_files(path)))
            credits.append(_describe_credit(photograph, len(images) - first))
        remove_description(folder)
    log.info("%d crops of %d photographs", len(images), len(PHOTOGRAPHS))
    write_metadata(folder, images, "images", "embedded", TEXTS, [], target=None, skipped=[], credits=credits)


def crop_squares(image: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    """Yield overlapping square crops of an image at the scales of SCALES, which together cover it.

    Args:
        image: The image.

    Yields:
        The scale, row and column of a crop, such as "half-0-2", and the crop, of at most MAX_SIDE pixels.
    """
    for scale, (part, step) in SCALES.items():
        side = round(part * min(image.size))
        for row, top in enumerate(_space_evenly(image.height, side, step)):
            for column, left in enumerate(_space_evenly(image.width, side, step)):
                crop = image.crop((left, top, left + side, top + side))
                if side > MAX_SIDE:
                    crop = crop.resize((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
                yield f"{scale}-{row}-{column}", crop


def _space_evenly(length: int, side: int, step: float) -> list[int]:
    """Return the fewest evenly spaced starts of windows that cover a length, about step × side apart."""
    last = length - side
    intervals = math.ceil(last / (step * side) - 0.05)  # a few pixels more apart than another row
    return [round(last * n / intervals) for n in range(intervals + 1)] if intervals else [0]


def _read_photograph(photograph: Photograph, key: str) -> Image.Image:
    """Return a photograph of a package, as RGB; the package is not imported."""
    root = find_install_folder(photograph.package)
    path = (root or Path()) / photograph.package / FOLDERS[photograph.package] / photograph.file
    if root and path.is_file():
        with open_image(path) as image:
            return image.convert("RGB")
    raise UserError(
        f"{key}.source: {photograph.file} is missing from the package {photograph.package}; run `make setup`"
    )


def _describe_credit(photograph: Photograph, crops: int) -> PhotographCredit:
    """Return what the data set's page says about a photograph."""
    return {
        "name": photograph.name,
        "subject": photograph.subject,
        "author": photograph.author,
        "licence": photograph.licence,
        "url": photograph.url,
        "crops": crops,
    }
