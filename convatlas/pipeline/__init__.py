"""The pipeline's config, and what rules need to know of a stage: its code, resources and size."""
