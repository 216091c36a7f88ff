"""For all tests: one thread each; GPU tests are skipped where there is no GPU."""

from __future__ import annotations

import pytest
import torch

# Small tensors gain nothing from threads, and threads that wait for each other on a busy machine
# lose a factor of ten.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
