"""Ablation of units and layers: what a network loses without them."""
