"""Run the norm of rows in Triton's interpreter, and print how far off it is from float64.

A process of its own, as TRITON_INTERPRET=1 must stand before Triton is imported. Prints a JSON
object, case -> relative errors; NaN where an element was never written.
"""

from __future__ import annotations

import json

import torch
from interpreting import accept_new_numpy  # beside this script

from mixerlang.kernels.norm.rms_op import _launcher

CASES = {"one row": (1, 8, 8), "odd width": (3, 13, 13), "rows with gaps": (4, 16, 40)}


def run(rows: int, dim: int, apart: int) -> list[float]:
    torch.manual_seed(0)
    x, weight = torch.randn(rows, apart)[:, :dim], torch.randn(dim)
    y = torch.full((rows, dim), torch.nan)
    _launcher(dim, 1e-2, False)((rows,), x, weight, y, x.stride(0))
    wide = x.double()
    expected = wide / (wide.square().mean(1, keepdim=True) + 1e-2).sqrt() * weight
    return [float((y - expected).norm() / expected.norm())]


def main() -> None:
    accept_new_numpy()
    print(json.dumps({name: run(*case) for name, case in CASES.items()}))


if __name__ == "__main__":
    main()
