"""Run the gated norm's kernels in Triton's interpreter, and print how far off they are.

A process of its own, as TRITON_INTERPRET=1 must stand before Triton is imported:
test_kernels_gated_norm.py starts it. Prints a JSON object, case -> relative errors of the result
and all gradients; NaN where an element was never written.
"""

from __future__ import annotations

import json

import torch
from gated_norm_cases import CASES, errors  # beside this script
from interpreting import accept_new_numpy

from mixerlang.kernels.norm import gated_launch, gated_op


def main() -> None:
    accept_new_numpy()
    gated_op._module = lambda x: gated_launch
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(4).isnan().all()
    gated_launch.PROGRAMS = 2  # so that programs take turns
    print(json.dumps({name: errors(case, gated_op.gated_norm) for name, case in CASES.items()}))


if __name__ == "__main__":
    main()
