"""Tables that sort, filter and export CSV in a browser, against the same done with Python."""

import csv
import io
import zlib
from base64 import b64decode
from html import escape
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

from convatlas.gallery.table_data import TableColumn, dump_table
from tests.support.browser import needs_chromium
from tests.support.site import HOSTILE_TEXT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

STATIC = Path(__file__).parents[2] / "convatlas/gallery/static"
N_ROWS = 20_000
SHORT_ROWS = [  # name, number in full precision (None is empty), its text
    ('say "a, b"', 1234.56789, "1,230"),
    ("layer10", -0.25, "−0.25"),
    ("layer2", 0.25, "0.25"),
    (HOSTILE_TEXT, None, "–"),
    ("Layer3", 0.25, "0.25"),
    ("=1+2", 1e-7, "1e−7"),
]
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>A table</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="static/style.css"></head><body><main><h1>A table</h1>
<div class="frame" role="region" tabindex="0" aria-label="The table">{}</div></main>
<script src="static/dom.js" defer></script><script src="static/table.js" defer></script></body></html>"""


def make_short_table() -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}<span class="visually-hidden"> hidden</span></th>'
        f'<td class="number" data-value="{"" if value is None else value}">{text}</td><td>bar</td></tr>'
        for name, value, text in SHORT_ROWS
    )
    head = '<th scope="col">name</th><th scope="col" class="number">score</th><td data-plain></td>'
    return f'<table data-table="short"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def make_columns() -> list[TableColumn]:
    rng = np.random.default_rng(0)
    maximum = rng.normal(size=N_ROWS).astype(np.float32).round(2)  # with equal values
    maximum[rng.random(N_ROWS) < 0.1] = np.nan
    return [
        TableColumn("layer", "layer", np.arange(N_ROWS) // 5000, ["conv1", "relu/1", "b", HOSTILE_TEXT]),
        TableColumn("unit", "unit", np.arange(N_ROWS) % 5000, is_header=True, is_link=True),
        TableColumn("max", "maximum", maximum),
        TableColumn("class", "class", rng.integers(-1, 2, N_ROWS), ["ant", "bee"]),
    ]


def make_long_table(columns: list[TableColumn]) -> str:
    head = "".join(
        f'<th scope="col"{" class=number" if column.is_number else ""}>{column.title}</th>'
        for column in columns
    )
    attributes = (
        'data-table="long" data-noun="unit|units" data-source="rows" data-address '
        'data-row-link="net.html#layer={layer}&amp;unit={unit}"'
    )
    return (
        f"<table {attributes}><thead><tr>{head}</tr></thead><tbody></tbody></table>"
        f'<script type="application/json" id="rows">{dump_table(columns)}</script>'
    )


def open_table(browser: "Browser", folder: Path, table: str, width: int = 1280, fragment: str = "") -> "Page":
    (folder / "page.html").write_text(PAGE.format(table), encoding="utf-8")
    if not (folder / "static").exists():
        (folder / "static").symlink_to(STATIC)
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto((folder / "page.html").as_uri() + fragment)
    page.locator(".table-tools").first.wait_for()
    return page


def export_csv(page: "Page") -> list[list[str]]:
    with page.expect_download() as download:
        page.get_by_role("button", name="Export CSV").click()
    text = Path(download.value.path()).read_text(encoding="utf-8")
    return list(csv.reader(io.StringIO(text, newline="")))


def read_names(page: "Page") -> list[str]:
    return [text.removesuffix(" hidden") for text in page.locator("tbody th").all_text_contents()]


@needs_chromium
def test_long_names_break_at_dots_on_a_narrow_screen(browser: "Browser", tmp_path: Path) -> None:
    name = "encoder.0.attention.1.conv"
    cells = '<td class="number">1,234,567,890</td>' * 3
    heads = '<th scope="col" class="number">number</th>' * 3
    row = f'<tr><th scope="row"><a href="#x">{name}</a></th>{cells}</tr>'
    table = (
        f'<table data-table="names"><thead><tr><th scope="col">layer</th>{heads}</tr></thead>'
        f"<tbody>{row}</tbody></table>"
    )
    for width, breaks in ((1280, 0), (360, 4)):
        page = open_table(browser, tmp_path, table, width)
        header = page.locator("tbody th")
        assert (header.text_content(), header.locator("wbr").count()) == (name, breaks)
        is_wrapped = "a => a.getBoundingClientRect().height > 1.5 * a.getClientRects()[0].height"
        assert page.locator("tbody a").evaluate(is_wrapped) == (width == 360)
        page.close()


@needs_chromium
def test_a_table_in_the_page_sorts_filters_and_exports(browser: "Browser", tmp_path: Path) -> None:
    page = open_table(browser, tmp_path, make_short_table(), 360)
    names = [name for name, _, _ in SHORT_ROWS]
    values = ["1234.56789", "-0.25", "0.25", "", "0.25", "1e-07"]
    rows = [list(row) for row in zip(names, values, strict=True)]
    assert export_csv(page) == [["name", "score"], *rows]

    header = page.get_by_role("columnheader", name="score")
    header.get_by_role("button").press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    assert export_csv(page)[1:] == [rows[n] for n in (0, 2, 4, 5, 1, 3)]  # stable, the empty value last
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    assert read_names(page) == [names[n] for n in (1, 5, 2, 4, 0, 3)]
    page.get_by_role("columnheader", name="name").get_by_role("button").click()
    assert [name for name in read_names(page) if "ayer" in name] == ["layer2", "Layer3", "layer10"]

    page.get_by_role("button", name="Filter columns").click()
    score = page.get_by_role("textbox", name="Filter score")
    for condition, expected in {
        "> 0.25": 1, ">= .25": 3, "0..1": 3, "-1 to 0": 1, ">= 0 <= 1": 3, "≥ 0, < 1": 3, "0.25": 2,
        "!= 0.25": 3, "empty": 1, "−0.25": 1, "> 1,000": 1,
    }.items():  # fmt: skip
        score.fill(condition)
        assert len(read_names(page)) == expected, condition
    assert page.get_by_role("status").text_content() == "1 of 6 rows"
    score.fill("> x")
    assert score.get_attribute("aria-invalid") == "true"
    assert "no condition on score" in str(page.get_by_role("status").text_content())
    score.fill("")
    page.get_by_role("searchbox").fill("LAYER")
    assert page.get_by_role("status").text_content() == "3 of 6 rows"
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert Axe().run(page).response["violations"] == []
    page.close()


@needs_chromium
def test_a_table_of_many_rows_makes_those_that_it_shows(browser: "Browser", tmp_path: Path) -> None:
    columns = make_columns()
    layers, units, maxima, classes = (column.values for column in columns)
    page = open_table(
        browser, tmp_path, make_long_table(columns), fragment="#layer=relu%2F1&max=%3E+0.5&sort=-max"
    )
    expected = np.flatnonzero((layers == 1) & (maxima > 0.5))
    expected = expected[np.argsort(-maxima[expected], kind="stable")]
    exported = export_csv(page)
    assert exported[0] == ["layer", "unit", "maximum", "class"]
    assert [int(row[1]) for row in exported[1:]] == units[expected].tolist()
    np.testing.assert_array_equal(np.float32([row[2] for row in exported[1:]]), maxima[expected])
    assert [row[3] for row in exported[1:]] == [["ant", "bee", ""][n] for n in classes[expected]]
    link = page.locator("tbody a").first
    assert link.get_attribute("href") == f"net.html#layer=relu%2F1&unit={units[expected[0]]}"

    assert page.locator("tbody tr").count() == 100
    page.get_by_role("button", name="Next").click()
    cells = [column.format_cell(expected[100]) for column in columns]
    assert page.locator("tbody tr").first.locator("th, td").all_text_contents() == cells
    page.get_by_role("textbox", name="Filter maximum").fill("<= 0.1")  # of float32 numbers
    page.get_by_role("combobox", name="Filter layer").select_option("")
    count = int((maxima <= np.float32(0.1)).sum())
    assert page.locator(".count").text_content() == f"{count:,} of 20,000 units"
    assert "max=%3C%3D+0.1" in page.url
    assert Axe().run(page).response["violations"] == []
    page.close()


@pytest.mark.parametrize(
    ("value", "text"),
    [(np.nan, "–"), (0.0, "0"), (-0.25, "−0.25"), (1234567.0, "1230000"), (1.5e-7, "1.5e−7")],
)
def test_a_number_is_written_as_the_script_writes_it(value: float, text: str) -> None:
    assert TableColumn("a", "a", np.array([value])).format_cell(0) == text


def test_the_rows_are_float32_by_columns_and_planes_of_bytes() -> None:
    columns = make_columns()
    table = loads(dump_table(columns))
    planes = np.frombuffer(zlib.decompress(b64decode(table["data"])), np.uint8)
    values = planes.reshape(len(columns), 4, N_ROWS).transpose(0, 2, 1).copy().view("<f4")[..., 0]
    for n, column in enumerate(columns):
        np.testing.assert_array_equal(values[n], column.values.astype(np.float32))
    assert "<" not in dump_table(columns)
