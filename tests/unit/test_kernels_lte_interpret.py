"""Attention over interval lists on a CPU: each rendered pass in Triton's interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    cache = str(tmp_path_factory.mktemp("kernels"))
    environment = os.environ | {"MIXERLANG_CACHE": cache, "PYTHONPATH": str(ROOT)}
    environment |= {"TRITON_INTERPRET": "1", "PYTHONWARNINGS": "ignore"}
    script = Path(__file__).with_name("interpret_lte.py")
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


def test_every_pass_agrees_with_float64(errors: dict[str, list[float]]) -> None:
    assert len(errors) >= 9
    wrong = {case: values for case, values in errors.items() if not all(e < 1e-5 for e in values)}
    assert not wrong
