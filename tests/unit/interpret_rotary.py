"""Run the rotary kernels in Triton's interpreter, and print how far off they are.

A process of its own, as TRITON_INTERPRET=1 must stand before Triton is imported:
test_kernels_rotary.py starts it. Prints a JSON object, case -> relative errors of y, dx and the
weight's gradient against dense.py in float32, which rounds angles alike; NaN where an element was
never written.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from interpreting import accept_new_numpy  # beside this script
from torch import Tensor

from mixerlang.kernels.rotary import dense, launch

CASES: dict[str, tuple[Any, ...]] = {
    # batch, tokens, heads, dim, half, own positions per sequence, norm, channels first
    "one token": (1, 1, 1, 8, 4, False, False, False),
    "shared positions": (2, 21, 3, 16, 8, False, False, False),
    "own positions": (2, 21, 3, 16, 8, True, False, False),
    "norm": (2, 21, 3, 16, 8, True, True, False),
    "odd halves": (1, 30, 2, 20, 10, False, True, False),
    "part of the channels": (1, 30, 2, 24, 6, False, True, False),
    "part, no norm": (1, 9, 2, 15, 7, False, False, False),
    "strided": (2, 13, 2, 16, 8, True, True, True),
}


def run(case: tuple[Any, ...]) -> list[float]:
    batch, tokens, heads, dim, half, own, norm, strided = case
    torch.manual_seed(0)
    x, dy = (make(batch, tokens, heads, dim, strided) for _ in range(2))
    positions = torch.randint(0, 5000, (batch if own else 1, tokens))
    weight = torch.randn(dim) if norm else None
    rule = (1e4, half, 1e-3)
    y = launch.forward(x, positions, weight, *rule)
    dx, dw = launch.backward(dy, x if norm else None, positions, weight, *rule)
    pairs = [(y, dense.forward(x, positions, weight, *rule))]
    expected = dense.backward(dy, x, positions, weight, *rule)
    pairs += [(a, b) for a, b in zip((dx, dw), expected, strict=True) if a is not None]
    return [error(a, b) for a, b in pairs]


def make(batch: int, tokens: int, heads: int, dim: int, strided: bool) -> Tensor:
    """(batch, tokens, heads, dim), of rows with gaps and heads before tokens where `strided`."""
    if not strided:
        return torch.randn(batch, tokens, heads, dim)
    return torch.randn(batch, heads, tokens, 2 * dim)[..., 3 : 3 + dim].transpose(1, 2)


def error(found: Tensor, expected: Tensor | None) -> float:
    assert expected is not None
    return ((found - expected).norm() / expected.norm()).item()


def main() -> None:
    accept_new_numpy()
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(4).isnan().all()
    print(json.dumps({name: run(case) for name, case in CASES.items()}))


if __name__ == "__main__":
    main()
