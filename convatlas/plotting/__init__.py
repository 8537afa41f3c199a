"""Colour scales, tiles, montages, charts and sprites: drawing arrays, without knowing networks."""
