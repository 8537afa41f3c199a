"""The page of top-activating images: its numbers against the statistics, its boxes against patches."""

import json
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from convatlas.attribution.patches import PatchGeometry
from convatlas.gallery import top_image_scripts
from convatlas.gallery.top_images import TopImages, read_top_images
from convatlas.image_io import compute_visible_box
from tests.support.browser import needs_chromium
from tests.support.explorer_site import build_explorer_site
from tests.support.fake_statistics import (
    CLASSES,
    DEAD_UNITS,
    IMAGE_SIZE,
    LABELS,
    MISSING_IMAGE,
    N_IMAGES,
    FakeStatistics,
    K,
    write_network_with_statistics,
)
from tests.support.site import PageParser, open_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> FakeStatistics:
    return write_network_with_statistics(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def site(network: FakeStatistics) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(top_image_scripts, "MAX_ROWS", 30)
        return build_explorer_site(network.folder, "own", strongest={"k": K})


def read_script(site: Path, name: str) -> Any:
    """Return the content of a script of top-activating images."""
    text = (site / f"top-images/own/{name}.js").read_text(encoding="utf-8")
    prefix, suffix = f'convatlas.registerTopImages("own", "{name}", "', '");\n'
    assert text.startswith(prefix) and text.endswith(suffix)
    characters = text.removeprefix(prefix).removesuffix(suffix)
    bits = "".join(f"{ord(character) % 128:07b}" for character in characters)
    content = bytes(int(bits[n : n + 8], 2) for n in range(0, len(bits) - 7, 8))
    return json.loads(zlib.decompressobj().decompress(content))


def test_the_scripts_have_the_top_activations_of_every_unit(site: Path, network: FakeStatistics) -> None:
    index = read_script(site, "index")
    kinds = {layer["name"]: layer["kind"] for layer in network.results.layers}
    names = [name for name in network.layers if kinds[name] not in ("reshape", "dropout")]
    assert [layer["name"] for layer in index["layers"]] == names
    assert len({layer["part"] for layer in index["layers"]}) > 1
    for layer in index["layers"]:
        part, arrays = read_script(site, f"part-{layer['part']}"), network.layers[layer["name"]]
        units = part["layers"][layer["name"]]
        rows, columns = np.moveaxis(arrays["positions"], -1, 0)
        width = layer["shape"][-1] if layer["shape"] else 1
        np.testing.assert_array_equal(np.array(part["images"])[units["rows"]], arrays["images"])
        np.testing.assert_array_equal(np.array(part["positions"])[units["rows"]], rows * width + columns)
        values = np.array(part["values"])[units["rows"]]
        np.testing.assert_allclose(values, arrays["values"], rtol=5e-3, atol=1e-6)
        assert units.get("dead", []) == DEAD_UNITS.get(layer["name"], [])


def test_the_images_have_their_class_and_the_thumbnail_of_their_file(site: Path) -> None:
    images = read_script(site, "index")["images"]
    for number, image in images.items():
        assert CLASSES[image["label"]] == CLASSES[LABELS[int(number)]]
        assert image["file"] == f"{number}.png"
        assert (image.get("prediction") is not None) == (int(number) < 8)  # of the predictions of the results
        assert ("thumbnail" in image) == (int(number) != MISSING_IMAGE)
        if "thumbnail" in image:
            with Image.open(site / image["thumbnail"]) as thumbnail:
                assert (thumbnail.size, thumbnail.getpixel((0, 0))) == (IMAGE_SIZE, 8 * int(number))


def test_without_the_files_of_the_data_set_images_are_named(tmp_path: Path) -> None:
    network = write_network_with_statistics(tmp_path)
    (tmp_path / "data/animals/splits.csv").unlink()
    site = build_explorer_site(network.folder, "own", strongest={"k": K})
    assert "the files of the data set are gone" in PageParser(site / "networks/own-top-images.html").text
    assert not any("thumbnail" in image for image in read_script(site, "index")["images"].values())


# Possible shortcuts

N_UNITS, SIZE = 12, 6
LOCKED_UNIT, SIAMESE_UNIT = 4, 9


def read_planted(siamese_step: int) -> TopImages:
    """Read random top activations of two layers, a unit of which has one position, another one subclass.

    Args:
        siamese_step: One image in so many of the 400 images of cats is of a Siamese.
    """
    rng = np.random.default_rng(3)
    positions = rng.integers(0, SIZE, (N_UNITS, K, 2))
    positions[LOCKED_UNIT] = (5, 1)
    images = np.stack([rng.permutation(N_IMAGES)[:K] for _ in range(N_UNITS)])
    images[SIAMESE_UNIT] = siamese_step * np.arange(K)
    values = np.sort(rng.random((N_UNITS, K)) + 1)[:, ::-1]
    layer = {"kind": "conv", "output_shape": [N_UNITS, SIZE, SIZE]}
    arrays = {"values": values, "images": images, "positions": positions}
    reversed_arrays = {key: array[::-1] for key, array in arrays.items()}  # the same units in another order
    statistics = {f"conv@{key}": array for key, array in arrays.items()}
    statistics |= {f"cat@{key}": array for key, array in reversed_arrays.items()}
    summary = {"classes": ["cat"], "layers": [{"name": name, "dead": []} for name in ("conv", "cat")]}
    network: Any = SimpleNamespace(
        layers=[{"name": "conv", **layer}, {"name": "cat", **layer, "kind": "merge"}],
        results=SimpleNamespace(dataset_statistics=summary, statistics=statistics),
    )
    breeds = ["Siamese" if number % siamese_step == 0 else f"breed {number % 9}" for number in range(400)]
    dataset: Any = SimpleNamespace(labels=np.zeros(400, int), subclasses=breeds)
    return read_top_images(network, dataset)


def test_a_unit_with_one_position_or_subclass_is_marked_in_every_layer_that_passes_it_on() -> None:
    top_images = read_planted(siamese_step=3)
    assert top_images.n_tests == 2 * N_UNITS
    first, *others = top_images.marked_units
    assert (first.layer, first.unit, first.kind, first.later) == ("conv", 4, "position", [("cat", 7)])
    assert first.reason == f"All {K} maxima lie at row 5, column 1 of the {SIZE} × {SIZE} map."
    assert others == []  # a third of the images are of a Siamese: four of them are no surprise
    assert [*top_images.marks] == ["conv", "cat"]
    assert top_images.marks["conv"].keys() == {4} and top_images.marks["cat"].keys() == {7}
    assert "adjusted for 24 tests" in top_images.marks["cat"][7]


def test_a_unit_with_images_of_a_rare_subclass_is_marked() -> None:
    marked = {row.unit: row for row in read_planted(siamese_step=40).marked_units}
    assert marked.keys() == {LOCKED_UNIT, SIAMESE_UNIT}
    assert marked[SIAMESE_UNIT].kind == "subclass"
    assert marked[SIAMESE_UNIT].reason == f"All {K} images are of one subclass of cat: Siamese."


# In a browser


@needs_chromium
def test_a_box_is_the_patch_of_the_maximum(browser: "Browser", site: Path) -> None:
    page, errors = open_page(browser, site, "networks/own-top-images.html")
    rng = np.random.default_rng(1)
    for size, image_size, resize in [((20, 30), (60, 40), "stretch"), ((32, 32), (50, 90), 40)]:
        visible = compute_visible_box(image_size, size, resize)
        for _ in range(20):
            start, step, field = rng.integers(-9, 3, 2), rng.integers(1, 5, 2), rng.integers(3, 40, 2)
            place = rng.integers(0, 5, 2)
            geometry = PatchGeometry(size, tuple(start), tuple(step), tuple(field), is_global=False)
            box = page.evaluate(
                "([index, layer, image, place]) => convatlas.computeFieldBox(index, layer, image, place)",
                [
                    {"input_size": size},
                    {
                        "receptive_field": field.tolist(),
                        "receptive_start": start.tolist(),
                        "receptive_step": step.tolist(),
                    },
                    {"visible": visible},
                    place.tolist(),
                ],
            )
            slices = geometry.pixel_slices(place)
            if all((s.start, s.stop) == (0, n) for s, n in zip(slices, size, strict=True)):
                assert box is None
                continue
            expected = []
            for axis in (1, 0):
                low, high = visible[1 - axis], visible[3 - axis]
                sides = np.array([slices[axis].start, slices[axis].stop]) / size[axis]
                expected.append(np.clip(low + (high - low) * np.clip(sides, 0, 1), 0, 1))
            (left, right), (top, bottom) = expected
            assert box == pytest.approx([left, top, right, bottom])
    assert errors == []
    page.context.close()


@needs_chromium
def test_the_units_of_a_layer_are_browsed(browser: "Browser", site: Path, network: FakeStatistics) -> None:
    page, errors = open_page(browser, site, "networks/own-top-images.html")
    page.locator("[data-part=layer]").select_option("pool")
    page.locator("h2", has_text="of pool").wait_for()
    unit = 3
    row = page.locator(f"[data-unit='{unit}']")
    images = network.layers["pool"]["images"][unit].tolist()
    shown = [f"{CLASSES[LABELS[n]]}, test image {n}" for n in images if n != MISSING_IMAGE]
    assert row.locator("img").evaluate_all("all => all.map(image => image.alt)") == shown
    row.locator("button").first.click()
    dialog = page.locator("dialog[open].image-dialog")
    assert f"test image {images[0]} of animals" in (dialog.text_content() or "")
    dialog.locator(".close").click()
    page.evaluate("location.hash = 'layer=fc&unit=3'")
    page.locator("h2", has_text="of fc").wait_for()
    assert "Dead: never positive" in (page.locator("[data-unit='3']").text_content() or "")
    assert errors == []
    page.context.close()
