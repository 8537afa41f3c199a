"""Figures as PDF and SVG: vectors with real text, embedded fonts and exact pixels, without dates."""

import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
from fontTools import subset
from fontTools.ttLib import TTFont
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.text import Text

from convatlas.files import atomic_write

SVG_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "convatlas",
}  # text as text; equal ids in equal files


def save_pdf(figure: Figure, path: Path) -> None:
    """Write a figure as PDF.

    Args:
        figure: The figure.
        path: The file.
    """
    metadata = {"CreationDate": None, "Creator": None, "Producer": None}
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="pdf", metadata=metadata, facecolor=figure.get_facecolor())


def save_svg(figure: Figure, path: Path) -> None:
    """Write a figure as SVG, with the characters of its fonts that it uses.

    Args:
        figure: The figure.
        path: The file.
    """
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None}
    with matplotlib.rc_context(SVG_STYLE):
        figure.savefig(buffer, format="svg", metadata=metadata, facecolor=figure.get_facecolor())
    text = buffer.getvalue().decode()
    text = text.replace("<image ", '<image style="image-rendering: pixelated" ')
    faces = "".join(_format_font_face(family, characters) for family, characters in _list_characters(figure))
    with atomic_write(path) as temporary:
        temporary.write_text(text.replace("<defs>", f"<defs><style>{faces}</style>", 1), encoding="utf-8")


def _list_characters(figure: Figure) -> Iterable[tuple[str, str]]:
    """List the font families of a figure's texts, each with its characters, sorted."""
    characters: dict[str, set[str]] = {}
    for text in figure.findobj(Text):
        if isinstance(text, Text):
            characters.setdefault(text.get_fontfamily()[0], set()).update(text.get_text())
    return [(family, "".join(sorted(members - {"\n"}))) for family, members in sorted(characters.items())]


def _format_font_face(family: str, characters: str) -> str:
    """Write the rule of CSS that holds some characters of a font of matplotlib; "" without characters."""
    if not characters:
        return ""
    options = subset.Options()
    options.layout_features, options.notdef_outline, options.hinting = [], True, False
    options.drop_tables += ["FFTM"]  # the editor's time stamps
    font = TTFont(findfont(FontProperties(family=family)), recalcTimestamp=False)
    subsetter = subset.Subsetter(options)
    subsetter.populate(text=characters)
    subsetter.subset(font)
    buffer = io.BytesIO()
    font.save(buffer)
    content = base64.b64encode(buffer.getvalue()).decode()
    return f"@font-face {{ font-family: '{family}'; src: url(data:font/ttf;base64,{content}); }}"
