"""Learned token eviction (LTE) beside dense attention and FlexAttention: window, budget, sinks.

Ours is all that a layer does between its projections: the CNN scorer (with its dropout where it
trains), the intervals of eviction, attention, and backward through all of it. Three workloads:

    random    under the budget, random scores, all of them candidates
    rising    under the budget, each score above all before: every token replaces one
    sparse    without a budget, as layers train: 12.5 % of the tokens are candidates

The workload's scores decide, not the scorer's, which runs all the same. Peers: SDPA over all of
the past by cuDNN and by FlashAttention-2, which see every key; FlexAttention with the mask of
`random`, its block mask built anew for each call (as the reference code of LTE trains) and for
nothing. Flex gets the intervals for nothing, too, and no scorer runs with it.

    python benchmarks/attention_lte.py --output benchmarks/results
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import harness
import tables
import torch
import torch.nn.functional as F
from torch import Tensor

from mixerlang.kernels.attention import op as attention_op
from mixerlang.kernels.attention.intervals import SEGMENT, Intervals
from mixerlang.kernels.eviction import op as eviction_op
from mixerlang.kernels.eviction import reference
from mixerlang.kernels.scorer import op as scorer_op
from mixerlang.nn.keeps import Cnn
from mixerlang.nn.scorer import CnnScorer

DIM = 64
WINDOW, BUDGET, SINKS = 768, 512, 4
DROPOUT = 0.1
WORKLOADS = ("random", "rising", "sparse")
Call = Callable[[], Any]
Pair = tuple[Call, Call]
"""Forward without gradients, and forward with backward."""


class Cell(NamedTuple):
    tokens: int
    heads: int
    kv_heads: int
    flex: bool = False
    batch: int = 1

    @property
    def shape(self) -> str:
        heads = f"H{self.heads}/{self.kv_heads}"
        return f"B{self.batch} {heads} T{self.tokens} D{DIM} W{WINDOW} b{BUDGET}"

    def __str__(self) -> str:
        return f"{self.shape} {'flex' if self.flex else 'dense'}"


CELLS = [
    Cell(tokens, *heads)
    for heads, tokens in itertools.product(
        [(16, 16), (32, 8)], [4096, 8192, 16384, 32768, 65536, 131072]
    )
]
CELLS += [Cell(4096, 16, 16, batch=8), Cell(8192, 16, 16, batch=4)]
CELLS += [Cell(8192, 16, 16, flex=True), Cell(32768, 16, 16, flex=True)]
REHEARSAL = [Cell(1024, 2, 1)]


class Inputs:
    """Random numbers of a cell; k serves before and after rotation, which costs neither side."""

    def __init__(self, cell: Cell) -> None:
        torch.manual_seed(cell.tokens + cell.heads)
        device = harness.device()
        shapes = (cell.heads, cell.kv_heads, cell.kv_heads, cell.heads)
        self.q, self.k, self.v, self.do = (
            torch.randn(cell.batch, cell.tokens, heads, DIM, device=device).bfloat16()
            for heads in shapes
        )
        cnn = Cnn(dropout=DROPOUT)
        scorer = CnnScorer(cell.kv_heads, 2 * DIM, DIM, cnn).to(device)
        layers = [*scorer.convs, scorer.proj]
        self.weights = [layer.weight.detach() for layer in layers]
        self.biases = [layer.bias.detach() for layer in layers]
        self.dilations = tuple(cnn.dilations)
        self.seed = torch.full((1,), 1234, dtype=torch.int64, device=device)
        self.uniform = torch.rand(cell.batch, cell.kv_heads, cell.tokens, device=device)

    def scores(self, workload: str) -> Tensor:
        """(B, G, T): what the workload decides by; above 0 for candidates."""
        if workload == "random":
            return self.uniform + 1
        if workload == "rising":
            return torch.arange(1, self.uniform.shape[-1] + 1.0).to(self.uniform).expand_as(
                self.uniform).contiguous()
        return torch.where(self.uniform < 0.125, 1.0, -1.0)


def score(inputs: Inputs, leaves: list[Tensor], dropout: float) -> tuple[Tensor, Tensor, Tensor]:
    """The CNN on k, v and its parameters, which are its weights, then its biases; k and v for
    attention."""
    (k, v), rest = leaves[:2], leaves[2:]
    weights, biases = rest[: len(rest) // 2], rest[len(rest) // 2 :]
    return scorer_op.logits_and_inputs(
        k,
        v,
        weights,
        biases,
        dilations=inputs.dilations,
        dropout=dropout,
        seed=inputs.seed if dropout else None,
    )


def ours(inputs: Inputs, workload: str) -> Pair:
    """Scorer, intervals and attention."""
    chosen = inputs.scores(workload)
    budget = None if workload == "sparse" else BUDGET

    def layer(leaves: list[Tensor], dropout: float) -> Tensor:
        q = leaves[0]
        z, k, v = score(inputs, leaves[1:], dropout)
        spans = eviction_op.intervals(chosen, window=WINDOW, budget=budget, sinks=SINKS)
        straight_through = z if dropout else None
        return attention_op.attention(
            q, k, v, window=WINDOW, intervals=spans, score=straight_through
        )

    values = [inputs.q, inputs.k, inputs.v, *inputs.weights, *inputs.biases]
    return both(layer, values, inputs.do)


def both(layer: Callable[[list[Tensor], float], Tensor], values: list[Tensor], do: Tensor) -> Pair:
    """Forward as in inference; forward and backward as in training, with dropout."""
    leaves = [value.detach().clone().requires_grad_() for value in values]

    def forward() -> Tensor:
        with torch.no_grad():
            return layer(values, 0.0)

    def training() -> tuple[Tensor, ...]:
        o = layer(leaves, DROPOUT)
        return o, *torch.autograd.grad(o, leaves, do)

    return forward, training


def dense(inputs: Inputs, backend: str) -> Pair:
    """SDPA over all of the past; (B, H, T, D) from the start, KV heads repeated beforehand."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    repeat = inputs.q.shape[2] // inputs.k.shape[2]
    k, v = (x.repeat_interleave(repeat, dim=2) for x in (inputs.k, inputs.v))
    values = [x.transpose(1, 2).contiguous() for x in (inputs.q, k, v)]

    def layer(leaves: list[Tensor], dropout: float) -> Tensor:
        with sdpa_kernel(getattr(SDPBackend, backend)):
            return F.scaled_dot_product_attention(*leaves, is_causal=True)

    return both(layer, values, inputs.do.transpose(1, 2).contiguous())


