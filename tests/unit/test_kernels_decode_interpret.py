"""The decode kernels' own arithmetic on a CPU: walks over the cache in Triton's interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_walks_agree_with_the_rule() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    script = Path(__file__).with_name("interpret_decode.py")
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    errors: dict[str, float] = json.loads(done.stdout)
    assert len(errors) >= 12
    assert {case: error for case, error in errors.items() if not error < 1e-5} == {}
