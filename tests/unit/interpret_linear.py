"""Run the products of few rows in Triton's interpreter, and print how far off they are.

A process of its own, as TRITON_INTERPRET=1 must stand before Triton is imported. Prints a JSON
object, case -> relative errors against float64; NaN where an element was never written.
"""

from __future__ import annotations

import json

import torch
import torch.nn.functional as F
from interpreting import accept_new_numpy  # beside this script
from torch import Tensor

from mixerlang.kernels.linear import cut, launch

CASES: dict[str, tuple[int, int, tuple[int, ...], bool]] = {
    # rows, inputs, outputs of each weight, biases
    "one output": (1, 5, (1,), False),
    "one weight": (1, 24, (7,), True),
    "two": (2, 16, (9, 5), False),
    "three rows, three weights": (3, 40, (8, 4, 4), True),
    "turns of a loop": (4, 150, (3, 70), False),
}


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def run(rows: int, inputs: int, outputs: tuple[int, ...], bias: bool) -> list[float]:
    torch.manual_seed(0)
    x = torch.randn(rows, inputs)
    weights = [torch.randn(width, inputs) for width in outputs]
    biases = [torch.randn(width) for width in outputs] if bias else []
    wide = x.double()
    products = [wide @ w.double().T for w in weights]
    expected = torch.cat(products, 1) + (torch.cat(biases) if bias else 0)
    found = [error(launch.linear(x, weights, biases), expected)]
    residual = torch.randn(rows, 2 * sum(outputs))[:, : sum(outputs)]
    found.append(error(launch.linear(x, weights, biases, residual), expected + residual))
    gate, up = weights[0], torch.randn(outputs[0], inputs)
    gated = F.silu(wide @ gate.double().T) * (wide @ up.double().T)
    return [*found, error(launch.gated(x, gate, up), gated)]


def main() -> None:
    accept_new_numpy()
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    assert torch.empty(4).isnan().all()
    cut.WIDEST, cut.TILE, cut.PROGRAMS = 64, 1024, 3
    print(json.dumps({name: run(*case) for name, case in CASES.items()}))


if __name__ == "__main__":
    main()
