"""The user's notes: their Markdown, their positions in the gallery, and errors."""

import json
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup

from convatlas import UserError
from convatlas.gallery import layer_pages
from convatlas.gallery.notes import Notes, render_markdown
from convatlas.pipeline.config import resolve_config
from tests.pipeline.test_config import merged
from tests.support.fake_results import make_results
from tests.support.site import CONFIG, HOSTILE_TEXT, PageParser, build_site, write_network

LAYERS = make_results().layers
KEY = "networks.own.notes"


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("", ""),
        ("*a* **b** `c`", "<p><em>a</em> <strong>b</strong> <code>c</code></p>\n"),
        ("- a\n- b", "<ul>\n<li>a</li>\n<li>b</li>\n</ul>\n"),
        ("<b>a</b>", "<p>&lt;b&gt;a&lt;/b&gt;</p>\n"),
        ("<script>x</script>", "<p>&lt;script&gt;x&lt;/script&gt;</p>\n"),
        (HOSTILE_TEXT, "<p>&lt;img onerror=1 src=&quot;x&quot;&gt;&amp;</p>\n"),  # &amp; is an & in Markdown
        ("[a](javascript:alert(1))", "<p>[a](javascript:alert(1))</p>\n"),
        ("[a](masks.html#b)", '<p><a href="../masks.html#b">a</a></p>\n'),
        ("[a](#b)", '<p><a href="#b">a</a></p>\n'),
        ("[a](https://b.org/c?d=e&f)", '<p><a href="https://b.org/c?d=e&amp;f">a</a></p>\n'),
        ("[a][1]\n\n[1]: masks.html", '<p><a href="../masks.html">a</a></p>\n'),
        ("# A\n\nb\n-", '<p class="heading">A</p>\n<p class="heading">b</p>\n'),
        ('![<i>](p.png "t")', '<p><a href="../p.png">&lt;i&gt;</a></p>\n'),
        ("![](https://b.org/p.png)", '<p><a href="https://b.org/p.png">https://b.org/p.png</a></p>\n'),
        ("[![i](p.png)](q.html)", '<p><a href="../q.html">i</a></p>\n'),
    ],
)
def test_markdown(text: str, html: str) -> None:
    assert render_markdown(text, "../") == Markup(html)


def test_notes_of_layers_and_units() -> None:
    config = {
        "text": "t",
        "layers": {"conv1": "l"},
        "units": {"relu:2 17": "b", "relu:2 3": "a", "conv1 0": "c"},
    }
    notes = Notes.from_config(config, LAYERS, KEY)
    assert (notes.text, notes.layers) == ("<p>t</p>\n", {"conv1": "<p>l</p>\n"})
    assert notes.units == {"relu:2": {3: "<p>a</p>\n", 17: "<p>b</p>\n"}, "conv1": {0: "<p>c</p>\n"}}
    assert list(notes.units["relu:2"]) == [3, 17]
    assert Notes.from_config("t", LAYERS, KEY) == Notes(Markup("<p>t</p>\n"), {}, {})
    assert Notes.from_config(None, LAYERS, KEY) == Notes(Markup(), {}, {})


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        ({"layers": {"conv7": "x"}}, f"{KEY}.layers: no layer 'conv7'; did you mean 'conv1'?"),
        ({"units": {"conv7 1": "x"}}, f"{KEY}.units: no layer 'conv7'; did you mean 'conv1'?"),
        ({"units": {"conv1 5": "x"}}, f"{KEY}.units: no unit 'conv1 5'; conv1 has units 0 to 4"),
        ({"units": {"never 0": "x"}}, f"{KEY}.units: no unit 'never 0'; never is never called"),
    ],
)
def test_unknown_layers_and_units_are_named(notes: dict[str, Any], message: str) -> None:
    layers = [*LAYERS, next(layer for layer in LAYERS if not layer["called"]) | {"name": "never"}]
    with pytest.raises(UserError) as error:
        Notes.from_config(notes, layers, KEY)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"notes": {"text": "a"}}, "notes: got"),
        ({"author": 3}, "author: got 3 (a number); allowed: text"),
        ({"site_url": "www.example.org"}, "site_url: got 'www.example.org' (text)"),
        ({"networks": {"lenet5": {"notes": {"layer": {}}}}}, "networks.lenet5.notes: unknown key 'layer'"),
        (
            {"networks": {"lenet5": {"notes": {"units": {"conv1": "x"}}}}},
            "networks.lenet5.notes.units: 'conv1' is not the name of a layer, a space and the number",
        ),
        ({"publish": {"single_file": {"layers": "some"}}}, "publish.single_file.layers: got 'some' (text)"),
    ],
)
def test_a_wrong_config_is_refused_before_any_job(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        resolve_config(merged(json.dumps(change)))
    assert message in str(error.value)


def test_nothing_is_published_unless_asked_for() -> None:
    config = resolve_config(merged("{}"))
    assert not {"author", "notes", "site_url"} & config.keys()
    assert not any("notes" in network for network in config["networks"].values())
    assert config["publish"]["tensors"] is config["publish"]["weights"] is False


def build_site_with_notes(folder: Path, **more: Any) -> Path:
    write_network(folder, "own")
    notes = {
        "text": f"Of the *network* {HOSTILE_TEXT}",
        "layers": {"conv1": "Of the layer", "fc": "Of one without figures"},
        "units": {"conv1 3": "Of the [unit](masks.html)"},
    }
    network = CONFIG["networks"]["own"] | {"notes": notes}
    return build_site(folder, "own", config=CONFIG | {"networks": {"own": network}} | more)


def test_notes_are_on_the_pages_of_their_subjects(tmp_path: Path) -> None:
    site = build_site_with_notes(tmp_path, notes="Of the **run**", author=f"Ada {HOSTILE_TEXT}")
    page, index = (PageParser(site / name) for name in ("networks/own.html", "index.html"))
    assert "Of the run" in index.text and "Of the network" not in index.text
    text = " ".join(page.text.split())
    order = ["Of the network <img onerror", "Of one without figures", "In the primer", "Of the layer"]
    order += ["Unit 3", "Of the unit"]
    positions = [text.index(words) for words in order]
    assert positions == sorted(positions)
    assert "../masks.html" in page.links
    for path in site.rglob("*.html"):
        assert f"By Ada {HOSTILE_TEXT}." in PageParser(path).text
        assert '<meta name="author" content="Ada &lt;img' in path.read_text()


def test_notes_on_layers_whose_figures_are_on_another_page_are_on_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The explorer, on the network's page, copies them from there."""
    monkeypatch.setattr(layer_pages, "MAX_INLINE_LAYERS", 0)
    site = build_site_with_notes(tmp_path)
    for name in ("networks/own.html", "networks/own-figures.html"):
        text = PageParser(site / name).text
        assert text.count("Of the layer") == text.count("Of the unit") == 1


def test_without_notes_nothing_is_shown(tmp_path: Path) -> None:
    write_network(tmp_path, "own")
    site = build_site(tmp_path, "own")
    for path in site.rglob("*.html"):
        assert 'class="notes"' not in path.read_text() and 'name="author"' not in path.read_text()
