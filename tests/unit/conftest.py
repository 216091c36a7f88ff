"""What unit tests share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Errors = dict[str, list[float]]
"""What a script that runs kernels in Triton's interpreter prints: errors by case, as JSON."""


@pytest.fixture(scope="session")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Errors]:
    """Run a script of this folder with Triton's interpreter in place of its compiler.

    In a process of its own: Triton looks for the switch once, when it is imported.
    """

    def run(name: str) -> Errors:
        cache, root = tmp_path_factory.mktemp("kernels"), Path(__file__).parents[2]
        environment = os.environ | {"MIXERLANG_CACHE": str(cache), "PYTHONPATH": str(root)}
        environment |= {"TRITON_INTERPRET": "1", "PYTHONWARNINGS": "ignore"}
        script = Path(__file__).with_name(name)
        done = subprocess.run(
            [sys.executable, str(script)], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found: Errors = json.loads(done.stdout)
        return found

    return run
