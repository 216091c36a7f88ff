"""Window attention beside its peers: ours, compiled FlexAttention, torch's FlashAttention-2.

Every cell (batch, length, head dim, window) is measured in one process, the three called in turn
on random bfloat16 inputs, each in the layout it likes best, and the results compared. Flex gets
its block mask for nothing: it is built beforehand.

    python benchmarks/attention_window.py --output benchmarks/results
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
from torch import Tensor

from mixerlang.kernels.attention import op

HEADS = 16
BLOCK = 128
REPEATS = 11
Call = Callable[[], tuple[Tensor, ...]]


class Cell(NamedTuple):
    batch: int
    tokens: int
    dim: int
    window: int

    def __str__(self) -> str:
        return f"B{self.batch} H{HEADS} T{self.tokens} D{self.dim} W{self.window}"


CELLS = [
    Cell(batch, tokens, dim, window)
    for (batch, tokens), dim, window in itertools.product(
        [(1, 2048), (8, 2048), (1, 8192), (1, 32768), (1, 131072)], [64, 128], [128, 512, 2048]
    )
]
REHEARSAL = [Cell(1, 256, 16, 100)]


def window_blocks(tokens: int, window: int) -> Any:
    """FlexAttention's block mask, as create_block_mask makes it, without a T x T tensor."""
    from torch.nn.attention.flex_attention import BlockMask

    def mask(b: Tensor, h: Tensor, t: Tensor, j: Tensor) -> Tensor:
        return (j <= t) & (t - j < window)

    count = tokens // BLOCK
    t0 = torch.arange(count, device=harness.device())[:, None] * BLOCK
    j0 = t0.T
    some = (j0 <= t0 + BLOCK - 1) & (t0 - (j0 + BLOCK - 1) < window)
    whole = (j0 + BLOCK - 1 <= t0) & (t0 + BLOCK - 1 - j0 < window)
    lists = [x for blocks in (some & ~whole, whole) for x in _ordered(blocks)]
    return BlockMask.from_kv_blocks(*lists, BLOCK_SIZE=BLOCK, mask_mod=mask)


def _ordered(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Per row of blocks: how many are set, and their columns first."""
    columns = blocks.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    return blocks.sum(1).to(torch.int32)[None, None], columns.to(torch.int32)[None, None]


def contenders(cell: Cell) -> dict[str, tuple[Call, Call]]:
    """Forward, and forward with backward, of each implementation on the same numbers."""
    from torch.nn.attention.flex_attention import flex_attention

    torch.manual_seed(0)
    shape = (cell.batch, cell.tokens, HEADS, cell.dim)
    q, k, v, do = (torch.randn(shape, device=harness.device()).bfloat16() for _ in range(4))
    heads_first = [x.transpose(1, 2).contiguous() for x in (q, k, v, do)]

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return op.attention(q, k, v, window=cell.window)

    found = {"ours": both(ours, q, k, v, do)}
    if harness.device() == "cpu":
        return found
    blocks = window_blocks(cell.tokens, cell.window)
    compiled = torch.compile(flex_attention, dynamic=False)

    def flex(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return compiled(q, k, v, block_mask=blocks)

    def flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        sides = {"window_size_left": cell.window - 1, "window_size_right": 0}
        lengths = (None, None, cell.tokens, cell.tokens)
        return torch.ops.aten._flash_attention_forward(
            q, k, v, *lengths, 0.0, True, False, **sides
        )[0]

    return found | {"flex": both(flex, *heads_first), "flash2": both(flash, q, k, v, do)}


def both(function: Any, q: Tensor, k: Tensor, v: Tensor, do: Tensor) -> tuple[Call, Call]:
    """Forward without gradients, and forward with backward."""
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v)]

    def forward() -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (function(q, k, v),)

    def training() -> tuple[Tensor, ...]:
        o = function(*leaves)
        return o, *torch.autograd.grad(o, leaves, do)

    return forward, training


def differences(calls: dict[str, tuple[Call, Call]]) -> float:
    """Largest relative difference of ours to a peer, over o, dq, dk and dv."""
    results = {name: call[1]() for name, call in calls.items()}
    errors = [torch.zeros((), device=harness.device())]
    for name in calls.keys() - {"ours"}:
        for mine, theirs in zip(results["ours"], results[name], strict=True):
            theirs = theirs.transpose(1, 2) if name == "flex" else theirs
            errors.append((mine.float() - theirs.float()).norm() / theirs.float().norm())
    return torch.stack(errors).max().item()


def warm(cell: Cell) -> None:
    differences(contenders(cell))


def measure(cell: Cell) -> Iterator[harness.Row]:
    """One row per mode, clock and peer."""
    calls = contenders(cell)
    difference = differences(calls)
    assert difference < 1e-2, f"{cell}: results differ by {difference:.1e}"
    for index, mode in enumerate(tables.MODES):
        chosen = {name: call[index] for name, call in calls.items()}
        graphs = {name: harness.graphed(call) for name, call in chosen.items()}
        for clock, timed in (("gpu", graphs), ("eager", chosen)):
            ms = harness.interleaved(timed, REPEATS)
            ours = ms.pop("ours")
            for peer, theirs in ms.items():
                yield harness.row("window", str(cell), mode, clock, ours, peer, theirs)


def long(cell: Cell) -> bool:
    return cell.tokens > 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=harness.RESULTS)
    parser.add_argument("--workers", type=int, default=15)
    parser.add_argument("--dry", action="store_true", help="tiny sizes, on any machine")
    options = parser.parse_args()
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    cells = REHEARSAL if options.dry else CELLS
    rows = harness.run(harness.Suite(cells, measure, warm, large=long), options.workers)
    harness.save(rows, options.output)
    print("\n".join(tables.window(rows)) if rows else "no peer to compare with")
    print(f"{len(rows)} rows of {len(CELLS) * 8}")


if __name__ == "__main__":
    main()
