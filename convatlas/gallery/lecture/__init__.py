"""The slides of lecture mode: a path through a network on one image, from arrays of the run."""
