"""The scan's kernels in Triton's interpreter: errors by case, as JSON."""

from __future__ import annotations

import json

import torch
from interpreting import accept_new_numpy
from scan_cases import RULES, equations, errors, problem

from mixerlang.kernels.scan import op, source

SIZES = {"whole": (8, 16, [3, 3]), "padded": (5, 19, [4, 2])}


def main() -> None:
    accept_new_numpy()
    source.TILE = 16 * 8  # so that small values are cut into blocks
    found = {}
    for name in RULES:
        for size, (key, value, counts) in SIZES.items():
            found[f"{name}, {size}"] = errors(name, key, value, counts)
    found["segments"] = errors("gated delta", 2, 8, [66], heads=1)
    see_through()
    print(json.dumps(found))


def see_through() -> None:
    """The ops as torch.compile takes them."""
    said = equations("momentum")
    operands, states = ([x.detach() for x in part] for part in problem("momentum", 4, 8, tokens=3))
    counts = torch.tensor([3, 2])
    _, after = op.scan(said, operands, states, counts)
    torch.library.opcheck(op._forward, (operands, states, counts, repr(said), True))
    o, *rest = op._forward(operands, states, counts, repr(said), True)
    gradients = [torch.ones_like(x) for x in (o, *after)]
    kept = rest[len(states) :]
    torch.library.opcheck(op._backward, (operands, kept, counts, gradients, repr(said)))


if __name__ == "__main__":
    main()
