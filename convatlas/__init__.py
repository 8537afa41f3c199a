"""convatlas: an atlas of what every layer of a convolutional network computes.

The public names below are imported on first use, so that `import convatlas` takes no time and needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convatlas.attribution.attribute import attribute
    from convatlas.attribution.deconvnet import project
    from convatlas.models.build import load_network as load
    from convatlas.results import Results
    from convatlas.tracing.extractor import Extractor
    from convatlas.tracing.layers import list_layers as layers
    from convatlas.tracing.record import record

__version__ = "0.1.0"
__all__ = [
    "Extractor",
    "Results",
    "UserError",
    "__version__",
    "attribute",
    "layers",
    "load",
    "project",
    "record",
]

_PUBLIC = {
    "Extractor": "convatlas.tracing.extractor:Extractor",
    "Results": "convatlas.results:Results",
    "attribute": "convatlas.attribution.attribute:attribute",
    "layers": "convatlas.tracing.layers:list_layers",
    "load": "convatlas.models.build:load_network",
    "project": "convatlas.attribution.deconvnet:project",
    "record": "convatlas.tracing.record:record",
}


class UserError(Exception):
    """A mistake in what the user gave; its text says what, where and how to fix it."""


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'convatlas' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
