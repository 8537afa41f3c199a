"""Small versions of figures: the image that a shared link shows, and covers that load fast."""

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from convatlas.gallery.context import GalleryContext

PREVIEW_SIZE = (1200, 630)  # pixels; sites that show a preview crop it to these proportions
PREVIEW_MARGIN = 36  # pixels
IMAGE_QUALITY = 85  # of JPEG and WebP
MAX_COVER_WIDTH = 1120  # pixels of a compressed cover
BACKGROUND_COLOUR = "#fffdf8"  # that of the figures


@dataclass(frozen=True)
class LinkPreview:
    """A figure as JPEG, its alternative text, and its (width, height) in pixels."""

    jpeg: bytes
    alt: str
    size: tuple[int, int] = PREVIEW_SIZE


def make_preview(context: GalleryContext) -> LinkPreview | None:
    """Make the image that a shared link shows: the first cover, or else the first figure.

    Args:
        context: The run that the site shows.

    Returns:
        A JPEG of PREVIEW_SIZE with its text; None without any figure, or where the config has no `site_url`.
    """
    figures = [(network, figure) for network in context.networks for figure in network.figures]
    if not figures or not context.config.get("site_url"):
        return None
    network, figure = next((pair for pair in figures if pair[1]["kind"] == "cover"), figures[0])
    with Image.open(context.results / network.name / "figures" / figure["file"]) as image:
        picture = image.convert("RGB").crop(
            (0, 0, figure["width"], figure["height"] - figure["caption_height"])
        )
    width, height = PREVIEW_SIZE
    picture.thumbnail((width - 2 * PREVIEW_MARGIN, height - 2 * PREVIEW_MARGIN), Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", PREVIEW_SIZE, BACKGROUND_COLOUR)
    canvas.paste(picture, ((width - picture.width) // 2, (height - picture.height) // 2))
    content = io.BytesIO()
    canvas.save(content, "jpeg", quality=IMAGE_QUALITY, optimize=True)
    return LinkPreview(content.getvalue(), figure["alt"])


def compress_cover(path: Path) -> bytes:
    """Encode a cover as lossy WebP, at most MAX_COVER_WIDTH pixels wide, at about a tenth of the PNG's size.

    Args:
        path: The cover's PNG.
    """
    content = io.BytesIO()
    with Image.open(path) as image:
        picture = image.convert("RGB")
    picture.thumbnail((MAX_COVER_WIDTH, picture.height), Image.Resampling.LANCZOS)
    picture.save(content, "webp", quality=IMAGE_QUALITY, method=4)
    return content.getvalue()
