"""Similarity of the layers of networks by centred kernel alignment (CKA)."""
