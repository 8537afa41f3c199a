"""What a run is to cite: BibTeX that parses, with what the user gives as text."""

import re
from pathlib import Path

import pytest
import yaml

from convatlas import __version__
from convatlas.gallery.references import (
    METHOD_KEYS,
    NETWORK_KEYS,
    _read_entries,
    cite_own_network,
    cite_run,
    find_dataset_keys,
    find_network_key,
)
from tests.support.fake_results import make_minimal_results
from tests.support.site import CONFIG, HOSTILE_TEXT, PageParser, build_site, write_network
from tests.support.workspace import ROOT


def count_unbalanced(text: str) -> int:
    """Return the number of opening braces without a closing one."""
    plain = re.sub(r"\\[{}]", "", text)
    return plain.count("{") - plain.count("}")


def test_each_entry_is_complete() -> None:
    entries = _read_entries()
    keys = {*METHOD_KEYS.values(), *NETWORK_KEYS.values()}
    assert keys <= set(entries)
    for key, entry in entries.items():
        assert re.match(rf"@(article|inproceedings|misc)\{{{key},\n", entry.bibtex)
        assert count_unbalanced(entry.bibtex) == 0
        fields = dict(re.findall(r"^  (\w+) = \{(.*)\},?$", entry.bibtex, re.MULTILINE))
        assert len(fields) == entry.bibtex.count(" = ")
        assert {"title", "author"} <= set(fields)
        assert key == "convatlas" or re.fullmatch(r"(19|20)\d\d", fields["year"])
        assert not set("{}\\") & set(entry.text)
        assert entry.url.startswith("https://") or key == "krizhevsky2012"


def test_the_software_is_that_of_the_citation_file() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    bibtex = _read_entries()["convatlas"].bibtex
    assert citation["title"] in bibtex
    assert f"{{{citation['authors'][0]['name']}}}" in bibtex
    assert citation["version"] == __version__
    assert f"Version {__version__}" in bibtex


@pytest.mark.parametrize(
    ("architecture", "key"),
    [
        ("lenet5", "lecun1998"),
        ("torchvision/resnet50", "he2016"),
        ("torchvision/efficientnet_b0", "tan2019"),
        ("torchvision/mobilenet_v3_small", "howard2019"),
        ("simple_cnn", None),
        ("my/lenet5", None),
        ("own.resnet:build", None),
    ],
)
def test_the_paper_of_an_architecture(architecture: str, key: str | None) -> None:
    assert find_network_key({"architecture": architecture}) == key  # type: ignore[typeddict-item]


def test_the_papers_of_data_sets() -> None:
    def find(**dataset: str) -> list[str]:
        return find_dataset_keys(dataset)  # type: ignore[arg-type]

    assert find(format="mnist", source="download") == ["lecun1998"]
    assert find(format="mnist", source="embedded") == ["alpaydin1998"]
    assert find(format="oxford-iiit-pet", source="/data/pets") == ["parkhi2012"]
    assert find(format="images", source="mine") == []


def test_texts_of_the_user_are_escaped() -> None:
    config = {"title": "100 % of {it} & \\more", "author": "A_B", "site_url": "https://example.org/"}
    bibtex = cite_run(config, "0123456789ab").bibtex
    assert count_unbalanced(bibtex) == 0
    assert r"{{100 \% of \{it\} \& \textbackslash{}more}}" in bibtex
    assert r"author = {{A\_B}}" in bibtex
    own = cite_own_network("net", "Me & You, 2020")
    assert own.bibtex == "@misc{net,\n  note = {Me \\& You, 2020}\n}"
    entry = '@article{me2020,\n  author = "Me, A. and You, B.",\n  title = {It},\n  year = 2020\n}'
    own = cite_own_network("net", entry)
    assert (own.key, own.bibtex, own.text) == ("me2020", entry, "A. Me, B. You. It. 2020.")
    assert (
        cite_own_network("net", "@misc{k, title={A {B}}, author={D E}, year=2001}").text == "D E. A B. 2001."
    )
    broken = cite_own_network("net", "@misc{k, title={A")
    assert (broken.key, count_unbalanced(broken.bibtex)) == ("net", 0)


def test_the_page_and_the_file_list_the_same(tmp_path: Path) -> None:
    write_network(tmp_path, "own")
    write_network(tmp_path, "bare", make_minimal_results())
    config = CONFIG | {
        "networks": {**CONFIG["networks"], "own": CONFIG["networks"]["own"] | {"citation": HOSTILE_TEXT}}
    }
    site = build_site(tmp_path, "own", config=config)
    text = PageParser(site / "cite.html").text
    bibtex = (site / "references.bib").read_text()
    assert HOSTILE_TEXT in text
    assert count_unbalanced(bibtex) == 0
    entries = re.findall(r"^@\w+\{([^,]+),", bibtex, re.MULTILINE)
    assert len(entries) == len(set(entries)) >= 4
    assert all(f"{{{key}," in text for key in entries)
    assert "zeiler2014" in entries
    run = next(key for key in entries if key.startswith("convatlas-"))
    assert f"{{{run}," in PageParser(site / "networks/own.html").text
