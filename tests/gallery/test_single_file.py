"""What is published: the zip, the single file, result files, previews and the workflow for Pages."""

import base64
import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from playwright.sync_api import Browser

from convatlas import UserError
from convatlas.files import write_json
from convatlas.gallery import html_tree, network_data
from convatlas.gallery.figure_selection import select_figures
from convatlas.gallery.published_files import link_files
from convatlas.gallery.single_file import MEGABYTE, SingleFileBuilder, build_single_file
from convatlas.gallery.zip_archive import write_zip
from tests.support.fake_results import make_results
from tests.support.site import CONFIG, HOSTILE_TEXT, PageParser, build_site, write_network
from tests.support.workspace import ROOT

NETWORKS: dict[str, list[str | int]] = {"own": [], "other": []}
KINDS = [("cover", ""), ("curves", ""), ("filters", "conv1"), ("maps", "conv1"), ("maps", "relu"),
         ("values", "fc"), ("deconv", "first"), ("deconv", "second")]  # fmt: skip


def build_full_site(folder: Path, **config: Any) -> Path:
    """Build the gallery of two small networks whose figures all differ."""
    rng = np.random.default_rng(3)
    for name in NETWORKS:
        write_network(folder, name, make_results())
        figure_folder = folder / "results" / name / "figures"
        figures = []
        for n, (kind, subject) in enumerate(KINDS):
            text = f"Figure {n + 1}. {name}. What {kind} shows of {subject}."
            figures.append(
                {
                    "file": f"{kind}-{n}.png",
                    "formats": ["png", "pdf"] if n == 0 else ["png"],
                    "kind": kind,
                    "subject": subject,
                    "caption": f"{name}. What {kind} shows of {subject}.",
                    "explanation": f"How to read {kind}.",
                    "alt": text,
                    "width": 90,
                    "height": 70,
                    "caption_height": 10,
                }
            )
            pixels = rng.integers(0, 256, (70, 90, 3), np.uint8)
            Image.fromarray(pixels).save(figure_folder / f"{kind}-{n}.png")
            Image.new("RGB", (9, 9)).save(figure_folder / f"{kind}-{n}.pdf", "pdf")
        write_json(figure_folder / "figures.json", figures)
    return build_site(folder, *NETWORKS, config=CONFIG | config)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_full_site(
        tmp_path_factory.mktemp("run"), notes="See [own](networks/own.html#layer-conv1) and [gone](no.html)."
    )


def build_file(site: Path, layers: Any = "all", megabytes: float = 15) -> tuple[str, int, int]:
    figures = select_figures(site.parent / "results", NETWORKS, layers)
    file = build_single_file(site, figures, megabytes)
    return file.html, file.n_figures, file.n_total


def list_figures(html: str) -> list[str]:
    """Return the figures of a single file, by their alternative texts."""
    return re.findall(r'<img [^>]*alt="(Figure \d+\. \w+)', html)


# HTML as a tree


@pytest.mark.parametrize(
    "text",
    [
        "<!doctype html><p>a &amp; b &lt;c&gt; &#39;</p>",
        '<img src="a.png" alt="&quot;&lt;x&gt;"><br><input checked>',
        '<svg viewBox="0 0 1 2"><linearGradient id="g"></linearGradient><path d="M0 0"></path></svg>',
        '<script type="application/json">{"a": "\\u003c/b\\u003e", "c": "d & e"}</script>',
        "<style>a > b { c: d }</style>",
    ],
)
def test_a_page_is_parsed_and_written_without_a_change(text: str) -> None:
    html = html_tree.parse_html(text).to_html().removeprefix("<page>").removesuffix("</page>")
    assert html == text.removeprefix("<!doctype html>").replace("viewBox", "viewbox").replace(
        "linearG", "linearg"
    )


def test_every_page_of_a_gallery_is_parsed_completely(site: Path) -> None:
    """Every element is closed: the main element of each page ends where the page says."""
    for path in site.rglob("*.html"):
        page = html_tree.parse_html(path.read_text())
        body = page.find("body")
        assert body
        elements = [child.tag for child in body.children if isinstance(child, html_tree.Element)]
        assert elements[1:4] == [
            "header", "main", "footer",
        ], path  # fmt: skip
        text = PageParser(path).text
        main = page.find("main")
        assert main and main.get_text().strip()[:40] in text.replace("&", "&amp;").replace("’", "’")


