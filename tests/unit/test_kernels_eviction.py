"""Eviction as intervals without a GPU: the op, its kernels interpreted, and built ahead of time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mixerlang.kernels.ahead import LIMITS, build, resources
from mixerlang.kernels.attention.intervals import NEVER
from mixerlang.kernels.eviction.ahead import jobs
from mixerlang.kernels.eviction.op import intervals

ROOT = Path(__file__).parents[2]
OP = torch.ops.mixerlang.eviction_intervals


def test_kernels_agree_with_the_oracle() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment |= {"TRITON_INTERPRET": "1", "PYTHONWARNINGS": "ignore"}
    script = Path(__file__).with_name("interpret_eviction.py")
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, list[str]] = json.loads(done.stdout)
    assert len(found) == 12
    assert not {case: fields for case, fields in found.items() if fields}


@pytest.mark.parametrize("architecture", ["sm_90", "sm_80"])
@pytest.mark.parametrize(
    ("budget", "packed"), [(512, False), (512, True), (1, False), (4096, False), (None, True)]
)
def test_kernels_fit(architecture: str, budget: int | None, packed: bool) -> None:
    for job in jobs(budget, packed):
        found = resources(build(job, architecture))
        assert found.spilled == 0, job.name
        assert found.shared <= LIMITS[architecture]


def test_a_window_and_two_slots() -> None:
    z = torch.tensor([[[1.0, -1.0, 3.0, 2.0, 2.0, 5.0]]])
    found = intervals(z, window=3, budget=2)
    assert found.death.tolist() == [[[6, 4, NEVER, 8, 7, NEVER]]]
    assert found.kept[..., :4].tolist() == [[[0, 2, 3, 5]]]
    assert found.counts.tolist() == [[[0, 4]]]
    assert found.snapshots is not None and found.snapshots.shape == (1, 1, 1, 2)
    assert found.alive is not None and found.alive.tolist() == [[[0]]]
    uncapped = intervals(z, window=3, budget=None, sinks=2)
    assert uncapped.death.tolist() == [[[NEVER] * 6]]
    assert uncapped.snapshots is None and uncapped.alive is None


def test_scores_get_no_gradient() -> None:
    z = torch.randn(1, 1, 9, requires_grad=True)
    assert not intervals(z, window=3, budget=2).death.requires_grad


@pytest.mark.parametrize("budget", [3, None])
@pytest.mark.parametrize("cu", [None, [0, 130, 300]])
def test_opcheck(budget: int | None, cu: list[int] | None) -> None:
    cu_seqlens = None if cu is None else torch.tensor(cu)
    torch.library.opcheck(OP, (torch.randn(1, 2, 300), cu_seqlens, 20, budget, 1, 0.0))


@pytest.mark.parametrize("budget", [3, None])
def test_compiles_whole(budget: int | None) -> None:
    def run(z: Tensor) -> Tensor:
        return intervals(z * 2, window=20, budget=budget, sinks=1).death + 1

    z = torch.randn(2, 1, 200)
    assert torch.equal(torch.compile(run, fullgraph=True, backend="aot_eager")(z), run(z))


@pytest.mark.parametrize(
    ("shape", "rule", "message"),
    [
        ((1, 4), {"window": 1, "budget": 1}, "z is"),
        ((1, 1, 0), {"window": 1, "budget": 1}, "z is"),
        ((1, 1, 4), {"window": 0, "budget": 1}, "a window is 1 or more"),
        ((1, 1, 4), {"window": 1, "budget": 1, "sinks": -1}, "sinks 0 or more"),
        ((1, 1, 4), {"window": 1, "budget": 0}, "nearest 1"),
        ((1, 1, 4), {"window": 1, "budget": 9000}, "nearest 8192"),
        ((1, 1, 4), {"window": 1, "budget": 2, "sinks": 3}, "do not fit a budget of 2"),
        ((1, 1, 4), {"window": 2**31 - 3, "budget": 1}, f"nearest window {2**31 - 6}"),
        ((2, 1, 4), {"window": 1, "budget": 1, "cu_seqlens": [0, 4]}, "one batch row"),
        ((1, 1, 4), {"window": 1, "budget": 1, "cu_seqlens": [0, 3]}, "rise from 0 to 4"),
        ((1, 1, 4), {"window": 1, "budget": 1, "cu_seqlens": [0, 3, 2, 4]}, "rise from 0"),
        ((1, 1, 4), {"window": 1, "budget": 1, "cu_seqlens": [0.0, 4.0]}, "integers"),
    ],
)
def test_refuses(shape: tuple[int, ...], rule: dict[str, object], message: str) -> None:
    edges = rule.get("cu_seqlens")
    if edges is not None:
        rule = rule | {"cu_seqlens": torch.tensor(edges)}
    with pytest.raises(ValueError, match=message):
        intervals(torch.zeros(shape), **rule)  # type: ignore[arg-type]


def test_refuses_packing_on_another_device() -> None:
    with pytest.raises(ValueError, match="cu_seqlens lies on meta, z on cpu: move it"):
        intervals(
            torch.zeros(1, 1, 4),
            window=1,
            budget=1,
            cu_seqlens=torch.zeros(2, device="meta", dtype=torch.int32),
        )
