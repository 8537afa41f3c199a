"""Comparisons of feature maps and filters with classical operators and with segmentation masks."""
