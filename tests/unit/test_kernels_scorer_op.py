"""The scorer op on the CPU: mathematics, dropout, gradients, and what torch asks of an op."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from scorer_cases import SEED, make, oracle, relative
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mixerlang.kernels.scorer import op, packing, reference
from mixerlang.kernels.scorer.network import Network
from mixerlang.nn.keeps import Cnn
from mixerlang.nn.scorer import CnnScorer
from mixerlang.nn.sequences import Sequences

SMALL = Network(2, 6, 4, (6, 3, 2))
CASES = [
    # network, batch, tokens, dropout, cu_seqlens
    (SMALL, 2, 20, 0.0, None),
    (SMALL, 1, 1, 0.25, None),
    (SMALL, 2, 9, 0.25, None),
    (Network(1, 3, 5, (4, 3), (5, 1), (1, 3)), 1, 14, 0.5, [0, 1, 6, 6, 14]),
]


def call(inputs: list[Tensor], network: Network, dropout: float, cu: list[int] | None) -> Tensor:
    k, v, *rest = inputs
    n = len(rest) // 2
    return op.logits(
        *(k, v, rest[:n], rest[n:]),
        dilations=network.dilations,
        dropout=dropout,
        seed=torch.tensor([SEED]),
        cu_seqlens=None if cu is None else torch.tensor(cu, dtype=torch.int32),
    )


@pytest.mark.parametrize(("network", "batch", "tokens", "dropout", "cu"), CASES)
def test_agrees_with_the_reference(
    network: Network, batch: int, tokens: int, dropout: float, cu: list[int] | None
) -> None:
    inputs = make(network, tokens, batch, torch.float64)
    dz = torch.randn(batch, network.heads, tokens, dtype=torch.float64)
    dropped = int(dropout * 65536)
    edges = None if cu is None else torch.tensor(cu)
    expected = oracle(inputs, network, dz, dropped, edges)
    z = call(inputs.leaves, network, dropout, cu)
    found = [z, *torch.autograd.grad(z, inputs.leaves, dz)]
    assert max(relative(a, b) for a, b in zip(found, expected, strict=True)) < 1e-13


@pytest.mark.parametrize(("network", "batch", "tokens", "dropout", "cu"), CASES)
def test_gradients(
    network: Network, batch: int, tokens: int, dropout: float, cu: list[int] | None
) -> None:
    inputs = make(network, tokens, batch, torch.float64)
    run = lambda *leaves: call(list(leaves), network, dropout, cu)  # noqa: E731
    assert torch.autograd.gradcheck(run, inputs.leaves, fast_mode=True)


@pytest.mark.parametrize(
    "cnn", [Cnn(), Cnn(kernels=(5, 1), dilations=(1, 3)), Cnn(kernels=(3,), dilations=(4,))]
)
def test_is_the_eager_scorer(cnn: Cnn) -> None:
    module = CnnScorer(2, 5 + 3, 8, cnn).double().eval()
    k, v = (torch.randn(3, 17, 2, dim, dtype=torch.float64) for dim in (5, 3))
    convs = [*module.convs, module.proj]
    weights, biases = [conv.weight for conv in convs], [conv.bias for conv in convs]
    found = op.logits(k, v, weights, biases, dilations=cnn.dilations)
    kv = torch.cat([k, v], -1).transpose(1, 2)
    torch.testing.assert_close(found, module(kv, Sequences.of(k)))
    torch.testing.assert_close(found, reference.logits(k, v, weights, biases, cnn.dilations))


def test_a_packed_call_is_its_sequences() -> None:
    network = Network(2, 6, 6, (6, 3), (3, 3), (2, 2))
    inputs = make(network, 30, dtype=torch.float64)
    found = call(inputs.leaves, network, 0.0, [0, 1, 13, 30])
    for low, high in ((0, 1), (1, 13), (13, 30)):
        part = [inputs.k[:, low:high], inputs.v[:, low:high], *inputs.leaves[2:]]
        torch.testing.assert_close(found[..., low:high], call(part, network, 0.0, None))


def test_dropout_drops_as_many_as_it_should_and_no_two_alike() -> None:
    shape, p = (2, 3, 500, 64), 0.1
    masks = [
        reference.kept(seed, layer, shape, round(p * 65536), torch.device("cpu")).double()
        for seed, layer in ((1, 0), (1, 1), (2, 0), (2**40 + 1, 0))
    ]
    spread = (p * (1 - p)) ** 0.5
    for mask in masks:
        assert abs(1 - mask.mean() - p) < 5 * spread / mask.numel() ** 0.5
        for axes in ((0, 1, 2), (2, 3), (0, 1, 3)):  # no channel, lane or token stands out
            count = mask.numel() / mask.mean(axes).numel()
            assert ((1 - mask.mean(axes) - p).abs() < 5.5 * spread / count**0.5).all()
        flat = (mask - mask.mean()) / spread
        for shift, axis in ((1, 3), (2, 3), (1, 2), (2, 2), (1, 1)):
            product = flat * flat.roll(shift, axis)
            assert abs(product.mean()) < 5 / mask.numel() ** 0.5
    for i, first in enumerate(masks):
        for second in masks[:i]:
            agree = ((first - 1 + p) * (second - 1 + p)).mean() / spread**2
            assert abs(agree) < 5 / first.numel() ** 0.5


def test_dropout_keeps_the_mean() -> None:
    network = Network(1, 64, 64, (1,), (1,), (1,))
    inputs = make(network, 400)
    with torch.no_grad():
        inputs.k.fill_(1), inputs.v.fill_(1), inputs.weights[0].fill_(1 / 128)
        inputs.biases[0].fill_(0)
        z = call(inputs.leaves, network, 0.5, None) - inputs.biases[1]
    inputs_of_silu = torch.linspace(0.5, 1.5, 1001)
    table = F.silu(inputs_of_silu) * inputs.weights[1].item()
    nearest = (z.flatten()[:, None] - table).abs().argmin(1)
    assert abs(inputs_of_silu[nearest].mean() - 1) < 5 * (1 / 128 / 400) ** 0.5


@pytest.mark.parametrize("begin", [[0, 31], [-1, 5]])
def test_rings(begin: list[int]) -> None:
    network, count = SMALL, 12
    inputs = make(network, 60, 2, torch.float64)
    packed = packing.pack(inputs.weights, inputs.biases, network, torch.float64)
    k, v = inputs.k.detach(), inputs.v.detach()
    whole = op.logits(k, v, inputs.weights, inputs.biases, dilations=network.dilations).detach()
    rings = [torch.full((2, 2, 24, x.shape[-1]), torch.nan, dtype=x.dtype) for x in (k, v)]
    z = torch.zeros(2, 2, 30, dtype=torch.float64)
    for n, first in enumerate(begin):
        there = torch.arange(max(0, first - 6), first + count + 6)
        for ring, x in zip(rings, (k, v), strict=True):
            ring[n][:, there % 24] = x[n, there].transpose(0, 1)
    op.rows(*rings, z, packed, network, begin=torch.tensor(begin, dtype=torch.int32), count=count)
    for n, first in enumerate(begin):
        expected = torch.zeros_like(z[n])
        if first >= 0:
            there = torch.arange(first, first + count)
            expected[:, there % 30] = whole[n][:, there]
        torch.testing.assert_close(z[n], expected)
    with pytest.raises(ValueError, match="24 and 24 do not hold"):
        op.rows(*rings, z, packed, network, begin=torch.tensor(begin), count=13)


@pytest.mark.parametrize("read", [(), ("k",), ("v",), ("k", "v", "v")])
def test_other_gradients_of_k_and_v_come_along(read: tuple[str, ...]) -> None:
    """Those of what reads k and v as they are handed on, once, twice or not at all."""
    inputs = make(SMALL, 20, 2, torch.float64)
    seed = torch.tensor([SEED])

    def run(k: Tensor, v: Tensor, *rest: Tensor, shared: bool = True) -> Tensor:
        n = len(rest) // 2
        options = {"dilations": SMALL.dilations, "dropout": 0.1, "seed": seed}
        found = op.logits_and_inputs(k, v, rest[:n], rest[n:], **options)
        given = {"k": found[1] if shared else k, "v": found[2] if shared else v}
        return found[0].sin().sum() + sum((given[name] ** 3).sum() for name in read)

    expected = torch.autograd.grad(run(*inputs.leaves, shared=False), inputs.leaves)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for way in (run, compiled):
        found = torch.autograd.grad(way(*inputs.leaves), inputs.leaves)
        torch.testing.assert_close(found, expected)


def test_k_and_v_are_handed_on_where_no_logit_is_read() -> None:
    inputs = make(SMALL, 9)
    _, k, v = op.logits_and_inputs(*inputs, dilations=SMALL.dilations)
    dk, dv, dw = torch.autograd.grad(
        (2 * k).sum() + v.sum(), [inputs.k, inputs.v, inputs.weights[0]], allow_unused=True
    )
    assert dk.eq(2).all() and dv.eq(1).all() and dw is None


def test_opcheck() -> None:
    inputs = make(SMALL, 7, 2)
    rest = (torch.tensor([5]), None, list(SMALL.dilations), 6554)
    torch.library.opcheck(op._shared, (*inputs, *rest))
    k, v, *parameters = (x.detach() for x in inputs.leaves)
    weights, biases = parameters[:4], parameters[4:]
    torch.library.opcheck(op._scorer, (k, v, weights, biases, *rest, True))
    z, saved = op._scorer(k, v, weights, biases, *rest, True)
    for others in ((None, None), (torch.randn_like(k), None)):
        grads = (torch.randn_like(z), *others)
        torch.library.opcheck(op._scorer_backward, (*grads, saved, k, v, weights, *rest))


def test_opcheck_packed_with_strides() -> None:
    few = make(Network(2, 2, 2, (6, 3, 2)), 7)
    k, v = (torch.randn(1, 7, 2, 4)[..., ::2].requires_grad_() for _ in range(2))
    rest = (None, torch.tensor([0, 3, 7]), list(SMALL.dilations), 0)
    torch.library.opcheck(op._shared, (k, v, few.weights, few.biases, *rest))


def test_saves_nothing_for_evaluation() -> None:
    inputs = make(SMALL, 7)
    rest = (None, None, list(SMALL.dilations), 0, False)
    k, v, weights, biases = inputs
    assert op._scorer(k, v, weights, biases, *rest)[1] == []


def test_counts_flops() -> None:
    inputs = make(SMALL, 7, 2)
    numbers = sum(x.numel() for x in inputs.weights)
    with FlopCounterMode(display=False) as counter:
        z = call(inputs.leaves, SMALL, 0.0, None)
        forward = counter.get_total_flops()
        z.sum().backward()
    assert forward == 2 * 2 * 7 * numbers
    assert counter.get_total_flops() == 3 * forward


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dropout": 1.0, "seed": torch.tensor([1])}, "below 1"),
        ({"dropout": 0.1}, "takes a seed"),
        ({"dropout": 0.1, "seed": torch.tensor([1.0])}, "takes a seed"),
        ({"cu_seqlens": torch.tensor([0, 9])}, "one batch row"),
        ({"dilations": (2, 2)}, "as many kernels and dilations"),
        ({"dilations": (9, 9, 9)}, "27 tokens ahead"),
    ],
)
def test_refuses(changes: dict[str, object], message: str) -> None:
    arguments = {"dilations": SMALL.dilations} | changes
    with pytest.raises(ValueError, match=message):
        op.logits(*make(SMALL, 9, 2), **arguments)  # type: ignore[arg-type]


def test_refuses_packing_on_another_device() -> None:
    edges = torch.zeros(2, device="meta", dtype=torch.int32)
    with pytest.raises(ValueError, match="cu_seqlens lies on meta, k on cpu: move it"):
        op.logits(*make(SMALL, 9), dilations=SMALL.dilations, cu_seqlens=edges)


def test_names_tell_networks_apart() -> None:
    networks = [
        SMALL,
        Network(1, 6, 4, (6, 3, 2)),
        Network(2, 4, 6, (6, 3, 2)),
        Network(2, 6, 4, (6, 3), (3, 3), (2, 2)),
        Network(2, 6, 4, (6, 3), (3, 3), (2, 1)),
        Network(2, 6, 4, (6, 3), (3, 1), (2, 2)),
    ]
    stems = [network.stem("forward") for network in networks]
    assert len(set(stems)) == len(stems)
    assert all(stem.isidentifier() for stem in stems)
