"""Processes that want the same kernel at the same time, with nothing in the caches yet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

BUILD = """
import hashlib
from mixerlang.kernels.ahead import build
from mixerlang.kernels.attention import ahead
from mixerlang.kernels.attention.variant import Variant

variant = Variant(2, 1, 32, 32, 0.25, window=64)
compiled = build(ahead.job("forward", variant, "float32", "sm_80"), "sm_80")
print(hashlib.sha256(compiled.asm["ptx"].encode()).hexdigest())
"""


def test_processes_that_race_for_a_kernel(tmp_path: Path) -> None:
    environment = os.environ | {
        "MIXERLANG_CACHE": str(tmp_path / "ours"),
        "TRITON_CACHE_DIR": str(tmp_path / "triton"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", BUILD], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    hashes = [run.communicate(timeout=300)[0].strip() for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert len(set(hashes)) == 1 and len(hashes[0]) == 64
    kept = [path.name for path in (tmp_path / "ours").rglob("*") if path.is_file()]
    assert [name for name in kept if not name.endswith(".pyc")] == [
        "attention_forward_h2x1_d32_w64_scale0p25.py"
    ]
