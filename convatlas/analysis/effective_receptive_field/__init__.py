"""Effective receptive fields: which pixels the centre of a layer's output depends on, and how much."""
