"""The captions of the classical features, by name and in the order of their display; without scikit-image."""

FEATURE_CAPTIONS = {
    "brightness": "brightness",
    "sobel_x": "vertical edge",
    "sobel_y": "horizontal edge",
    "sobel_diagonal_down": "diagonal edge (/)",
    "sobel_diagonal_up": "diagonal edge (\\)",
    "sobel_magnitude": "edge of any direction",
    "laplacian": "spot or line",
    "harris": "corner",
    "erosion": "darkest neighbour (erosion)",
    "dilation": "brightest neighbour (dilation)",
    "lbp": "local binary pattern",
}
