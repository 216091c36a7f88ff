"""The scan's kernels on a GPU: o, states and all gradients against the equations in float64."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from scan_cases import RULES, equations, errors, problem

import mixerlang
from mixerlang.kernels.scan import op
from mixerlang.nn import backend

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[2]
SIZES = {"64": (64, 64, [70, 131], 2), "padded": (5, 19, [9, 3, 70], 3), "128": (128, 128, [65], 4)}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", RULES)
def test_kernels(name: str, size: str, poisoned: None) -> None:
    key, value, counts, heads = SIZES[size]
    assert max(errors(name, key, value, counts, "cuda", heads)) < 1e-4


def test_ops_can_be_seen_through() -> None:
    operands, states = ([x.detach() for x in part] for part in problem("momentum", 8, 16,
                                                                       device="cuda"))
    said = equations("momentum")
    counts = torch.tensor([9, 4], device="cuda")
    o, after = op.scan(said, operands, states, counts)
    torch.library.opcheck(op._forward, (operands, states, counts, repr(said), True))
    kept = op._forward(operands, states, counts, repr(said), True)[1 + len(states) :]
    gradients = [torch.ones_like(x) for x in (o, *after)]
    torch.library.opcheck(op._backward, (operands, kept, counts, gradients, repr(said)))


def test_a_model() -> None:
    """With kernels as in plain PyTorch; prefill, steps and packed sequences as a full forward."""
    model = mixerlang.load(ROOT / "specs/rules/equations.mix", device="cuda", seed=1).eval()
    tokens = torch.randint(0, 256, (2, 100), device="cuda")
    with torch.no_grad():
        full = model(tokens)
        with backend.forced("eager"):
            torch.testing.assert_close(full, model(tokens), atol=1e-3, rtol=1e-3)
        cache = model.new_cache(2)
        parts = [model(part, cache=cache) for part in tokens.split([70, 1, 1, 28], 1)]
        torch.testing.assert_close(torch.cat(parts, 1), full, atol=1e-3, rtol=1e-3)
        packed = model(tokens[:1], cu_seqlens=torch.tensor([0, 40, 100]))
        alone = [model(tokens[:1, :40]), model(tokens[:1, 40:])]
        torch.testing.assert_close(packed, torch.cat(alone, 1), atol=1e-3, rtol=1e-3)


def test_steps_in_a_graph() -> None:
    """Greedy decoding, a step being one CUDA graph, gives what plain PyTorch gives."""
    spec = ROOT / "specs/rules/equations.mix"
    prompts, found = [[72, 101, 108], [84]], []
    for way in ("kernels", "eager"):
        with backend.forced(way):
            model = mixerlang.load(spec, device="cuda", dtype=torch.float32, seed=1)
            found.append(model.generate(prompts, max_new_tokens=12))
    assert found[0] == found[1]
