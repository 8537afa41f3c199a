"""The kinds of figures: the names that figures.json gives them, and their titles on the pages."""

FIGURE_KINDS = {
    "cover": "Overview",
    "filters": "Filters",
    "maps": "Feature maps",
    "values": "Activations (layers without spatial axes)",
    "pairs": "Filters and their feature maps",
    "classical": "Classical features",
    "digits": "Deconvnet projections by class",
    "steps": "Deconvnet, step by step",
    "deconv": "Deconvnet projections",
    "strongest": "Top-activating images",
    "relevance": "Most relevant images of a class",
    "curves": "Training curves",
    "confusion": "Confusion matrix",
    "segmentation": "Ground truth and prediction",
    "mask": "Where segmentation emerges",
}
