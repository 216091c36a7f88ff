"""Walk over the decode cache in Triton's interpreter, and print how far off each walk is.

A process of its own, as TRITON_INTERPRET=1 must stand before Triton is imported:
test_kernels_decode_interpret.py starts it. Prints a JSON object, case -> largest error.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

import decoding
from decoding import Case
from interpreting import accept_new_numpy

from mixerlang.kernels.decode import dense, launch, op
from mixerlang.kernels.decode.launch import Plan
from mixerlang.kernels.decode.layout import Layout

LEARNED = {"kind": "learned", "lookahead": 1}
SHORT = {"batch": 1, "length": 24, "dtype": torch.float32}
CASES: dict[str, dict[str, Any]] = {
    "full": {"layout": Layout(), "batch": 2},
    "full, strided": {"layout": Layout(3, strided=4, sinks=2, rate=2)},
    "window": {"layout": Layout(5, span=3), "batch": 2},
    "window of one, sinks": {"layout": Layout(1, sinks=3, span=3)},
    "window and sinks, other dims": {"layout": Layout(5, sinks=1), "dim": 12, "value_dim": 20},
    "dilated": {"layout": Layout(6, rate=3)},
    "random": {"layout": Layout(4, budget=5, kind="random")},
    "random, sinks alone": {"layout": Layout(4, budget=2, sinks=2, kind="random")},
    "norm": {"layout": Layout(3, budget=4, kind="norm", span=4), "kv_heads": 2},
    "learned": {"layout": Layout(8, budget=4, sinks=1, span=2, **LEARNED), "kv_heads": 2},
    "learned, ties": {"layout": Layout(8, budget=3, span=2, **LEARNED), "ties": True},
    "every rule": {
        "layout": Layout(9, budget=4, sinks=1, span=3, **LEARNED),
        "heads": 4, "kv_heads": 2, "softcap": 2.0, "sink_logits": True, "slopes": True,
    },
    "one row, every rule": {
        "layout": Layout(9, budget=4, sinks=1, span=3, **LEARNED),
        "heads": 2, "kv_heads": 2, "softcap": 2.0, "sink_logits": True, "slopes": True,
        "dim": 12, "value_dim": 20,
    },
    "one row, full": {"layout": Layout(), "heads": 2, "kv_heads": 2},
    "one row, strided": {
        "layout": Layout(3, strided=4, sinks=2, rate=2), "heads": 1, "kv_heads": 1,
    },
    "many rows": {"layout": Layout(3, sinks=1), "heads": 9, "length": 16},
}  # fmt: skip


def error(case: Case, widest: int, plan: Plan) -> float:
    """Of a walk, the updated states also compared with those that plain PyTorch leaves."""
    launch.choose = lambda *_: plan
    op.scoring = decoding.scorer_of(case)[1]
    state, twin = case.new_state(), case.new_state()

    def step(layout: Layout, state: op.State, *rest: Any) -> Tensor:
        if layout.kind == "learned":
            twin["z"].copy_(state["z"])  # the scorer has seen this state alone
        out = launch.step(layout, state, *rest)
        dense.step(layout, twin, *rest)
        for name in ("position", "folded", "scored", "due"):
            assert name not in state or torch.equal(state[name], twin[name]), name
        assert not state["arrivals"].any()
        return out

    op.dense = type("Kernels", (), {"step": staticmethod(step), "scores": dense.scores})
    seen = torch.zeros(case.batch, dtype=torch.int64)
    found = decoding.walk(case, state, seen, range(1, widest + 1))
    return float((found.double() - case.expected()).abs().nan_to_num(torch.inf).max())


if __name__ == "__main__":
    accept_new_numpy()
    names = sys.argv[1:] or list(CASES)
    errors = {}
    for name in names:
        case = Case(**{**SHORT, **CASES[name]})
        errors[name] = max(
            error(case, 1, Plan(1, 16, 1, 1)),
            error(case, case.layout.span, Plan(3, 16, 1, 1)),
        )
    print(json.dumps(errors))
