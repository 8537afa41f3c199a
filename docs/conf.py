"""Sphinx's configuration: Markdown pages, and API pages from the docstrings. `make docs` builds them."""

from convatlas import __version__

project = "convatlas"
author = "The convatlas developers"
release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]  # links to files outside docs/, such as ../Containerfile

napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True, "show-inheritance": False, "exclude-members": "set"}

html_theme = "furo"
html_title = "convatlas"
html_copy_source = False
html_show_sourcelink = False
