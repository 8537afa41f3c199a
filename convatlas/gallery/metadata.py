"""Metadata for machines: schema.org in JSON-LD on the pages, and an RO-Crate of the gallery's folder."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from convatlas import __version__
from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.explorer_data import dump_script_json
from convatlas.gallery.model_cards import METRIC_TITLES, list_metrics, name_card
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.references import find_dataset_keys, find_network_key, get_reference

SOFTWARE_URL = "https://github.com/convatlas/convatlas"
SPDX_URL = "https://spdx.org/licenses/{}.html"
MEDIA_TYPES = {
    ".html": "text/html",
    ".json": "application/json",
    ".bib": "application/x-bibtex",
    ".md": "text/markdown",
    ".csv": "text/csv",
    ".npz": "application/x-npz",
    ".safetensors": "application/octet-stream",
}
SUBFOLDER_ROOT = "../"  # the site's root, from the pages of networks and data sets
CRATE_FILE = "ro-crate-metadata.json"
CRATE_VERSION = "https://w3id.org/ro/crate/1.1"

Entity = dict[str, Any]


def describe_page(context: GalleryContext, page: SitePage, run_id: str) -> Markup:
    """Return the JSON-LD of a page: a network as a data set of its maps, a data set, or the site.

    Args:
        context: The run that the site shows.
        page: The page.
        run_id: The hash of the run.

    Returns:
        JSON that is safe within a script element; "" for a page about nothing of its own.
    """
    networks = {f"networks/{network.name}.html": network for network in context.networks}
    datasets = {f"datasets/{name}.html": name for name in context.datasets}
    if page.path == "index.html":
        entity = _describe_site(context, run_id)
    elif page.path in networks:
        entity = _describe_network(context, networks[page.path], run_id)
    elif page.path in datasets:
        entity = _describe_dataset(context, datasets[page.path])
    else:
        return Markup("")
    return dump_script_json({"@context": "https://schema.org", **entity})


def build_crate(context: GalleryContext, run_id: str, paths: Sequence[str], published: str) -> str:
    """Return ro-crate-metadata.json: the folder of the gallery as a research object (RO-Crate 1.1).

    Args:
        context: The run that the site shows.
        run_id: The hash of the run.
        paths: Its files, by their places in the site; those that only serve the pages are left out.
        published: The date of publication, ISO 8601, which RO-Crate requires.
    """
    title, author = context.config["title"], context.config.get("author")
    licence = {"@id": "#licence", **describe_licence(context.config)}
    if "url" in licence:
        licence["@id"] = licence["url"]
    files = [
        {"@id": path, "@type": "File", "name": path, "encodingFormat": MEDIA_TYPES[_get_suffix(path)]}
        for path in sorted(paths)
        if _get_suffix(path) in MEDIA_TYPES
    ]
    root: Entity = {
        "@id": "./",
        "@type": "Dataset",
        "name": title,
        "description": _describe_networks(context),
        "datePublished": published,
        "license": {"@id": licence["@id"]},
        "identifier": f"convatlas-{run_id}",
        "hasPart": [{"@id": file["@id"]} for file in files],
        "mainEntity": {"@id": "index.html"},
        "mentions": [{"@id": "#run"}],
    }
    entities: list[Entity] = [
        {
            "@id": CRATE_FILE,
            "@type": "CreativeWork",
            "conformsTo": {"@id": CRATE_VERSION},
            "about": {"@id": "./"},
        },
        root,
        {
            "@id": "#run",
            "@type": "CreateAction",
            "name": f"Run {run_id}",
            "instrument": {"@id": SOFTWARE_URL},
            "result": {"@id": "./"},
        },
        {
            "@id": SOFTWARE_URL,
            "@type": "SoftwareApplication",
            "name": "convatlas",
            "version": __version__,
            "url": SOFTWARE_URL,
        },
        licence,
        *files,
    ]
    if author:
        root["author"] = {"@id": "#author"}
        entities.append({"@id": "#author", "@type": "Person", "name": author})
    crate = {"@context": f"{CRATE_VERSION}/context", "@graph": entities}
    return json.dumps(crate, indent=2, ensure_ascii=False) + "\n"


def describe_licence(config: Mapping[str, Any]) -> Entity:
    """Return the licence of the gallery: that of the config, or that its author states none.

    Args:
        config: The resolved config.
    """
    licence = config.get("licence")
    if not licence:
        text = "Not stated. Data sets and weights keep their own licences, which their pages state."
        return {"@type": "CreativeWork", "name": text}
    url = licence if licence.startswith("https://") else SPDX_URL.format(licence)
    return {"@type": "CreativeWork", "name": licence, "url": url}


def _get_suffix(path: str) -> str:
    return path[path.rindex(".") :]


def _describe_site(context: GalleryContext, run_id: str) -> Entity:
    """Describe the site, with its networks as parts."""
    entity: Entity = {
        "@type": "WebSite",
        "name": context.config["title"],
        "description": _describe_networks(context),
        "identifier": f"convatlas-{run_id}",
        "license": describe_licence(context.config),
        "citation": get_reference("zeiler2014").text,
        **_describe_creator(context.config),
        "hasPart": [
            {
                "@type": "Dataset",
                "name": network.name,
                "url": _get_url(context, f"networks/{network.name}.html", ""),
            }
            for network in context.networks
        ],
    }
    if site_url := context.config.get("site_url"):
        entity["url"] = site_url
    return entity


def _describe_networks(context: GalleryContext) -> str:
    names = ", ".join(network.name for network in context.networks)
    return (
        f"Filters, feature maps and deconvnet projections for every layer of convolutional networks: {names}."
    )


def _describe_creator(config: Mapping[str, Any]) -> Entity:
    """Return the author of the site, if the config names one."""
    return {"creator": {"@type": "Person", "name": config["author"]}} if config.get("author") else {}


def _describe_network(context: GalleryContext, network: NetworkData, run_id: str) -> Entity:
    """Describe a network's page as a data set: what is measured, on which data, and its downloads."""
    description = network.description
    keys = [key for key in (find_network_key(description),) if key]
    entity: Entity = {
        "@type": "Dataset",
        "name": f"{network.name}: activations and attributions of every layer",
        "description": f"Filters, feature maps, projections and statistics of {len(network.layers)} layers "
        f"of {network.name} ({description['architecture']}, {description['parameters']:,} parameters), on "
        f"{len(network.images)} sample images.",
        "url": _get_url(context, f"networks/{network.name}.html", SUBFOLDER_ROOT),
        "identifier": f"convatlas-{run_id}/{network.name}",
        "license": describe_licence(context.config),
        **_describe_creator(context.config),
        "citation": [get_reference(key).text for key in ("zeiler2014", *keys)],
        "measurementTechnique": "forward pass and backward projection through a trained network",
        "variableMeasured": _list_variables(network),
        "distribution": _list_downloads(context, network),
    }
    if network.dataset:
        entity["isBasedOn"] = {
            "@type": "Dataset",
            "name": network.dataset["title"],
            "url": _get_url(context, f"datasets/{description['dataset']}.html", SUBFOLDER_ROOT),
        }
    return entity