# The zip


def test_the_zip_holds_the_gallery_and_has_the_same_bytes_twice(site: Path, tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        write_zip(site, tmp_path / name)
        for path in site.rglob("*.html"):  # another day
            path.touch()
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None
        files = {f"gallery/{path.relative_to(site)}": path for path in site.rglob("*") if path.is_file()}
        assert sorted(archive.namelist()) == sorted(files) and "gallery/.nojekyll" in files
        for name, path in files.items():
            assert archive.read(name) == path.read_bytes()
            assert archive.getinfo(name).date_time == (1980, 1, 1, 0, 0, 0)


# The single file


def test_the_selection_of_figures(site: Path) -> None:
    def list_paths(layers: Any, networks: dict[str, list[str | int]] = NETWORKS) -> list[str]:
        return [figure.path for figure in select_figures(site.parent / "results", networks, layers)]

    assert len(list_paths("all")) == len(list_paths("highlight")) == 2 * len(KINDS)
    other_files = [
        f"{kind}-{n}.png" for n, (kind, _) in enumerate(KINDS) if kind in ("cover", "curves", "deconv")
    ]
    files = {path.split("/")[2] for path in list_paths(["conv*"])}
    assert files == {*other_files, "filters-2.png", "maps-3.png"}
    assert {path.split("/")[2] for path in list_paths([1])} == files  # the first convolution
    highlighted = {
        path for path in list_paths("highlight", {"own": ["relu"], "other": []}) if "/own/" in path
    }
    assert {path.split("/")[2] for path in highlighted} == {*other_files, "maps-4.png"}
    order = [path.split("/")[1:] for path in list_paths("all")]
    assert order[:2] == [["own", "cover-0.png"], ["other", "cover-0.png"]]
    assert [file for _, file in order[-2:]] == ["deconv-7.png"] * 2  # the first to be skipped
    with pytest.raises(UserError, match=r"publish\.single_file\.layers: no network has a layer 'conv9'"):
        list_paths(["conv*", "conv9"])


def test_the_single_file_needs_no_other_file(site: Path) -> None:
    html, n_figures, n_total = build_file(site)
    assert n_figures == n_total == 2 * len(KINDS)
    page = html_tree.parse_html(html)
    ids = [element.attributes["id"] for element in page.walk() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    links = 0
    for element in page.walk():
        for name in ("src", "href"):
            value = element.attributes.get(name)
            if value and not value.startswith(("data:", "https://")):
                assert value.startswith("#") and value[1:] in ids, element.to_html()[:200]
                links += 1
        for name in ("aria-labelledby", "for", "data-source"):
            for value in (element.attributes.get(name) or "").split():
                assert value in ids
        assert element.tag not in ("link", "iframe", "noscript") or element.attributes.get("rel") == "icon"
    assert links > 20
    assert "#networks.own/layer-conv1" in html and " and gone." in html and 'href="no.html' not in html
    for words in ("download", "compare.html", "explorer.js", "lightbox.js"):
        assert words not in re.sub(
            r"<style>.*?</style>|<p class=\"note\">.*?</p>|<script>.*?</script>", "", html, flags=re.S
        )
    assert build_file(site)[0] == html  # the same bytes


def test_a_large_cover_is_compressed_and_is_in_the_single_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The links to it lead to the uncompressed figure."""
    before = build_full_site(tmp_path / "before")
    monkeypatch.setattr(network_data, "MAX_COVER_BYTES", 1000)
    site = build_full_site(tmp_path / "after")
    cover = "figures/own/cover-0.png"
    assert (site / cover).read_bytes() == (before / cover).read_bytes()
    with Image.open(site / "figures/own/cover-0.webp") as picture:
        assert picture.size == (90, 70)
    text = (site / "networks/own.html").read_text()
    assert '<img src="../figures/own/cover-0.webp" alt=' in text
    assert text.count('href="../figures/own/cover-0.png"') == 2
    assert not (site / "figures/own/curves-1.webp").exists()
    assert list_figures(build_file(site)[0]) == list_figures(build_file(before)[0])
    assert build_file(site)[1:] == build_file(before)[1:]


def test_images_keep_every_pixel(site: Path) -> None:
    builder = SingleFileBuilder(site)
    place = "figures/own/maps-3.png"
    kind, _, content = builder.encode_image(place).partition(";base64,")
    with Image.open(io.BytesIO(base64.b64decode(content))) as encoded, Image.open(site / place) as original:
        np.testing.assert_array_equal(np.asarray(encoded.convert("RGB")), np.asarray(original.convert("RGB")))
    smooth = site / "figures/own/smooth.png"
    Image.fromarray(np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (4, 300, 3))).save(
        smooth, compress_level=0
    )
    kind, _, content = builder.encode_image("figures/own/smooth.png").partition(";base64,")
    assert kind == "data:image/webp" and len(content) < smooth.stat().st_size / 4
    with Image.open(io.BytesIO(base64.b64decode(content))) as encoded, Image.open(smooth) as original:
        np.testing.assert_array_equal(np.asarray(encoded.convert("RGB")), np.asarray(original))
    smooth.unlink()


def test_it_has_the_selected_layers_without_empty_headings(site: Path) -> None:
    html, n_figures, n_total = build_file(site, ["conv1"])
    assert n_figures == n_total - 4
    assert "shows of conv1" in html and "shows of relu" not in html
    assert 'id="networks.own/layer-conv1"' in html and 'id="networks.own/layer-relu"' not in html
    assert f"{n_figures} of {n_total} figures are included" in html
    for page in html.split('<div class="page"')[1:]:  # numbered without gaps
        numbers = re.findall(r'class="figure-number">(\d+)<', page)
        assert numbers == [str(n + 1) for n in range(len(numbers))]


def test_it_is_no_larger_than_allowed_and_the_last_figures_are_skipped_first(site: Path) -> None:
    full_html, n_figures, n_total = build_file(site)
    size = len(full_html.encode()) / MEGABYTE
    html, n_fewer, _ = build_file(site, megabytes=size - 0.03)
    assert len(html.encode()) / MEGABYTE <= size - 0.03 and 0 < n_fewer < n_figures
    assert f"{n_fewer} of {n_total} figures are included" in html
    skipped = {*list_figures(full_html)} - {*list_figures(html)}
    assert skipped == {"Figure 8. own", "Figure 8. other"} or skipped == {"Figure 8. other"}
    assert {*list_figures(html)} >= {"Figure 1. own", "Figure 1. other"}
    if skipped == {"Figure 8. own", "Figure 8. other"}:
        assert "<h3>cat, test image 1</h3>" not in html and "<h3>cat, test image 0</h3>" in html
    with pytest.raises(UserError, match=r"megabytes: 0\.01 MB is too small; the pages take"):
        build_file(site, megabytes=0.01)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    results = make_results()
    results.layers[0] |= {"name": HOSTILE_TEXT, "module": HOSTILE_TEXT}
    results.network["classes"] = ["ant", "bee", HOSTILE_TEXT, "dog"]
    write_network(tmp_path, "own", results, subject=HOSTILE_TEXT)
    site = build_site(tmp_path, "own", config=CONFIG | {"title": HOSTILE_TEXT, "author": HOSTILE_TEXT})
    html = build_single_file(site, select_figures(tmp_path / "results", {"own": []}, "all"), 15).html
    assert "<img onerror" not in html and "&lt;img onerror" in html


def test_the_script_writes_both_and_logs_their_sizes(site: Path, tmp_path: Path) -> None:
    settings = {"layers": "highlight", "megabytes": 15, "networks": NETWORKS}
    command = [sys.executable, "scripts/publish.py", "--settings", json.dumps(settings)]
    command += ["--gallery", str(site), "--results", str(site.parent / "results")]
    command += ["--zip", str(tmp_path / "g.zip"), "--single", str(tmp_path / "g.html")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.search(r"g\.zip, \d+\.\d MB", result.stderr)
    assert re.search(r"g\.html, \d+\.\d MB, with 16 of 16 figures", result.stderr)
    assert (tmp_path / "g.html").read_text() == build_file(site)[0]


# In a browser


@pytest.mark.parametrize("scripts", [True, False])
def test_it_shows_one_page_at_a_time_alone_in_a_folder(
    site: Path, tmp_path: Path, browser: Browser, scripts: bool
) -> None:
    (tmp_path / "gallery.html").write_text(build_file(site)[0], encoding="utf-8")
    page = browser.new_context(java_script_enabled=scripts).new_page()
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("requestfailed", lambda request: faults.append(request.url[:99]))
    page.on("request", lambda request: _own(request.url, tmp_path) or faults.append(request.url[:99]))
    page.goto((tmp_path / "gallery.html").as_uri())
    shown = page.locator(".page:visible")
    assert shown.count() == 1 and shown.get_attribute("id") == "index"
    assert page.locator("h1:visible").count() == 1
    names = page.locator("header nav a").all_text_contents()
    page.locator("header summary", has_text="Networks").click()
    page.locator("header nav a", has_text="own").click()
    assert shown.count() == 1 and shown.get_attribute("id") == "networks.own"
    page.mouse.move(0, 500)  # off the link, which is underlined under a pointer
    line = "all => all.map(a => getComputedStyle(a).textDecorationLine)"
    lines = page.locator("header nav a").evaluate_all(line)
    assert [name for name, line in zip(names, lines, strict=True) if line == "underline"] == ["own"]
    page.locator(".page:visible img").last.scroll_into_view_if_needed()
    page.wait_for_timeout(200)
    if scripts:
        broken = (
            "[...document.images].filter(i => i.checkVisibility() && i.complete && !i.naturalWidth).length"
        )
        assert page.evaluate(broken) == 0
    page.goto((tmp_path / "gallery.html").as_uri() + "#networks.other/layer-conv1")
    assert shown.count() == 1 and shown.get_attribute("id") == "networks.other"
    page.locator("header a.title").click()
    assert shown.get_attribute("id") == "index"
    if scripts:
        assert not page.locator("header nav a:visible").count()  # a menu closes once a link is chosen
        page.locator("header summary", has_text="Analyses").click()
        page.locator("header nav a", has_text="Classical").click()
        before = page.locator("[data-part=sum]").first.inner_text()
        for name in ("right", "down", "left", "left", "up", "up"):
            page.locator(".convolution-example:visible").first.get_by_role("button", name=name).click()
        assert page.locator("[data-part=status]").first.inner_text() and before
    assert faults == []


def _own(url: str, folder: Path) -> bool:
    return url.startswith(("data:", (folder / "gallery.html").as_uri()))


# Shared links


def test_without_an_address_nothing_says_where_the_gallery_is(site: Path) -> None:
    assert (site / ".nojekyll").is_file() and not (site / "preview.jpg").exists()
    for path in site.rglob("*.html"):
        text = path.read_text()
        assert "canonical" not in text and "og:url" not in text and "og:image" not in text
        assert re.search(r'<meta name="description" content="[^"]+">', text)
        title = re.search(r"<title>(.*?)</title>", text)
        assert title and f'<meta property="og:title" content="{title.group(1)}">' in text


@pytest.mark.parametrize("url", ["https://a.org/atlas", "https://a.org/atlas/"])
def test_shared_links_show_where_what_and_a_small_picture(tmp_path: Path, url: str) -> None:
    site = build_full_site(tmp_path, site_url=url, author="Ada")
    for place, address in {"index.html": "", "networks/own.html": "networks/own.html"}.items():
        text = (site / place).read_text()
        assert f'<link rel="canonical" href="https://a.org/atlas/{address}">' in text
        assert f'<meta property="og:url" content="https://a.org/atlas/{address}">' in text
        assert '<meta property="og:image" content="https://a.org/atlas/preview.jpg">' in text
        assert '<meta property="og:image:alt" content="Figure 1. own.' in text
    with Image.open(site / "preview.jpg") as picture:
        assert picture.size == (1200, 630)
    assert (site / "preview.jpg").stat().st_size < 300_000


# Numbers and downloads


def test_result_files_are_copied_and_linked_where_the_config_asks_for_them(tmp_path: Path) -> None:
    site = build_full_site(tmp_path, publish={"tensors": True, "weights": False})
    own = tmp_path / "results/own"
    page = PageParser(site / "networks/own.html")
    for name in (
        "filters.npz",
        "activations/first.npz",
        "deconv/second.npz",
        "classical/units.json",
        "metrics.json",
    ):
        assert (site / "arrays/own" / name).read_bytes() == (own / name).read_bytes()
        assert f"../arrays/own/{name}" in page.links
    assert not (site / "arrays/own/weights.safetensors").exists()
    assert "../networks/own.html#downloads" in page.links  # where there is a file for each image
    for path in site.rglob("*.html"):
        for link in PageParser(path).links:
            if "arrays/" in link:
                assert (path.parent / link).resolve().is_file()


def test_weights_are_copied_alone_too(tmp_path: Path) -> None:
    (tmp_path / "results/own").mkdir(parents=True)
    (tmp_path / "results/own/weights.safetensors").write_bytes(b"weights")
    site = build_full_site(tmp_path, publish={"tensors": False, "weights": True})
    assert [path.name for path in (site / "arrays").rglob("*.*")] == ["weights.safetensors"]
    assert "../arrays/own/weights.safetensors" in PageParser(site / "networks/own.html").links
    assert "../arrays/own/filters.npz" not in PageParser(site / "networks/own.html").links


def test_no_result_file_is_copied_by_default(site: Path) -> None:
    assert not (site / "arrays").exists()
    text = (site / "networks/own.html").read_text()
    assert "results/own/filters.npz" in text and 'id="downloads"' not in text


def test_names_of_result_files_are_linked() -> None:
    published = {"arrays/own/filters.npz", "arrays/own/deconv/first.npz"}
    assert link_files("results/own/filters.npz, a <b>", "../", published) == (
        '<a href="../arrays/own/filters.npz">results/own/filters.npz</a>, a &lt;b&gt;'
    )
    assert link_files("results/own/deconv/<image>.npz", "", published) == (
        '<a href="networks/own.html#downloads">results/own/deconv/&lt;image&gt;.npz</a>'
    )
    assert link_files("results/own/metrics.json", "", published) == "results/own/metrics.json"
    assert link_files("both of these", "", published) == "both of these"


def test_each_figure_downloads_as_png_and_as_pdf_where_there_is_one(site: Path) -> None:
    links = PageParser(site / "networks/own.html").links
    assert "../figures/own/cover-0.pdf" in links
    for link in (link for link in links if link.startswith("../figures/")):
        assert (site / "networks" / link).resolve().is_file()
    text = (site / "networks/own.html").read_text()
    numbers = [
        re.findall(
            rf'href="../figures/own/{kind}-{n}.png" download aria-label="PNG of figure (\d+)">PNG<', text
        )
        for n, (kind, _) in enumerate(KINDS)
    ]
    assert sorted(numbers) == [[str(n)] for n in range(1, len(KINDS) + 1)]


# The workflow for GitHub Pages


def test_the_workflow_takes_a_config_and_has_the_least_permissions() -> None:
    text = (ROOT / ".github/workflows/pages.yml").read_text()
    flow = yaml.safe_load(text)
    assert "config" in flow[True]["workflow_dispatch"]["inputs"]  # YAML reads `on` as true
    assert flow["permissions"] == {"contents": "read"}
    assert flow["jobs"]["make"]["permissions"] == {"contents": "read", "pages": "read"}
    assert flow["jobs"]["publish"]["permissions"] == {"pages": "write", "id-token": "write"}
    steps = [step for job in flow["jobs"].values() for step in job["steps"]]
    for step in steps:
        assert re.fullmatch(r"actions/[a-z-]+@v\d+\.\d+\.\d+", step.get("uses", "actions/none@v0.0.0"))
        assert "${{" not in step.get("run", "")  # no input is part of a script
    (run_step,) = [step for step in steps if "run" in step]
    assert "make publish" in run_step["run"]
    assert re.search(r"^publish:", (ROOT / "Makefile").read_text(), re.M)
