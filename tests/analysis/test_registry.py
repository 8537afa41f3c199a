"""The registry of the analyses that `views` turns on."""

from typing import Any
from unittest.mock import Mock

import pytest
import yaml

from convatlas.analysis import registry
from convatlas.analysis.registry import ANALYSES, Analysis
from convatlas.gallery.pages import analyses as page
from convatlas.pipeline.config import SCHEMA_PATH
from convatlas.pipeline.config_types import DatasetConfig, NetworkConfig, ViewsConfig
from convatlas.pipeline.resources import STAGE_ESTIMATORS
from convatlas.results import Results
from tests.support.workspace import ROOT


def need_dataset(network: NetworkConfig, dataset: DatasetConfig | None) -> str | None:
    """Return the obstacle of an analysis that needs a data set."""
    return None if dataset else "it needs a data set: set `dataset`"


LABELS = Analysis("labels", "Labels", "What are the labels?", need_dataset)


def make_config(**views: Any) -> Any:
    """Return a config of a network `with_data` and a network `without`, with the same views."""
    networks = {"with_data": {"dataset": "digits", "views": views}, "without": {"views": views}}
    return {"networks": networks, "datasets": {"digits": {"format": "mnist"}}}


def test_an_analysis_is_computed_where_it_is_requested_and_lacks_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "ANALYSES", (LABELS,))
    on, off = make_config(labels={}), make_config(labels=None)
    assert registry.list_computed(on, "with_data") == [LABELS]
    assert registry.list_computed(on, "without") == registry.list_computed(off, "with_data") == []
    assert list(registry.describe_obstacles(on)) == [
        "networks.without.views.labels: not computed: it needs a data set: set `dataset`"
    ]
    assert list(registry.describe_obstacles(off)) == []


@pytest.mark.parametrize("analysis", ANALYSES, ids=lambda analysis: analysis.name)
def test_every_analysis_has_its_parts(analysis: Analysis) -> None:
    schema = yaml.safe_load(SCHEMA_PATH.read_text(encoding="utf-8"))["$defs"]["views"]["properties"]
    assert schema[analysis.name]["type"] == ["object", "null"]
    assert schema[analysis.name]["default"] is None
    assert analysis.name in ViewsConfig.__annotations__
    assert (ROOT / f"scripts/{analysis.name}.py").is_file()
    assert analysis.name in STAGE_ESTIMATORS
    assert hasattr(Results, analysis.name)
    assert analysis.name in page.SUMMARIES


@pytest.mark.parametrize(
    ("name", "views", "text"),
    [
        ("without", {}, "Not computed: it needs a data set: set `dataset`."),
        ("without", None, "Off, and not possible: it needs a data set: set `dataset`."),
        ("with_data", None, "Off. views.labels: {} turns it on."),
    ],
)
def test_the_overview_says_what_is_off_and_what_is_lacking(
    name: str, views: dict[str, Any] | None, text: str
) -> None:
    network = Mock()
    network.name = name
    assert page.describe_analysis(make_config(labels=views), network, LABELS).text == text
