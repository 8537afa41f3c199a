"""Networks: their architectures, weights, preprocessing and class names, built and loaded."""
