"""What machines read: JSON-LD on the pages, model cards with front matter, and the RO-Crate."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from convatlas.files import write_json
from tests.support.fake_results import make_minimal_results, make_results
from tests.support.site import CONFIG, DATASET, HOSTILE_TEXT, build_site, write_network

SCRIPT = re.compile(r'<script type="application/ld\+json">(.*?)</script>', re.DOTALL)


def build(folder: Path, **config: Any) -> Path:
    results = make_results()
    results.network["source"] = HOSTILE_TEXT
    write_network(folder, "own", results)
    write_network(folder, "other", make_minimal_results())
    write_json(folder / "data/animals/dataset.json", DATASET | {"title": HOSTILE_TEXT})
    return build_site(folder, "own", "other", config=CONFIG | {"title": HOSTILE_TEXT} | config)


def read_json_ld(page: Path) -> dict[str, Any]:
    match = SCRIPT.search(page.read_text(encoding="utf-8"))
    assert match, page
    return json.loads(match[1])


def test_pages_have_valid_json_ld(tmp_path: Path) -> None:
    site = build(tmp_path)
    index = read_json_ld(site / "index.html")
    assert index["@context"] == "https://schema.org"
    assert (index["@type"], index["name"]) == ("WebSite", HOSTILE_TEXT)
    own = read_json_ld(site / "networks/own.html")
    required = {"@type", "name", "description", "license", "citation", "variableMeasured", "distribution"}
    assert required <= set(own)
    assert own["@type"] == "Dataset"
    assert 50 <= len(own["description"]) <= 5000  # of Google's Dataset Search
    measured = {variable["name"]: variable.get("value") for variable in own["variableMeasured"]}
    assert measured["Test accuracy"] == 1.0
    for download in own["distribution"]:
        assert (site / "networks" / download["contentUrl"]).is_file()
    assert "creator" not in own  # the config names no author
    other = read_json_ld(site / "networks/other.html")
    assert {"isBasedOn", "value"}.isdisjoint(other)
    dataset = read_json_ld(site / "datasets/animals.html")
    assert (dataset["name"], dataset["@type"]) == (HOSTILE_TEXT, "Dataset")
    assert dataset["identifier"].startswith("sha256:")
    assert not SCRIPT.search((site / "cite.html").read_text())


def test_addresses_are_absolute_where_the_site_is_known(tmp_path: Path) -> None:
    site = build(tmp_path, site_url="https://example.org/atlas/", author="A. Person", licence="CC-BY-4.0")
    own = read_json_ld(site / "networks/own.html")
    assert own["url"] == "https://example.org/atlas/networks/own.html"
    assert own["creator"] == {"@type": "Person", "name": "A. Person"}
    assert own["license"]["url"] == "https://spdx.org/licenses/CC-BY-4.0.html"


def test_model_cards_have_front_matter(tmp_path: Path) -> None:
    site = build(tmp_path)
    text = (site / "cards/own/README.md").read_text()
    _, front_matter, body = text.split("---\n", 2)
    card = yaml.safe_load(front_matter)
    assert card["pipeline_tag"] == "image-classification"
    (model,) = card["model-index"]
    (result,) = model["results"]
    assert (model["name"], result["task"]) == ("own", {"type": "image-classification"})
    assert result["dataset"] == {"name": HOSTILE_TEXT, "type": "animals", "split": "test"}
    assert result["metrics"] == [{"type": "accuracy", "name": "Test accuracy", "value": 1.0}]
    assert HOSTILE_TEXT not in body
    assert all(f"\n## {title}\n" in body for title in ("Intended use", "Evaluation", "Limits", "Citation"))
    assert 'href="../cards/own/README.md"' in (site / "networks/own.html").read_text()
    _, front_matter, body = (site / "cards/other/README.md").read_text().split("---\n", 2)
    assert {"model-index", "metrics", "pipeline_tag"}.isdisjoint(yaml.safe_load(front_matter))
    assert "Nothing was measured" in body


def test_a_published_gallery_is_an_ro_crate(tmp_path: Path) -> None:
    """The requirements of RO-Crate 1.1 on the descriptor, the root and the data entities."""
    site = build(tmp_path, published="2026-01-31", author="A. Person")
    crate = json.loads((site / "ro-crate-metadata.json").read_text())
    assert crate["@context"] == "https://w3id.org/ro/crate/1.1/context"
    entities = {entity["@id"]: entity for entity in crate["@graph"]}
    assert len(entities) == len(crate["@graph"])
    descriptor = entities["ro-crate-metadata.json"]
    assert descriptor["@type"] == "CreativeWork"
    assert descriptor["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    root = entities[descriptor["about"]["@id"]]
    assert (root["@id"], root["@type"], root["datePublished"]) == ("./", "Dataset", "2026-01-31")
    assert {"name", "description", "license"} <= set(root)
    for entity in crate["@graph"]:
        assert {"@id", "@type", "name"} <= set(entity) or entity is descriptor
        for value in entity.values():
            for reference in value if isinstance(value, list) else [value]:
                if isinstance(reference, dict):
                    assert reference["@id"] in entities or reference == descriptor["conformsTo"]
    parts = [part["@id"] for part in root["hasPart"]]
    assert {"index.html", "references.bib", "cards/own/README.md"} <= set(parts)
    assert all((site / part).is_file() for part in parts)
    assert "ro-crate-metadata.json" not in parts


def test_without_a_date_there_is_no_crate(tmp_path: Path) -> None:
    assert not (build(tmp_path) / "ro-crate-metadata.json").exists()
