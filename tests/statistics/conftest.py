"""Fixtures of the tests of statistics: the number of threads stays as it was."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support.dataset_pass import write_digits, write_lenet5


@pytest.fixture(autouse=True)
def _restore_threads() -> Iterator[None]:
    """Leave torch's number of threads as it was."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def lenet5_on_digits(tmp_path: Path) -> tuple[Path, Path]:
    """The folder of a network, and that of its data set."""
    return write_lenet5(tmp_path / "results/lenet5"), write_digits(tmp_path)