def _list_variables(network: NetworkData) -> list[Entity]:
    """List what is measured of a network, with the numbers of its metrics."""
    variables: list[Entity] = [{"@type": "PropertyValue", "name": "activation"}]
    if network.get_figures("deconv"):
        variables.append({"@type": "PropertyValue", "name": "deconvnet projection"})
    return variables + [
        {"@type": "PropertyValue", "name": METRIC_TITLES[key], "value": value}
        for key, value in list_metrics(network).items()
    ]


def _list_downloads(context: GalleryContext, network: NetworkData) -> list[Entity]:
    """List the files of a network: its page and its model card."""
    paths = {"text/html": f"networks/{network.name}.html", "text/markdown": name_card(network.name)}
    return [
        {
            "@type": "DataDownload",
            "encodingFormat": media_type,
            "contentUrl": _get_url(context, path, SUBFOLDER_ROOT),
        }
        for media_type, path in paths.items()
    ]


def _describe_dataset(context: GalleryContext, name: str) -> Entity:
    """Describe a data set: title, licence, size and citation."""
    dataset = context.datasets[name]
    keys = find_dataset_keys(dataset)
    entity: Entity = {
        "@type": "Dataset",
        "name": dataset["title"],
        "description": dataset["description"] or dataset["title"],
        "license": dataset["licence"],
        "url": _get_url(context, f"datasets/{name}.html", SUBFOLDER_ROOT),
        "identifier": f"sha256:{dataset['sha256']}",
        "variableMeasured": [
            {"@type": "PropertyValue", "name": f"{split} images", "value": sum(counts)}
            for split, counts in dataset["counts"].items()
        ],
    }
    if keys:
        entity["citation"] = [get_reference(key).text for key in keys]
    return entity


def _get_url(context: GalleryContext, path: str, root: str) -> str:
    """Return the address of a file: absolute where the config says where the site will be, else relative."""
    site_url = context.config.get("site_url")
    return f"{site_url.rstrip('/')}/{path}" if site_url else f"{root}{path}"
