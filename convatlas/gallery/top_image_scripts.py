"""The numbers of top-activating images as scripts, which a page that is opened from a file can load.

Of tens of thousands of units they take megabytes. So a script holds compressed JSON, which the browser
decompresses, of some of the layers, and units with the same top activations, as before and after a ReLU,
share a row.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from convatlas.gallery.sheet_scripts import format_data_script
from convatlas.gallery.top_images import VALUE_DIGITS, LayerTopImages
from convatlas.plotting.sprites import round_significant

MAX_ROWS = 2048  # of a script, unless a layer alone has more: about 0.1 MB


def split_layers(layers: Sequence[LayerTopImages]) -> list[Sequence[LayerTopImages]]:
    """Split layers into consecutive groups of at most MAX_ROWS different rows, or of one layer.

    Args:
        layers: The layers of a network, in execution order.
    """
    if not layers:
        return []
    starts, rows = [0], set[bytes]()
    for n, layer in enumerate(layers):
        own_rows = {row.tobytes() for row in layer.joined_rows}
        if n > starts[-1] and len(rows | own_rows) > MAX_ROWS:
            starts.append(n)
            rows = set()
        rows |= own_rows
    return [layers[first:last] for first, last in pairwise([*starts, len(layers)])]


def describe_group(
    layers: Sequence[LayerTopImages], marks: Mapping[str, Mapping[int, str]]
) -> dict[str, Any]:
    """Describe the units of a group of layers.

    Args:
        layers: The layers.
        marks: Why units are possible shortcuts, by layer and unit.

    Returns:
        The different rows of top activations, `values`, `images` and `positions`, and by the layer's name the
        row of each unit and which are dead, have NaN or infinite values, or are possible shortcuts.
    """
    joined = np.concatenate([layer.joined_rows for layer in layers])
    unique, first_units, row_numbers = np.unique(joined, axis=0, return_index=True, return_inverse=True)
    ranks = np.empty(len(unique), int)
    ranks[np.argsort(first_units)] = np.arange(
        len(unique)
    )  # rows in the order of the units, which compresses
    order, rows = np.sort(first_units), iter(ranks[row_numbers.ravel()].tolist())
    values, images, positions = (
        np.concatenate([getattr(layer, key) for layer in layers])[order]
        for key in ("values", "images", "positions")
    )
    units = {}
    for layer in layers:
        described: dict[str, Any] = {"rows": [next(rows) for _ in layer.values]}
        described |= {
            key: [*getattr(layer, key)] for key in ("dead", "non_finite") if len(getattr(layer, key))
        }
        units[layer.name] = (
            described | {"marks": dict(marks[layer.name])} if layer.name in marks else described
        )
    return {
        "values": [round_significant(row, VALUE_DIGITS) for row in values],
        "images": images.tolist(),
        "positions": positions.tolist(),
        "layers": units,
    }


def format_scripts(network: str, contents: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Write contents as scripts of the site.

    Args:
        network: Name of the network.
        contents: What `json.dumps` accepts, by the script's name.

    Yields:
        The place of each script, and its text: one call of `convatlas.registerTopImages`.
    """
    for name, content in contents.items():
        script = format_data_script("registerTopImages", [network, name], content)
        yield f"top-images/{network}/{name}.js", script
