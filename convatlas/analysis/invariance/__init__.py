"""How features and predictions change as an image is moved, scaled or rotated."""