def flex(inputs: Inputs, rebuilt: bool) -> Pair:
    """FlexAttention under the mask of `random`."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    tokens, kv_heads = inputs.k.shape[1:3]
    spans = eviction_op.intervals(
        inputs.scores("random"), window=WINDOW, budget=BUDGET, sinks=SINKS
    )
    death = spans.death[0]
    group = inputs.q.shape[2] // kv_heads

    def seen(b: Tensor, h: Tensor, t: Tensor, j: Tensor) -> Tensor:
        return (j <= t) & (t < death[h // group, j])

    def mask() -> Any:
        heads = inputs.q.shape[2]
        return create_block_mask(
            seen, None, heads, tokens, tokens, device=death.device, _compile=True
        )

    compiled = torch.compile(flex_attention, dynamic=False)
    prebuilt = mask()

    def layer(leaves: list[Tensor], dropout: float) -> Tensor:
        return compiled(*leaves, block_mask=mask() if rebuilt else prebuilt, enable_gqa=group > 1)

    values = [x.transpose(1, 2).contiguous() for x in (inputs.q, inputs.k, inputs.v)]
    return both(layer, values, inputs.do.transpose(1, 2).contiguous())


def contenders(cell: Cell) -> dict[str, Pair]:
    """By name; a peer that cannot run is left out, and said."""
    inputs = Inputs(cell)
    found = {name: ours(inputs, name) for name in (WORKLOADS[:1] if cell.flex else WORKLOADS)}
    if harness.device() == "cpu":
        return found
    makers: dict[str, Callable[[], Pair]] = {
        "cudnn": lambda: dense(inputs, "CUDNN_ATTENTION"),
        "flash": lambda: dense(inputs, "FLASH_ATTENTION"),
    }
    if cell.flex:
        makers = {
            "flex-rebuilt": lambda: flex(inputs, rebuilt=True),
            "flex-prebuilt": lambda: flex(inputs, rebuilt=False),
        }
    made = {name: harness.attempt(f"{cell} {name}", maker) for name, maker in makers.items()}
    return found | {name: pair for name, pair in made.items() if pair is not None}


class Unit(NamedTuple):
    """Kernels that are compiled one after another."""

    heads: int
    kv_heads: int
    part: str
    workload: str = "random"


def units(cells: list[Cell]) -> list[Unit]:
    """What the cells need compiled, for all lengths."""
    found = [Unit(*heads, "scorer") for heads in {(cell.heads, cell.kv_heads) for cell in cells}]
    parts = itertools.product(("intervals", "forward", "backward"), ("random", "sparse"))
    return found + [Unit(unit.heads, unit.kv_heads, *part) for part in parts for unit in found]


def prepare(unit: Unit) -> None:
    """Compile; kernels are made for no length."""
    inputs = Inputs(Cell(2048, unit.heads, unit.kv_heads))
    z = inputs.scores(unit.workload)
    budget = None if unit.workload == "sparse" else BUDGET
    if unit.part == "scorer":
        leaves = [inputs.k, inputs.v, *inputs.weights, *inputs.biases]
        for call in both(lambda *given: score(inputs, *given)[0], leaves, inputs.uniform):
            call()
    elif unit.part == "intervals":
        eviction_op.intervals(z, window=WINDOW, budget=budget, sinks=SINKS)
    else:
        spans = Intervals(*reference.intervals(z, WINDOW, budget, SINKS, segment=SEGMENT))

        def attend(leaves: list[Tensor], dropout: float) -> Tensor:
            z = leaves[3] if dropout else None
            return attention_op.attention(*leaves[:3], window=WINDOW, intervals=spans, score=z)

        calls = both(attend, [inputs.q, inputs.k, inputs.v, z], inputs.do)
        calls[unit.part == "backward"]()


def warm(cell: Cell) -> None:
    """FlexAttention, for each length."""
    if cell.flex:
        for rebuilt in (True, False):
            for call in flex(Inputs(cell), rebuilt):
                call()


def difference(mine: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> float:
    """Largest relative difference of o and dq, which scores do not enter."""
    errors = [
        (a.float() - b.transpose(1, 2).float()).norm() / b.float().norm()
        for a, b in zip(mine[:2], theirs[:2], strict=True)
    ]
    return torch.stack(errors).max().item()


def measure(cell: Cell) -> Iterator[harness.Row]:
    calls = contenders(cell)
    if cell.flex and "flex-prebuilt" in calls:
        found = difference(calls["random"][1](), calls["flex-prebuilt"][1]())
        assert found < 1e-2, f"{cell}: results differ from Flex's by {found:.1e}"
    for index, mode in enumerate(tables.MODES):
        chosen = {name: pair[index] for name, pair in calls.items()}
        graphs = harness.all_graphed(chosen)
        yield from rows(cell, mode, "gpu", harness.interleaved(graphs, repeats(cell)))
        if cell.flex or cell.tokens <= 32768:
            yield from rows(cell, mode, "eager", harness.interleaved(chosen, repeats(cell)))


def repeats(cell: Cell) -> int:
    return 3 if cell.flex or cell.tokens > 32768 else 9


def rows(cell: Cell, mode: str, clock: str, ms: dict[str, float]) -> Iterator[harness.Row]:
    """Each workload against each peer."""
    peers = {name: value for name, value in ms.items() if name not in WORKLOADS}
    for workload in WORKLOADS:
        for peer, theirs in (peers or {None: None}).items():
            if workload in ms:
                shape = f"{cell.shape} {workload}"
                yield harness.row("lte", shape, mode, clock, ms[workload], peer, theirs)


def is_flex(cell: Cell) -> bool:
    return cell.flex


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=harness.RESULTS)
    parser.add_argument("--no-flex", action="store_true", help="Flex compiles for a minute")
    parser.add_argument("--tokens", type=int, nargs="+", help="only these lengths")
    parser.add_argument("--heads", type=int, nargs="+", help="only these numbers of heads")
    parser.add_argument("--dry", action="store_true", help="tiny sizes, on any machine")
    options = parser.parse_args()
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    cells = [
        cell
        for cell in (REHEARSAL if options.dry else CELLS)
        if not (options.no_flex and cell.flex)
        and (options.tokens is None or cell.tokens in options.tokens)
        and (options.heads is None or cell.heads in options.heads)
    ]
    suite = harness.Suite(cells, measure, warm, prepare, units(cells), apart=is_flex)
    found = harness.run(suite)
    harness.save(found, options.output)
    print("\n".join(tables.lte(found)))


if __name__ == "__main__":
    main()
