"""The terms of the field on the pages, and the page of the glossary."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from convatlas.gallery.glossary import mark_terms, read_terms
from tests.support.site import build_site, write_network


def list_marks(html: str) -> list[str]:
    """Return the marked texts of a page, with spaces for tags before them."""
    return re.findall(r'<a class="term" href="[^"]*" title="[^"]+">(.*?)</a>', html, re.S)


def mark(content: str) -> str:
    return mark_terms(f"<head>unit</head><nav>unit</nav><main>{content}</main><footer>unit</footer>", "../")


def test_each_term_is_marked_where_it_first_stands_in_running_text() -> None:
    html = mark(
        '<h2>Stride</h2><p>A <a href="x">stride</a>, <code>stride</code>, <b>Strides</b> and stride.</p>'
        '<svg><text>padding</text></svg><p hidden>padding</p><table><th scope="col">padding</th>'
        '<th scope="row">dilation</th><td>dilation</td></table><p class="formula">dilation</p>'
    )
    assert list_marks(html) == ["Strides", "padding"]
    assert '<b><a class="term" href="../glossary.html#stride" title="' in html
    assert html.startswith("<head>unit</head><nav>unit</nav>") and html.endswith("<footer>unit</footer>")


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("max\n  pooling, pooling", ["max\n  pooling"]),
        ("a multi-unit, unit-wise, unity or sub_unit", []),
        ("erosion, dilation of an image; dilation 2", ["erosion, dilation", "dilation"]),
        ("Grad-CAM &amp; ReLU", ["Grad-CAM", "ReLU"]),
        ("trimaps, switches and confusion matrices", ["trimaps", "switches", "confusion matrices"]),
    ],
)
def test_terms_are_words_and_the_longest_is_marked(text: str, marks: list[str]) -> None:
    assert list_marks(mark(f"<p>{text}</p>")) == marks


def test_collapsed_text_counts_after_other_text() -> None:
    html = mark("<details><summary>unit</summary><p>unit, logit</p></details><p>the unit</p>")
    assert "<p>unit, <a" in html and "the <a" in html
    assert "<details open><p><a" in mark("<details open><p>unit</p></details><p>unit</p>")


def test_a_page_without_marks_is_unchanged() -> None:
    html = mark('<p>Nothing &lt;here&gt;</p><script>"unit"</script>')
    assert html == mark_terms(html, "") and not list_marks(html)


def test_every_term_has_a_short_definition_and_a_source() -> None:
    terms = read_terms()
    assert len({term.slug for term in terms}) == len(terms) >= 60
    forms = [form.lower() for term in terms for form in (term.name, *term.forms)]
    assert len({*forms}) == len(forms)
    for term in terms:
        assert 20 < len(term.definition) < 300 and term.definition.endswith("."), term.name
        assert term.source and term.url.startswith(("", "https://")), term.name


def test_a_definition_opens_on_hover_focus_and_tap_within_a_narrow_page(
    browser: Browser, tmp_path: Path
) -> None:
    write_network(tmp_path, "own")
    site = build_site(tmp_path, "own")
    glossary = (site / "glossary.html").read_text()
    assert 'class="term"' not in glossary and 'id="receptive-field"' in glossary
    page = browser.new_page(viewport={"width": 360, "height": 640}, has_touch=True)
    page.goto((site / "networks/own.html").as_uri())
    term, definition = page.locator("main a.term:visible").first, page.locator("#term-definition")
    text = term.get_attribute("title")

    def check_shown() -> None:
        definition.wait_for()
        assert definition.inner_text() == text
        assert term.get_attribute("aria-describedby") == "term-definition"
        box = definition.bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= 360 and box["y"] >= 0
        page.keyboard.press("Escape")
        definition.wait_for(state="hidden")

    term.hover()
    check_shown()
    page.mouse.move(0, 0)
    term.tap()
    check_shown()
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    check_shown()
    page.close()
