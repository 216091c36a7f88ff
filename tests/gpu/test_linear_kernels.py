"""Products of few rows on a GPU: against float64, twice bit for bit, in a graph."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mixerlang.kernels.linear import op

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("poisoned")]

TOLERANCE = {torch.bfloat16: 4e-3, torch.float16: 5e-4, torch.float32: 2e-6}
SHAPES = [
    # inputs, outputs of each weight
    (1024, (1024, 1024, 1024)),
    (2816, (1024,)),
    (1024, (32_000,)),
    (4096, (4096, 1024, 1024)),
    (11_008, (512, 7)),
    (100, (33,)),
    (1, (1, 2, 3)),
]


def draw(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(*shape, device="cuda").to(dtype)


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES, ids=str)
def test_products(inputs: int, outputs: tuple[int, ...], rows: int, dtype: torch.dtype) -> None:
    x = draw(rows, inputs, dtype=dtype)
    weights = [draw(width, inputs, dtype=dtype) / inputs**0.5 for width in outputs]
    biases = [draw(width, dtype=dtype) for width in outputs]
    residual = draw(rows, 2 * sum(outputs), dtype=dtype)[:, : sum(outputs)]
    products = [x.double() @ w.double().T for w in weights]
    plain = torch.cat(products, 1)
    whole = plain + torch.cat(biases).double() + residual.double()
    for given, wanted in (((), plain), ((biases, residual), whole)):
        found = op.linear(x, weights, *given)
        assert error(found, wanted) < TOLERANCE[dtype]
        assert torch.equal(found, op.linear(x, weights, *given))
    up = weights[0].flip(0).contiguous()
    wanted = F.silu(products[0]) * (x.double() @ up.double().T)
    found = op.gated(x, weights[0], up)
    assert error(found, wanted) < 2 * TOLERANCE[dtype]
    assert torch.equal(found, op.gated(x, weights[0], up))


def test_a_chain_in_a_graph_waits_for_what_it_reads() -> None:
    """Each launch starts while the one before it runs; layers of unequal length, replayed often."""
    widths = [64, 20_000, 32, 4096, 3000, 64]
    weights = [
        draw(out, inputs, dtype=torch.bfloat16) / inputs**0.5
        for inputs, out in itertools.pairwise(widths)
    ]
    x, same = draw(1, 64, dtype=torch.bfloat16), torch.eye(64, device="cuda").bfloat16()

    def chain() -> Tensor:
        y = x
        for _ in range(4):
            for weight in weights:
                y = op.linear(y, [weight])
            y = op.linear(y, [same], residual=x)
        return y

    chain()  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        replayed = chain()
    for _ in range(50):
        x.normal_()
        eager = chain()
        torch.cuda.synchronize()
        graph.replay()
        assert torch.equal(replayed, eager)
