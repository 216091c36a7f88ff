"""The scorer kernels on a GPU: networks, lengths, packing, dropout, gradients, rings.

Against the definition in float64. Outputs start as NaN, so that an element that no program writes
is seen.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mixerlang.kernels.scorer import op, packing
from mixerlang.kernels.scorer.network import Network

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from scorer_cases import SEED, Inputs, make, oracle, relative

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("poisoned")]

TOLERANCE = {torch.bfloat16: 1.5e-2, torch.float16: 2e-3, torch.float32: 5e-6}
PAPER = Network(4, 64, 64, (64, 32, 16))
NETWORKS = [
    PAPER,
    Network(2, 128, 128, (128, 64, 32)),
    Network(2, 16, 16, (16, 8, 4)),
    Network(3, 80, 48, (80, 40, 20)),
    Network(1, 100, 36, (52, 26), (5, 1), (3, 2)),
    Network(2, 256, 256, (256, 128, 64)),
    Network(1, 64, 64, (64,), (7,), (4,)),
    Network(1, 8, 20, (16, 9), (3, 5), (3, 2)),
]


def call(
    inputs: Inputs, network: Network, dropout: float = 0.0, cu: list[int] | None = None
) -> Tensor:
    return op.logits(
        *inputs,
        dilations=network.dilations,
        dropout=dropout,
        seed=torch.tensor([SEED], device="cuda"),
        cu_seqlens=None if cu is None else torch.tensor(cu, device="cuda", dtype=torch.int32),
    )


def compare(
    network: Network,
    tokens: int,
    batch: int = 1,
    dtype: torch.dtype = torch.bfloat16,
    dropout: float = 0.0,
    cu: list[int] | None = None,
    seed: int = 0,
) -> None:
    """z and every gradient, within the dtype's tolerance, and twice the same."""
    inputs = make(network, tokens, batch, dtype, "cuda", seed)
    dz = torch.randn(batch, network.heads, tokens, device="cuda")
    edges = None if cu is None else torch.tensor(cu, device="cuda")
    expected = oracle(inputs, network, dz, round(dropout * 65536), edges)

    def run() -> list[Tensor]:
        z = call(inputs, network, dropout, cu)
        return [z, *torch.autograd.grad(z, inputs.leaves, dz)]

    found = run()
    for index, (got, want) in enumerate(zip(found, expected, strict=True)):
        assert relative(got, want) < TOLERANCE[dtype], index
    for first, second in zip(found, run(), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_dtypes(dtype: torch.dtype) -> None:
    for seed, dropout in enumerate((0.0, 0.1)):
        compare(PAPER, 700, 2, dtype, dropout, seed=seed)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("network", NETWORKS[1:])
def test_networks(network: Network, dtype: torch.dtype) -> None:
    for seed in range(2):
        compare(network, 500, 2, dtype, 0.1, seed=seed)


@pytest.mark.parametrize("tokens", [1, 2, 7, 63, 64, 65, 117, 121, 257, 3000, 20000])
def test_lengths(tokens: int) -> None:
    compare(PAPER, tokens, 1, dropout=0.1, seed=tokens)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_packed(dtype: torch.dtype) -> None:
    compare(PAPER, 900, 1, dtype, 0.1, [0, 1, 3, 120, 500, 500, 777, 900])


def test_a_packed_call_is_its_sequences_bit_for_bit() -> None:
    inputs = make(PAPER, 900, 1, torch.bfloat16, "cuda")
    edges = [0, 1, 3, 120, 500, 777, 900]
    with torch.no_grad():
        packed = call(inputs, PAPER, cu=edges)
        for low, high in pairwise(edges):
            part = Inputs(inputs.k[:, low:high], inputs.v[:, low:high], *inputs[2:])
            assert torch.equal(packed[..., low:high], call(part, PAPER))


def test_layouts() -> None:
    """Heads before tokens, channels with a stride, addresses that are not aligned."""
    inputs = make(PAPER, 300, 2, torch.bfloat16, "cuda")
    k, v = inputs.k.detach(), inputs.v.detach()
    expected = call(inputs, PAPER)
    moved = k.transpose(1, 2).contiguous().transpose(1, 2)
    wide = torch.randn(2, 300, 4, 131, device="cuda").to(v.dtype)[..., 3::2]
    wide.copy_(v)
    odd = torch.empty(v.numel() + 1, device="cuda", dtype=v.dtype)[1:].view(v.shape)
    odd.copy_(v)
    for other in ((moved, v), (k, wide), (k, odd)):
        assert torch.equal(call(Inputs(*other, *inputs[2:]), PAPER), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("network", NETWORKS[:4])
def test_rings_give_the_same_bits(network: Network, dtype: torch.dtype) -> None:
    tokens, batch, count, reach = 500, 3, 64, network.lookahead
    inputs = make(network, tokens, batch, dtype, "cuda")
    with torch.no_grad():
        packed = packing.pack(inputs.weights, inputs.biases, network, dtype)
        whole = call(inputs, network)
        dims = ((inputs.k, count + 2 * reach + 8), (inputs.v, count + 2 * reach + 51))
        for begin in ([0, 64, -1], [301, 2, 5]):
            rings = [
                torch.full((batch, network.heads, n, x.shape[-1]), torch.nan, device="cuda").to(
                    dtype
                )
                for x, n in dims
            ]
            z = torch.full((batch, network.heads, 97), 7.0, device="cuda")
            expected = z.clone()
            for n, first in enumerate(begin):
                rows = torch.arange(max(0, first - reach), first + count + reach, device="cuda")
                for ring, (x, size) in zip(rings, dims, strict=True):
                    ring[n][:, rows % size] = x[n, rows].transpose(0, 1)
                if first >= 0:
                    rows = torch.arange(first, first + count, device="cuda")
                    expected[n][:, rows % 97] = whole[n][:, rows]
            where = torch.tensor(begin, device="cuda", dtype=torch.int32)
            op.rows(*rings, z, packed, network, begin=where, count=count)
            assert torch.equal(z, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("network", [PAPER, NETWORKS[3], NETWORKS[5]])
def test_other_gradients_of_k_and_v(network: Network, dtype: torch.dtype) -> None:
    """They come in any layout, and are added before the sum is rounded."""
    inputs = make(network, 300, 2, dtype, "cuda")
    dz = torch.randn(2, network.heads, 300, device="cuda")
    others = [
        torch.randn(2, network.heads, 300, x.shape[-1] + 3, device="cuda") for x in inputs[:2]
    ]
    others = [x.to(dtype).transpose(1, 2)[..., 3:] for x in others]
    _, dk, dv, *_ = oracle(inputs, network, dz)

    def run(which: tuple[int, ...]) -> list[Tensor]:
        found = op.logits_and_inputs(*inputs, dilations=network.dilations)
        read = [found[0], *(found[1 + i] for i in which)]
        return list(torch.autograd.grad(read, inputs[:2], [dz, *(others[i] for i in which)]))

    for which in ((), (0,), (1,), (0, 1)):
        for i, (found, alone) in enumerate(zip(run(which), (dk, dv), strict=True)):
            expected = alone + others[i].double() if i in which else alone
            assert relative(found, expected) < TOLERANCE[dtype]
            assert found.is_contiguous()


def test_a_graph_draws_anew_from_its_seed() -> None:
    """The seed is read when the kernels run, not when they are captured."""
    inputs = make(PAPER, 300, 1, torch.bfloat16, "cuda")
    seed = torch.tensor([3], device="cuda")
    torch.use_deterministic_algorithms(False)

    def run() -> Tensor:
        with torch.no_grad():
            return op.logits(*inputs, dilations=PAPER.dilations, dropout=0.1, seed=seed)

    first = run().clone()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        z = run()
    graph.replay()
    assert torch.equal(z, first)
    seed.fill_(4)
    graph.replay()
    assert torch.equal(z, run()) and not torch.equal(z, first)


def test_offsets_beyond_32_bits() -> None:
    """3 * 2^30 elements of k: rows near the end are read and written where they are."""
    network = Network(16, 128, 8, (16, 8), (3, 3), (2, 2))
    tokens = 3 * 2**30 // (16 * 128)
    inputs = make(network, 400, 1, torch.bfloat16, "cuda")
    k = torch.zeros(1, tokens, 16, 128, device="cuda", dtype=torch.bfloat16)
    v = torch.zeros(1, tokens, 16, 8, device="cuda", dtype=torch.bfloat16)
    k[:, -400:], v[:, -400:] = inputs.k.detach(), inputs.v.detach()
    torch.use_deterministic_algorithms(False)
    with torch.no_grad():
        z = call(Inputs(k, v, *inputs[2:]), network)[..., -390:]
        expected = call(inputs, network)[..., -390:]
    assert torch.equal(z, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("network", NETWORKS)
def test_weights_are_packed_bit_for_bit(network: Network, dtype: torch.dtype) -> None:
    from mixerlang.kernels.scorer import launch

    inputs = make(network, 1, 1, dtype, "cuda")
    made = launch.pack(inputs.weights, inputs.biases, network, dtype)
    for found, expected in zip(
        made, packing.pack(inputs.weights, inputs.biases, network, dtype), strict=True
    ):
        assert torch.equal(found, expected)


def test_opcheck() -> None:
    inputs = make(PAPER, 40, 2, torch.bfloat16, "cuda")
    seed = torch.tensor([3], device="cuda")
    torch.use_deterministic_algorithms(False)
    torch.library.opcheck(op._shared, (*inputs, seed, None, [2, 2, 2], 6554))
