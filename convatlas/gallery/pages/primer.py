"""The primer: what the terms on the pages mean, with numbers and drawings from a network of the run."""

from collections.abc import Iterator

from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.pooling_example import make_pooling_example
from convatlas.gallery.primer_examples import (
    MAX_CONE_LAYERS,
    choose_kernel,
    choose_network,
    count_parameters,
    count_zeros,
    make_colour_bars,
    pair_layers,
    trace_receptive_field,
)
from convatlas.gallery.value_grid import RDBU, VIRIDIS


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the primer.

    Args:
        context: The run that the site shows.
    """
    network = choose_network(context.networks)
    results, layers = network.results, network.layers
    image = network.images[0]["name"]
    values = {
        "network": network,
        "image": image,
        "kernel": choose_kernel(layers, results.filters),
        "convs": count_parameters(layers),
        "zero_count": count_zeros(layers, results.activations(image)),
        "receptive_field": trace_receptive_field(layers),
        "output_sizes": [layer for layer in layers if layer["arithmetic"]][:MAX_CONE_LAYERS],
        "pooling": make_pooling_example(results),
        "layer_pairs": pair_layers(layers, results.steps),
        "colour_bars": make_colour_bars(results),
        "colormaps": {"RdBu_r": RDBU, "viridis": VIRIDIS},
    }
    yield SitePage("primer.html", "primer.html", "Primer", values, "Help")
