"""Sobel's kernels, as published.

I. Sobel, G. Feldman, A 3 × 3 isotropic gradient operator for image processing, Stanford AI Project (1968).
"""

import numpy as np

SOBEL_X = np.array([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])  # rises to the right
SOBEL_DIAGONAL_DOWN = np.array([[-2.0, -1, 0], [-1, 0, 1], [0, 1, 2]])  # rises to the lower right
SOBEL_DIAGONAL_UP = SOBEL_DIAGONAL_DOWN[::-1]  # rises to the upper right
