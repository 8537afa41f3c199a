"""Real data that is too large to ship: the folder that CONVATLAS_TEST_DATA names."""

import os
from pathlib import Path

import pytest

VARIABLE = "CONVATLAS_TEST_DATA"
SKIP_REASON = (
    f"tests on real data: set {VARIABLE} to a folder that holds mnist/MNIST/raw/, pets/ and "
    "weights/resnet20-12fca82f.th"
)


def get_real_data(name: str) -> Path:
    """Return the path of a file or folder of the real data; skip the test where there is none."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(SKIP_REASON)
    return Path(folder) / name
