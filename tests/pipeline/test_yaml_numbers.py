"""Numbers with an exponent in YAML: numbers where a number is meant, and text in quotes."""

from typing import Any

import pytest
import yaml

from convatlas.pipeline.config import resolve_config
from convatlas.pipeline.yaml_numbers import ExponentNumber, convert_exponent_number, mark_exponent_numbers


class Loader(yaml.SafeLoader):
    """A loader as Snakemake's own, which other tests do not share."""


mark_exponent_numbers(Loader)


def resolve_network(text: str) -> dict[str, Any]:
    """Return a network of the config with these settings, read as Snakemake reads them."""
    settings = yaml.load(text, Loader)
    config = {"datasets": {"d": {"format": "mnist"}}, "networks": {"n": {"dataset": "d", **settings}}}
    config["networks"]["n"].setdefault("architecture", "lenet5")
    return dict(resolve_config(config)["networks"]["n"])


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.0e-3", ".1e-2", "+10e-4", "0.001"])
def test_numbers_in_arguments_are_numbers_at_any_depth(text: str) -> None:
    arguments = resolve_network(f"arguments: {{eps: {text}, blocks: [{{drop: [{text}, 2]}}]}}")["arguments"]
    assert arguments == {"eps": 0.001, "blocks": [{"drop": [0.001, 2]}]}
    assert type(arguments["eps"]) is float


@pytest.mark.parametrize("text", ['"1e-3"', "'1e-3'", "1e", "e3", "1e-3x", "!!str 1e-3"])
def test_quoted_and_other_text_in_arguments_stays_text(text: str) -> None:
    value = resolve_network(f"arguments: {{a: [{text}]}}")["arguments"]["a"][0]
    assert value == yaml.safe_load(text)
    assert type(value) is str


def test_text_and_numbers_outside_arguments_are_what_the_schema_means() -> None:
    network = resolve_network(
        "classes: [1e3, b]\ntraining: {lr: 5e-4, weight_decay: '1e-2', max_steps: 1e4}\n"
        "weights: null\nviews: {n_filters: 1e1}"
    )
    assert network["classes"] == ["1e3", "b"]
    assert [type(name) for name in network["classes"]] == [str, str]
    assert (network["training"]["lr"], network["training"]["weight_decay"]) == (5e-4, 0.01)
    assert (network["training"]["max_steps"], network["views"]["n_filters"]) == (10_000, 10)


def test_a_fraction_is_no_whole_number() -> None:
    assert convert_exponent_number(ExponentNumber("1e-1"), "integer") == "1e-1"
