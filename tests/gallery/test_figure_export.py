"""What the explorer shows, saved as a figure and as values, and copied with its citation, from a file."""

import io
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import convatlas
from convatlas.plotting.colormap import colour_table
from tests.support.browser import needs_chromium
from tests.support.explorer_site import (
    LEVELS,
    build_explorer_site,
    complete_layers,
    draw_sprites,
    open_address,
    scale_limits,
)
from tests.support.fake_results import make_results
from tests.support.site import HOSTILE_TEXT, write_network

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = needs_chromium

ADDRESS = "networks/own.html#layer=relu&unit=1&image=second&colours=viridis"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    results = complete_layers(make_results())
    results.network["classes"] = [HOSTILE_TEXT, "蜂", "cat", "dog"]
    write_network(folder, "own", results)
    draw_sprites(folder, "own")
    build_explorer_site(folder, "own")
    return folder


@pytest.fixture
def page(browser: "Browser", folder: Path) -> "Page":
    page, errors = open_address(browser, folder / "gallery", ADDRESS)
    assert errors == []
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    return page


def save(page: "Page", subject: str, title: str) -> bytes:
    with page.expect_download() as download:
        page.get_by_role("button", name=f"Save {subject} as {title}", exact=True).click()
    return Path(download.value.path()).read_bytes()


def read_pdf_images(content: bytes) -> list[np.ndarray]:
    """Return the pictures of a PDF, after a check of the offsets of its objects."""
    start = int(content.rpartition(b"startxref\n")[2].split()[0])
    for number, row in enumerate(content[start:].splitlines()[3:], 1):
        if not row.endswith(b" n "):
            break
        assert content[int(row[:10]) :].startswith(b"%d 0 obj" % number)
    pattern = rb"/Width (\d+) /Height (\d+).*?/Length (\d+) >>\nstream\n"
    return [
        np.frombuffer(zlib.decompress(content[match.end() : match.end() + int(match[3])]), np.uint8).reshape(
            int(match[2]), int(match[1]), 3
        )
        for match in re.finditer(pattern, content)
    ]


def test_a_map_is_saved_with_exact_cells_and_its_values(page: "Page") -> None:
    values = make_results().activations["second"]["relu"]
    half_step = np.ptp(values[1]) / (LEVELS - 1) / 2
    npy = np.load(io.BytesIO(save(page, "map", "NPY")))
    assert npy.dtype == np.float32
    np.testing.assert_allclose(npy, values[1], atol=half_step * 1.001)
    csv = np.loadtxt(io.BytesIO(save(page, "map", "CSV")), delimiter=",")
    np.testing.assert_allclose(csv, npy, rtol=1e-6)

    layer = np.stack([outputs["relu"] for outputs in make_results().activations.values()])
    low, high = scale_limits(layer, "viridis")
    colours = colour_table("viridis")[np.round(255 * (npy - low) / (high - low)).astype(int)].astype(int)
    picture, colour_bar = read_pdf_images(save(page, "map", "PDF"))
    factor = len(picture) // len(npy)
    assert factor * len(npy) == len(picture) > 500
    assert np.abs(picture[::factor, ::factor].astype(int) - colours).max() <= 2  # of float32
    assert (picture == picture[::factor, ::factor].repeat(factor, 0).repeat(factor, 1)).all()
    assert np.array_equal(colour_bar[0], colour_table("viridis"))
    svg = ElementTree.fromstring(save(page, "map", "SVG"))
    texts = " ".join(element.text or "" for element in svg.iter("{http://www.w3.org/2000/svg}text"))
    assert "own, relu: feature map of unit 1 on cat, test image 1" in texts
    assert f"rounded to {LEVELS} levels" in texts
    assert Image.open(io.BytesIO(save(page, "map", "PNG"))).size[0] > 900
    page.context.close()


def test_the_sheet_of_a_layer_is_saved_with_names_in_any_script(browser: "Browser", folder: Path) -> None:
    page, errors = open_address(browser, folder / "gallery", "networks/own.html#layer=fc&unit=1&image=second")
    texts = ElementTree.fromstring(save(page, "map", "SVG")).itertext()
    assert any("蜂" in text for text in texts)
    assert len(read_pdf_images(save(page, "map", "PDF"))) >= 3  # the name is a picture
    sheet, _ = read_pdf_images(save(page, "all units", "PDF"))
    assert len(sheet) > 100
    page.evaluate("location.hash = 'layer=conv1&unit=1&image=first&show=filters'")
    page.wait_for_function("!document.querySelector('[aria-busy]')")
    assert len(read_pdf_images(save(page, "all units", "PDF"))) == 2
    assert errors == []
    page.context.close()


def test_caption_citation_and_settings_are_copied(
    page: "Page", folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    button = page.get_by_role("button", name="Copy caption, citation and settings of map")
    button.click()
    page.get_by_role("status").get_by_text("Copied").wait_for()
    text = page.evaluate("navigator.clipboard.readText()")
    assert text.startswith("own, relu: feature map of unit 1 on cat, test image 1")
    assert re.search(r"^run [0-9a-f]{12}$", text, re.MULTILINE)
    assert 'layer: "relu"\nunit: 1\nimage: "second"' in text
    assert f"{(folder / 'gallery').as_uri()}/{ADDRESS}" in text
    code = next(line for line in text.splitlines() if line.startswith("convatlas.Results"))
    assert page.locator("[data-part=source] .loading-code").inner_text() == code
    monkeypatch.chdir(folder)
    array = eval(code, {"convatlas": convatlas})
    np.testing.assert_array_equal(array, make_results().activations["second"]["relu"][1])

    figure = page.locator("figure.figure").first
    figure.locator("details.settings summary").click()
    figure.get_by_role("button", name="Copy caption, citation and settings").click()
    figure.get_by_role("status").get_by_text("Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(figure.locator("figcaption > span").first.inner_text()[:20])
    assert "seed: 0\nnetworks:\n  own:" in copied
    assert 'convatlas.Results("results/own").' in copied
    assert f"own.html#{figure.get_attribute('id')}" in copied
    assert "@misc{convatlas-" in copied

    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('denied')) }")
    button.click()
    area = page.get_by_label("Text to copy")
    area.wait_for()
    assert area.input_value() == text
    assert page.evaluate("document.getSelection().toString().length") == len(text)
    page.context.close()
