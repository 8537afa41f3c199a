"""Labelled figures: montage, colour bars and size, as files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convatlas.plotting.charts import plot_confusion_matrix
from convatlas.plotting.colormap import ColourScale, colour_table
from convatlas.plotting.labelled_figure import (
    DPI,
    LABEL_PIXELS,
    TOP_MARGIN,
    ColourBar,
    figure_style,
    make_montage_figure,
    save_figure,
)
from convatlas.plotting.montage import Tile, assemble_montage, text_width


def test_the_montage_is_in_the_png_pixel_for_pixel(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    montage = assemble_montage([[Tile(rng.random((9, 7, 3))) for _ in range(3)] for _ in range(2)])
    bars = [ColourBar(0, 1, ColourScale(-2.5, 2.5, "RdBu_r"), "weight")]
    with figure_style():
        save_figure(make_montage_figure(montage, ["one", "two"], bars, "A caption."), tmp_path / "a.png", [])
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    height, width = montage.pixels.shape[:2]
    left = 48 + max(text_width(label, LABEL_PIXELS) for label in ("one", "two"))
    np.testing.assert_array_equal(
        pixels[TOP_MARGIN : TOP_MARGIN + height, left : left + width], montage.pixels
    )


def test_tiles_without_a_colour_bar_stay_smooth_in_few_colours(tmp_path: Path) -> None:
    """Beside a photograph of thousands of colours, which alone would fill the palette."""
    rng = np.random.default_rng(0)
    values = np.sort(rng.normal(size=(96, 96)), axis=0)
    photograph = 0.4 + 0.1 * rng.random((96, 96, 3))
    tiles = [Tile(values, ColourScale(-3, 3, "RdBu_r")), Tile(values.clip(0), ColourScale(0, 3, "viridis"))]
    montage = assemble_montage([[Tile(photograph), *tiles]])
    assert montage.colormaps == ["RdBu_r", "viridis"]
    with figure_style():
        save_figure(make_montage_figure(montage, ["one"], [], "A caption."), tmp_path / "a.png", [])
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
        pixels = np.asarray(image.convert("RGB")).astype(int)
    top, left = TOP_MARGIN, 48 + text_width("one", LABEL_PIXELS)
    drawn = pixels[top : top + montage.pixels.shape[0], left : left + montage.pixels.shape[1]]
    start = montage.column_lefts[1]
    assert np.abs(drawn - montage.pixels)[:, start:].max(-1).mean() < 1


@pytest.mark.parametrize(
    ("scale", "end_labels", "texts"),
    [
        (ColourScale(-2.5, 2.5, "RdBu_r"), None, ["−2.5", "0", "2.5"]),
        (ColourScale(0, 0.125, "viridis"), None, ["0", "0.0625", "0.125"]),
        (ColourScale(0, 3, "viridis"), ("0", "max"), ["0", "max"]),
    ],
)
def test_the_colour_bar_has_the_values_of_its_ends(
    scale: ColourScale, end_labels: tuple[str, str] | None, texts: list[str]
) -> None:
    montage = assemble_montage([[Tile(np.zeros((9, 7, 3)))]])
    figure = make_montage_figure(
        montage, ["one"], [ColourBar(0, 0, scale, "weight", end_labels)], "A caption."
    )
    positions = {text.get_text(): text.get_position()[1] for text in figure.texts[1:-1]}
    assert list(positions) == [*texts, "weight"]
    steps = figure.images[1].pixels
    table = colour_table(scale.cmap)
    np.testing.assert_array_equal(steps[[0, -1]][:, 0], [table[255], table[0]])
    height = round(figure.get_size_inches()[1] * DPI)
    ends = np.array([positions[texts[0]], positions[texts[-1]]]) * height
    np.testing.assert_allclose(ends, [figure.images[1].oy, figure.images[1].oy + len(steps)])


@pytest.mark.filterwarnings("error")  # matplotlib warns of characters that its font lacks
def test_names_in_a_script_that_the_font_lacks_are_transliterated(tmp_path: Path) -> None:
    """The font has Latin and Cyrillic letters, which stay as they are."""
    files = []
    for cat, dog in (("猫é", "собака"), ("Maoé", "собака")):
        montage = assemble_montage([[Tile(np.zeros((9, 7, 3)), title=cat)]])
        with figure_style():
            figures = [
                make_montage_figure(montage, [dog], [], f"A {cat}."),
                plot_confusion_matrix(np.eye(2, dtype=int), [cat, dog], "A caption."),
            ]
            for figure in figures:
                save_figure(figure, tmp_path / "a.png", [])
                files.append((tmp_path / "a.png").read_bytes())
    assert files[:2] == files[2:]
    assert any(text.get_text() == "собака" for text in figures[0].texts)
