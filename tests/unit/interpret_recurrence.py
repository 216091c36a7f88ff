"""Run the rendered recurrence kernels in Triton's interpreter, and print how far off they are.

A process of its own, as TRITON_INTERPRET=1 must stand before Triton is imported:
test_kernels_recurrence_interpret.py starts it. Prints a JSON object, case -> relative errors of o,
the last state and every gradient against float64; NaN where an element was never written.
"""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

import torch
from interpreting import accept_new_numpy
from recurrence_cases import Case, make, oracle, relative

from mixerlang.kernels.recurrence import op, plan

SMALL = Case(tokens=130, sizes=(1, 1, 16, 16))
PACKED = [0, 1, 1, 70, 134]

CASES: dict[str, tuple[Case, int]] = {
    # case, stretches of a sequence
    "gated delta rule, grouped heads": (Case(2, 70, (1, 2, 20, 24)), 1),
    "strong decay, two pieces": (Case(1, 65, (1, 1, 80, 16), strength=30.0), 1),
    "one token": (Case(1, 1, (1, 1, 16, 16)), 1),
    "delta rule, keys alike, b near 2": (SMALL._replace(decay="none", mode="repeated"), 1),
    "added, no decay": (SMALL._replace(decay="none", delta=False, step=False), 1),
    "added, decay": (SMALL._replace(delta=False, step=False), 1),
    "added by steps, decay": (SMALL._replace(delta=False), 1),
    "decay per channel, grouped heads": (Case(2, 70, (1, 2, 20, 24), "vector"), 1),
    "decay per channel, strong": (Case(1, 65, (1, 1, 80, 16), "vector", strength=30.0), 1),
    "decay per channel, added, packed": (
        Case(1, 134, (1, 1, 16, 16), "vector", False, False, edges=PACKED),
        1,
    ),
    "decay per channel, added by steps, stretches": (
        SMALL._replace(decay="vector", delta=False),
        2,
    ),
    "decay per channel, stretches": (SMALL._replace(decay="vector"), 2),
    "packed": (Case(1, 134, (1, 1, 16, 16), edges=PACKED), 1),
    "stretches of chunks": (Case(2, 200, (1, 1, 16, 40)), 3),
    "stretches, delta rule without decay": (SMALL._replace(decay="none", step=False), 2),
    "stretches, added": (Case(1, 260, (1, 1, 16, 16), delta=False), 4),
    "stretches, added, no decay": (SMALL._replace(decay="none", delta=False), 2),
}


def run(case: Case, most: int) -> list[float]:
    """Through the op, as on a GPU, with so many stretches at most."""
    gradients = oracle(make(case), case)
    leaves: Any = [None if x is None else x.requires_grad_() for x in make(case)]
    cu_seqlens = None if case.edges is None else torch.tensor(case.edges, dtype=torch.int32)
    with (
        mock.patch.object(op, "served", lambda *_: True),
        mock.patch.object(plan, "stretch_count", lambda *_: most),
    ):
        o, last, _ = op.recurrence(
            *leaves, delta=case.delta, scale=case.scale, cu_seqlens=cu_seqlens
        )
        wanted = [x for x in leaves if x is not None]
        found = torch.autograd.grad([o, last], wanted, gradients.given(o, last))
    expected = [gradients.o, gradients.last, *gradients.found]
    return [relative(a, b) for a, b in zip([o, last, *found], expected, strict=True)]


def check_op() -> list[float]:
    """What torch asks of an op; and FLOPs of it and of its gradient, over the formula's."""
    from torch.utils.flop_counter import FlopCounterMode

    case = Case(1, 6, (1, 2, 16, 16))
    leaves: list[Any] = [None if x is None else x.requires_grad_() for x in make(case)]
    kinds = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(op._recurrence, (*leaves, None, True, 0.5), test_utils=kinds)
    with mock.patch.object(op, "served", lambda *_: True), FlopCounterMode(display=False) as count:
        o, _, _ = op.recurrence(*leaves, delta=True)
        o.sum().backward()  # type: ignore[no-untyped-call]
    once = op._flops(*(None if x is None else x.shape for x in leaves), None, True, 1.0)
    return [abs(count.get_total_flops() / once - 3)]


if __name__ == "__main__":
    accept_new_numpy()
    torch.use_deterministic_algorithms(True)  # with it, new tensors hold NaN
    errors = {name: run(*case) for name, case in CASES.items()}
    print(json.dumps(errors | {"what torch asks of an op": check_op()}))
