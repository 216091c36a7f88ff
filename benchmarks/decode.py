"""One step of decoding: a cache of fixed size (LTE) at any context, beside SDPA over a full cache.

Ours is what a layer does between its projections: tokens that leave the window into slots, new rows
into the rings, attention over window and slots, and, once in a while, the scorer over the rows that
came (its share is in the time: every step of 64 is counted). The peer only attends: nobody writes
its new keys. Replays of a CUDA graph; caches take turns until they exceed the L2.

    python benchmarks/decode.py --output benchmarks/results
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import harness
import tables
import torch
import torch.nn.functional as F
from torch import Tensor

from mixerlang.kernels.decode import op
from mixerlang.kernels.scorer.network import Network
from mixerlang.kernels.scorer.packing import pack
from mixerlang.nn.keeps import Cnn
from mixerlang.nn.scorer import CnnScorer

HEADS, DIM = 16, 64
CNN = Cnn()
LAYOUT = op.Layout(window=768, budget=512, sinks=4, kind="learned", lookahead=CNN.lookahead)
SMALL = op.Layout(window=64, budget=16, sinks=4, kind="learned", lookahead=CNN.lookahead)
BYTES = 64 << 20
"""Caches that take turns hold at least so much: more than an L2 of 50 MB."""
LAYERS = 24
"""Steps in a graph, as a model of so many layers has them, if there is room for their caches."""
ROOM = 16 << 30
STEPS = 64
Call = Callable[[], Any]


class Cell(NamedTuple):
    batch: int
    context: int
    layout: op.Layout = LAYOUT

    def __str__(self) -> str:
        rule = f"W{self.layout.window} b{self.layout.budget}"
        return f"B{self.batch} H{HEADS}/{HEADS} C{self.context} D{DIM} {rule}"


CELLS = [
    Cell(batch, context)
    for batch, context in itertools.product(
        (1, 8, 32, 64), (2048, 8192, 32768, 131072, 1 << 20)
    )
]
REHEARSAL = [Cell(1, 200, SMALL), Cell(2, 1000, SMALL)]
DENSE_BATCHES, DENSE_CONTEXT = (1, 8, 32), 131072


def copies(size: int) -> int:
    """How many caches of so many bytes take turns in a graph."""
    if harness.device() == "cpu":
        return 2
    return max(1 + BYTES // size, min(LAYERS, ROOM // size))


class Ours:
    """States filled as they stand after `context` tokens, and the inputs of a step."""

    def __init__(self, cell: Cell) -> None:
        torch.manual_seed(cell.batch + cell.context)
        self.cell = cell
        device = harness.device()
        self.scorer = _scorer(device)
        first = self._state(device)
        self.bytes = sum(x.numel() * x.element_size() for x in first.values())
        self.states = [
            first,
            *(
                {name: x.clone() for name, x in first.items()}
                for _ in range(copies(self.bytes) - 1)
            ),
        ]
        shape = (cell.batch, 1, HEADS, DIM)
        self.new = [torch.randn(shape, device=device).bfloat16() for _ in range(4)]
        self.seen = torch.full((cell.batch,), cell.context, dtype=torch.int64, device=device)

    def _state(self, device: str) -> op.State:
        """Full slots of kept tokens from all over the context, and a full window."""
        cell, layout = self.cell, self.cell.layout
        assert layout.window is not None
        left = cell.context - layout.window
        kept = torch.randperm(left - layout.sinks)[: layout.budget - layout.sinks].sort().values
        positions = torch.cat([
            torch.arange(layout.sinks),
            kept + layout.sinks,
            torch.arange(left, cell.context),
        ]).to(device)
        rows = (cell.batch, len(positions), HEADS)
        k, v, raw_k = (torch.randn(*rows, DIM, device=device).bfloat16() for _ in range(3))
        state = op.new_state(layout, cell.batch, HEADS, DIM, DIM, None, k.dtype, device)
        op.fill(
            layout, state, k, v,
            next=torch.full((cell.batch,), cell.context, dtype=torch.int64, device=device),
            raw_k=raw_k,
            z=torch.rand(cell.batch, HEADS, rows[1], device=device),
            death=torch.full((cell.batch, HEADS, rows[1]), 2**31 - 1, device=device).int(),
            positions=positions.expand(cell.batch, -1),
        )
        return state

    def __call__(self) -> list[Tensor]:
        """A step of every copy; then all are one token further."""
        q, k, v, raw_k = self.new
        rule = {"raw_k": raw_k, "seen": self.seen, "scorer": self.scorer}
        outs = [op.step(self.cell.layout, state, q, k, v, **rule) for state in self.states]
        self.seen += 1
        return outs


def _scorer(device: str) -> op.Scorer:
    cnn = CnnScorer(HEADS, 2 * DIM, DIM, CNN).to(device)
    layers = [*cnn.convs, cnn.proj]
    channels = tuple(conv.out_channels // HEADS for conv in layers[:-1])
    network = Network(HEADS, DIM, DIM, channels, CNN.kernels, CNN.dilations)
    weights, biases = ([getattr(x, name).detach() for x in layers] for name in ("weight", "bias"))
    return op.Scorer(pack(weights, biases, network, torch.bfloat16), network)


class Dense:
    """SDPA by cuDNN: one query over a full cache."""

    def __init__(self, cell: Cell) -> None:
        shape = (cell.batch, HEADS, cell.context, DIM)
        device = harness.device()
        self.bytes = 4 * cell.batch * HEADS * cell.context * DIM
        self.caches = [
            [torch.randn(shape, device=device, dtype=torch.bfloat16) for _ in range(2)]
            for _ in range(copies(self.bytes))
        ]
        self.q = torch.randn(cell.batch, HEADS, 1, DIM, device=device).bfloat16()

    def __call__(self) -> list[Tensor]:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return [F.scaled_dot_product_attention(self.q, k, v) for k, v in self.caches]


def step_ms(call: Call, copies: int, steps: int) -> float:
    """Of one step of one copy: the mean over `steps` replays, the least of three rounds."""
    replay = harness.graphed(call)
    for _ in range(3):
        replay()
    rounds = []
    for _ in range(3):
        ms = harness.interleaved({"": lambda: [replay() for _ in range(steps)]}, 1)[""]
        rounds.append(ms / steps / copies)
    return min(rounds)


def measure(cell: Cell) -> Iterator[harness.Row]:
    ours = Ours(cell)
    expected = cell.layout.nbytes(cell.batch, HEADS, DIM, DIM, None, 2)
    assert ours.bytes == expected, f"{ours.bytes} bytes of cache, not {expected}"
    mine, mib = step_ms(ours, len(ours.states), STEPS), ours.bytes / 2**20
    del ours
    theirs, their_mib = None, 4 * cell.batch * HEADS * cell.context * DIM / 2**20
    if cell.batch in DENSE_BATCHES and cell.context <= DENSE_CONTEXT and harness.device() != "cpu":
        dense = harness.attempt(f"{cell} cudnn", lambda: Dense(cell))
        theirs = harness.attempt(
            f"{cell} cudnn", lambda: step_ms(dense, len(dense.caches), 4 if cell.batch > 8 else 16)
        )
    memory = {"ours_mib": round(mib, 3), "peer_mib": round(their_mib, 3)}
    yield harness.row("decode", str(cell), "fwd", "gpu", mine, "cudnn", theirs, **memory)


def prepare(cell: Cell) -> None:
    Ours(cell)()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=harness.RESULTS)
    parser.add_argument("--dry", action="store_true", help="tiny sizes, on any machine")
    options = parser.parse_args()
    cells = REHEARSAL if options.dry else CELLS
    units = [cell for cell in cells if cell.context == cells[0].context]
    rows = harness.run(harness.Suite(cells, measure, prepare=prepare, units=units))
    harness.save(rows, options.output)
    print("\n".join(tables.decode(rows)))


if __name__ == "__main__":
    main()
