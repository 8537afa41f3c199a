"""The numbers of the figures of a page."""

from convatlas.gallery.figure_numbers import (
    FIGURE_START,
    NUMBER_MARK,
    mark_figure_range,
    number_figures,
    renumber_figures,
)
from convatlas.gallery.html_tree import parse_html


def make_figure() -> str:
    return f'{FIGURE_START}><i>Figure <b class="figure-number">{NUMBER_MARK}</b> {NUMBER_MARK}</i></figure>'


def make_page() -> str:
    collapsed = f'<details><summary class="figure-range">{mark_figure_range(2)}</summary>'
    return f"<main>{make_figure()}{collapsed}{make_figure() * 2}</details>{make_figure()}</main>"


def test_figures_are_numbered_in_the_order_of_the_page() -> None:
    html = number_figures(make_page())
    numbers = [html.split("</b>")[n][-1] for n in range(4)]
    assert numbers == ["1", "2", "3", "4"] and "4</b> 4</i>" in html
    assert "figures 2–3</summary>" in html


def test_numbers_have_no_gap_where_figures_were_removed() -> None:
    page = parse_html(number_figures(make_page()))
    main = page.children[0]
    assert not isinstance(main, str)
    details = main.children[1]
    assert not isinstance(details, str)
    del main.children[0], details.children[1]
    renumber_figures(page)
    html = page.to_html()
    assert [html.split("</b>")[n][-1] for n in range(2)] == ["1", "2"]
    assert "figure 1</summary>" in html
