"""Run the kernel of a decoding step in Triton's interpreter, and print how far off it is.

A process of its own, as TRITON_INTERPRET=1 must stand before Triton is imported:
test_kernels_recurrence_step.py starts it. Prints a JSON object, case -> relative errors of outputs
and state after a walk; NaN where an element was never written.
"""

from __future__ import annotations

import json

import torch
from interpreting import accept_new_numpy
from recurrence_step_cases import RULES, SHORT, SIZES, errors  # beside this script

from mixerlang.kernels.recurrence import step_launch, step_op
from mixerlang.kernels.recurrence.step_cut import Plan

BLOCKS = {"gated deltanet": 8, "linear": 4, "softmax features": 4}
"""Channels of v at a time, where not all of them."""
LONG = ("gla", "softmax features")
"""Walks beyond the end of a ring."""


def main() -> None:
    accept_new_numpy()
    step_op._module = lambda *_: step_launch
    choose = step_launch.choose
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(4).isnan().all()
    found = {}
    for name, rule in RULES.items():
        plan = Plan(BLOCKS.get(name, choose(rule, 1).block), 4)
        step_launch.choose = lambda *_, plan=plan: plan
        found[name] = errors(rule, sizes=SIZES if name in LONG else SHORT)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
