"""The page on where the numbers come from: commit, hashes, versions, durations and the config."""

import json
from collections.abc import Iterator

import yaml

from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.local_paths import hide_local_paths


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the page.

    Args:
        context: The run that the site shows.
    """
    config = hide_local_paths(json.loads(json.dumps(context.config)))  # without aliases in the YAML
    packages = [package for network in context.networks for package in network.description["versions"]]
    values = {
        "run": context.run,
        "packages": list(dict.fromkeys(packages)),
        "config_text": yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
    }
    yield SitePage("provenance.html", "provenance.html", "Provenance", values, group="Help")
