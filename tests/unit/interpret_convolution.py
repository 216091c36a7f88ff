"""Run the convolution kernels in Triton's interpreter, and print how far off they are.

A process of its own, as TRITON_INTERPRET=1 must stand before Triton is imported:
test_kernels_convolution.py starts it. Prints a JSON object, case -> relative errors of results,
tail and gradients; NaN where an element was never written.
"""

from __future__ import annotations

import json

import torch
from convolution_cases import CASES, errors  # beside this script
from interpreting import accept_new_numpy

from mixerlang.kernels.convolution import launch, op


def main() -> None:
    accept_new_numpy()
    op._module = lambda x: launch
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(4).isnan().all()
    print(json.dumps({name: errors(case, op.convolve) for name, case in CASES.items()}))


if __name__ == "__main__":
    main()
