"""The pages of the gallery, one module per kind of page."""
