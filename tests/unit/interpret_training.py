"""Run the kernels of SwiGLU and of cross-entropy in Triton's interpreter, and print how far off
they are.

test_kernels_training.py starts it. Prints a JSON object, case -> relative errors of results and
gradients against plain PyTorch in float64; NaN where an element was never written.
"""

from __future__ import annotations

import json

import torch
import torch.nn.functional as F
from interpreting import accept_new_numpy  # beside this script
from torch import Tensor

from mixerlang.kernels.entropy import launch as entropy
from mixerlang.kernels.swiglu import launch as swiglu

SHAPES = [(1,), (3, 5, 7), (2, 2048), (1, 4099)]
VOCABS = [(1, 1), (5, 7), (3, 128), (4, 4097), (2, 9000)]


def gated(shape: tuple[int, ...]) -> list[float]:
    gate, up, dout = (torch.randn(shape) for _ in range(3))
    gate = gate.transpose(0, -1).contiguous().transpose(0, -1)  # copied where it has two axes
    found = [swiglu.forward(gate, up), *swiglu.backward(dout, gate, up)]
    leaves = [x.double().requires_grad_() for x in (gate, up)]
    out = F.silu(leaves[0]) * leaves[1]
    return errors(found, [out, *torch.autograd.grad(out, leaves, dout.double())])


def losses(rows: int, vocab: int, spread: bool) -> list[float]:
    """Of rows with gaps between them, one without a target. spread: with -inf among the logits,
    and one gradient for all rows."""
    logits = 5 * torch.randn(rows, vocab + 3)[:, :vocab]
    targets = torch.randint(vocab, (rows,))
    if rows > 1:
        targets[0] = -100
    dlosses = torch.randn(rows)
    if spread:
        dlosses = dlosses[:1].expand(rows)
        hidden = torch.rand(rows, vocab) < 0.9
        hidden[torch.arange(rows), targets.clamp(min=0)] = False
        logits = logits.masked_fill(hidden, -torch.inf)
    found, lse = entropy.forward(logits, targets, -100)
    gradient = entropy.backward(dlosses, logits, targets, lse, -100)
    leaf = logits.double().requires_grad_()
    expected = F.cross_entropy(leaf, targets, reduction="none")
    theirs = torch.autograd.grad(expected, leaf, dlosses.double())[0]
    return errors([found, gradient], [expected, theirs])


def beyond() -> list[float]:
    """A target that is no column: its loss is not a number, the others are as they were."""
    logits, targets = torch.randn(3, 10), torch.tensor([4, 10, -1])
    found, _ = entropy.forward(logits, targets, -100)
    assert found.isnan().tolist() == [False, True, True]
    return errors([found[:1]], [F.cross_entropy(logits[:1].double(), targets[:1])[None]])


def errors(found: list[Tensor], expected: list[Tensor]) -> list[float]:
    pairs = zip(found, expected, strict=True)
    return [((a - b).norm() / b.norm().clamp(min=1e-6)).item() for a, b in pairs]


def main() -> None:
    accept_new_numpy()
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.manual_seed(0)
    results = {f"swiglu {shape}": gated(shape) for shape in SHAPES}
    for size in VOCABS:
        for spread in (False, True):
            results[f"entropy {size} {spread}"] = losses(*size, spread)
    results["no column"] = beyond()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
