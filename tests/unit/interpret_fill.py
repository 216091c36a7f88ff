"""Fill decode caches in Triton's interpreter, and print which tensors come out otherwise.

test_kernels_decode_fill.py starts it. Prints a JSON object, case -> names of tensors.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

import filling
from interpreting import accept_new_numpy

from mixerlang.kernels.decode import fill_cut

if __name__ == "__main__":
    accept_new_numpy()
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    fill_cut.BLOCK = 16  # several turns
    fill_cut.ELEMENTS = 64
    found = {name: filling.differences(*case) for name, *case in filling.cases()}
    print(json.dumps(found))
