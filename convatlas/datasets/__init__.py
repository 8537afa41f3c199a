"""Data sets in their official on-disk layout: preparing them, and reading their images, labels and masks."""
