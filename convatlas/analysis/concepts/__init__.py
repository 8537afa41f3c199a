"""The concept that each unit separates best: a region of the images, or a kind of image."""
