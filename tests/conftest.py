"""For all tests: one thread each; GPU tests are skipped where there is no GPU."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

# Small tensors gain nothing from threads, and threads that wait for each other on a busy machine
# lose a factor of ten.
torch.set_num_threads(1)

# The same examples every time, however busy the machine is. To look for new ones:
# pytest --hypothesis-profile=default.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
