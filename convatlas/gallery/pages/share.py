"""What goes out with the pages: the picture that a shared link shows, and the numbers behind the plates."""

import io
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape
from PIL import Image

from convatlas.gallery.pages.site import GalleryContext

PREVIEW_SIZE = (1200, 630)  # pixels of a preview, the proportions that those who show it cut it to
PREVIEW_MARGIN = 36
IMAGE_QUALITY = 85
MAX_COVER_WIDTH = 1120  # pixels that a light picture is wide at most
BACKGROUND_COLOUR = "#fffdf8"  # as the plates are
RESULT_FILES = ("filters.npz", "activations", "deconv", "classical", "masks", "steps", "statistics.npz",
           "strongest.npz", "statistics.json", "history.csv", "metrics.json", "layers.json", "images.json",
           "network.json")  # fmt: skip
WEIGHTS_FILE = "weights.safetensors"


@dataclass(frozen=True)
class Preview:
    """A picture of a plate, as JPEG, and what it shows."""

    jpeg: bytes
    alt: str
    size: tuple[int, int] = PREVIEW_SIZE


def make_preview(atlas: GalleryContext) -> Preview | None:
    """Make the picture that a shared link shows, of a frontispiece; None without a plate or `site_url`."""
    plates = [(page, plate) for page in atlas.networks for plate in page.figures]
    if not plates or not atlas.config.get("site_url"):
        return None
    page, plate = next((pair for pair in plates if pair[1]["kind"] == "cover"), plates[0])
    with Image.open(atlas.results / page.name / "figures" / plate["file"]) as image:
        shown = image.convert("RGB").crop((0, 0, plate["width"], plate["height"] - plate["caption_height"]))
    shown.thumbnail(
        (PREVIEW_SIZE[0] - 2 * PREVIEW_MARGIN, PREVIEW_SIZE[1] - 2 * PREVIEW_MARGIN), Image.Resampling.LANCZOS
    )
    sheet = Image.new("RGB", PREVIEW_SIZE, BACKGROUND_COLOUR)
    sheet.paste(shown, ((PREVIEW_SIZE[0] - shown.width) // 2, (PREVIEW_SIZE[1] - shown.height) // 2))
    written = io.BytesIO()
    sheet.save(written, "jpeg", quality=IMAGE_QUALITY, optimize=True)
    return Preview(written.getvalue(), plate["alt"])


def compress_cover(path: Path) -> bytes:
    """A picture for where it must be there at once, a tenth of its size: smaller, WebP, with slight loss."""
    written = io.BytesIO()
    with Image.open(path) as image:
        shown = image.convert("RGB")
    shown.thumbnail((MAX_COVER_WIDTH, image.height), Image.Resampling.LANCZOS)
    shown.save(written, "webp", quality=IMAGE_QUALITY, method=4)
    return written.getvalue()


def list_published_files(atlas: GalleryContext, network: str) -> dict[str, Path]:
    """The files of results/<network>/ that the config's `publish` copies: their places in the site."""
    asked = atlas.config.get("publish", {})
    names = [*RESULT_FILES] * bool(asked.get("tensors")) + [WEIGHTS_FILE] * bool(asked.get("weights"))
    folder = atlas.results / network
    found = [path for name in names for path in (folder / name, *sorted((folder / name).rglob("[!.]*")))]
    return {
        f"numbers/{network}/{path.relative_to(folder).as_posix()}": path for path in found if path.is_file()
    }


def link_files(where: str, root: str, published: Collection[str]) -> Markup:
    """Link the files that `where` names, "results/<network>/<file>, <key>", if they are in the site.

    One file for each image, `<image>.npz`, leads to the list of all on the network's page.
    """

    def link(found: re.Match[str]) -> str:
        network, file = found.groups()
        place, folder = f"numbers/{network}/{file}", file.partition("<image>")[0]
        if place in published:
            return Markup('<a href="{}{}">{}</a>').format(root, place, found.group())
        if folder != file and any(one.startswith(f"numbers/{network}/{folder}") for one in published):
            return Markup('<a href="{}networks/{}.html#numbers">{}</a>').format(root, network, found.group())
        return escape(found.group())

    parts, end = [], 0
    for found in re.finditer(r"results/([\w-]+)/([^\s,]+)", where):
        parts += [escape(where[end : found.start()]), link(found)]
        end = found.end()
    return Markup("").join([*parts, escape(where[end:])])
