"""The page of a network's concepts: units grouped by the concept that they separate best."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from convatlas.gallery.concept_columns import make_concept_columns
from convatlas.gallery.concept_data import (
    TYPES,
    NamedUnit,
    NamedUnits,
    describe_missing,
    read_named_units,
)
from convatlas.gallery.concept_pictures import render_example
from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.table_data import dump_table
from convatlas.records import ConceptAnalysis, ConceptEntry

MAX_FIRST_ROWS = 50  # of the table of all units that the page has without its script


@dataclass(frozen=True)
class ExamplePicture:
    """A test image on which a named unit is most active.

    Attributes:
        file: Its place in the site.
        size: Width and height.
        title: What is shown below it.
        alt: What it shows, in words.
        shows: Whether it shows the concept.
    """

    file: str
    size: tuple[int, int]
    title: str
    alt: str
    shows: bool


@dataclass(frozen=True)
class ConceptExamples:
    """A named unit with its pictures."""

    unit: NamedUnit
    pictures: Sequence[ExamplePicture]


@dataclass(frozen=True)
class ConceptGroup:
    """A concept with the units that are shown of those that it names."""

    number: int
    concept: ConceptEntry
    examples: Sequence[ConceptExamples]


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the page of each network whose units are named.

    Args:
        context: The run that the site shows.
    """
    for network in context.list_analysed("concepts"):
        views = context.config["networks"][network.name]["views"]
        analysis = network.results.concepts
        if analysis is None:
            continue
        explorer = context.explorers.get(network.name)
        explorer_layers = list(explorer.slugs) if explorer else []
        values = {"network": network, "analysis": analysis, "summary": summarise(network), "types": TYPES}
        pictures: dict[str, bytes] = {}
        if not analysis["undefined"]:
            named = read_named_units(network, views)
            columns = make_concept_columns(network, explorer_layers)
            n_rows = len(columns[0].values)
            values |= {
                "groups": read_groups(network, analysis, named, pictures),
                "missing": describe_missing(analysis),
                "explorer_layers": explorer_layers,
                "columns": columns,
                "table_json": dump_table(columns),
                "n_rows": n_rows,
                "n_first_rows": min(n_rows, MAX_FIRST_ROWS),
            }
        path = f"networks/{network.name}-concepts.html"
        yield SitePage(
            path,
            "concepts.html",
            f"{network.name}: concepts",
            values,
            generated_files=pictures,
            network=network.name,
            tab="Analyses",
            subtab="Concepts",
        )


def summarise(network: NetworkData) -> str:
    """Return how many units of a network are named, as a sentence.

    Args:
        network: A network with concepts.
    """
    analysis = network.results.concepts
    assert analysis is not None
    if analysis["undefined"]:
        return f"No units are named: {analysis['undefined']}."
    n_units = sum(layer["units"] for layer in analysis["layers"])
    tested = {concept["type"] for concept in analysis["concepts"] if concept["tested"]}
    counts = {key: sum(layer[key] for layer in analysis["layers"]) for key in ("regions", "kinds")}
    texts = {"regions": "a region of the images", "kinds": "a kind of image"}
    parts: list[str] = []
    for kind, key in (("region", "regions"), ("image", "kinds")):
        if kind in tested:
            verb = "" if parts else " separates" if counts[key] == 1 else " separate"
            parts.append(f"{counts[key]:,}{verb} {texts[key]}")
    n_images = analysis["images"]["test"]
    return f"Of {n_units:,} units, {' and '.join(parts)}, better than chance on {n_images:,} test images."


def read_groups(
    network: NetworkData,
    analysis: ConceptAnalysis,
    named: NamedUnits,
    files: dict[str, bytes],
) -> list[ConceptGroup]:
    """Return the concepts that name units, with the units that are shown of each.

    Args:
        network: The network.
        analysis: concepts.json.
        named: The named units.
        files: Takes the pictures, by their places in the site.
    """
    groups: dict[int, list[ConceptExamples]] = {
        number: [] for number, concept in enumerate(analysis["concepts"]) if concept["units"]
    }
    for number, example in enumerate(analysis["examples"]):
        concept = analysis["concepts"][example["concept"]]
        unit = next(entry for entry in named[example["layer"]][example["unit"]] if entry.concept is concept)
        pictures = list(_render_pictures(network, number, unit, files))
        groups[example["concept"]].append(ConceptExamples(unit, pictures))
    return [ConceptGroup(number, analysis["concepts"][number], group) for number, group in groups.items()]


def _render_pictures(
    network: NetworkData, number: int, unit: NamedUnit, files: dict[str, bytes]
) -> Iterator[ExamplePicture]:
    """Yield the pictures of an example, and add their files."""
    analysis, arrays = network.results.concepts, network.results.concept_examples
    assert analysis is not None
    photographs = arrays[f"{number}@photographs"]
    is_region = unit.concept["type"] == "region"
    active, regions = (arrays[f"{number}@{key}"] > 0 if is_region else None for key in ("active", "regions"))
    for n, image in enumerate(analysis["examples"][number]["images"]):
        file = f"concepts/{network.name}/{number}-{n}.webp"
        files[file], size = render_example(
            photographs[n],
            None if active is None else active[n],
            None if regions is None else regions[n],
        )
        title = ", ".join(filter(None, [image["label"], f"test image {image['index']}"]))
        outlines = ", with the outlines of the unit’s mask and of the region" if is_region else ""
        yield ExamplePicture(file, size, title, f"{title}{outlines}", image["shows"])
