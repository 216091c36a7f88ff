"""Recurrences beside fla-core's Triton kernels: the same numbers, one process, called in turn.

fla-core picks other backends by itself where they are installed; FLA_DISABLE_BACKEND_DISPATCH keeps
it to Triton. It refuses gated backward passes on Hopper with this Triton (its issue 640: wrong
results were seen there); its guard is bypassed, and rows say so. Its autotuning takes minutes with
a cold cache.

    python benchmarks/recurrence.py --output benchmarks/results --only gated_deltanet --heads 16
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import harness
import torch
from torch import Tensor

from mixerlang.kernels.recurrence import op

REPEATS = 9
TOLERANCE = 2e-2  # of two results in bfloat16
GATED = ("gated_deltanet", "mamba2")
"""Whose backward pass fla-core refuses without TileLang."""
PEER = "fla-triton"
Call = Callable[[], tuple[Tensor, ...]]


class Cell(NamedTuple):
    op: str
    batch: int
    tokens: int
    heads: int
    dim: int

    def __str__(self) -> str:
        return f"{self.op} B{self.batch} T{self.tokens} H{self.heads} D{self.dim}"


SHAPES = [
    (1, 8192, 96, 128),
    (2, 16384, 16, 128),
    (4, 2048, 16, 128),
    (4, 4096, 64, 128),
    (8, 2048, 32, 256),
    (8, 1024, 8, 64),
    (1, 65536, 8, 128),
    (1, 131072, 8, 256),
]
OTHERS = ("deltanet", "gla", "retnet", "mamba2", "kda", "linear")
CELLS = [Cell("gated_deltanet", *shape) for shape in SHAPES] + [
    Cell(name, batch, tokens, 16, 128)
    for name in OTHERS
    for batch, tokens in ((8, 2048), (1, 32768))
]
REHEARSAL = [Cell(name, 1, 70, 2, 16) for name in ("gated_deltanet", *OTHERS)]


class Problem(NamedTuple):
    """q and k of unit length, as where l2norm comes before; decays as a layer at its start has."""

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor | None
    b: Tensor | None


def problem(cell: Cell) -> Problem:
    torch.manual_seed(0)
    by_head = (cell.batch, cell.tokens, cell.heads)
    where = harness.device()

    def randn() -> Tensor:
        return torch.randn(*by_head, cell.dim, device=where)

    q, k = (torch.nn.functional.normalize(randn(), dim=-1).bfloat16() for _ in range(2))
    shape = (*by_head, cell.dim) if cell.op in ("gla", "kda") else by_head
    g = torch.nn.functional.logsigmoid(torch.randn(shape, device=where)) / 16
    if cell.op == "retnet":  # one constant per head
        head = torch.arange(cell.heads, device=where)
        g = torch.log1p(-torch.exp2(-5.0 - head)).expand(by_head)
    b = torch.rand(by_head, device=where)
    decays = cell.op not in ("linear", "deltanet")
    steps = cell.op in ("gated_deltanet", "deltanet", "kda")
    return Problem(q, k, randn().bfloat16(), g if decays else None, b if steps else None)


def ours(cell: Cell, x: Problem) -> Tensor:
    delta = x.b is not None
    return op.recurrence(*x, delta=delta, scale=cell.dim**-0.5)[0]


def theirs(cell: Cell, x: Problem) -> Tensor:
    """By fla-core."""
    import fla.ops as fla  # type: ignore[import-not-found,import-untyped,unused-ignore]
    from fla.ops.common import chunk_o  # type: ignore[import-not-found,import-untyped,unused-ignore]

    chunk_o.IS_NVIDIA_HOPPER = False  # its guard
    qkv = (x.q, x.k, x.v)
    call: dict[str, Callable[[], Any]] = {
        "gated_deltanet": lambda: fla.chunk_gated_delta_rule(*qkv, x.g, x.b),
        "deltanet": lambda: fla.chunk_delta_rule(*qkv, x.b),
        "gla": lambda: fla.chunk_gla(*qkv, x.g),
        "retnet": lambda: fla.chunk_retention(*qkv),
        "mamba2": lambda: fla.chunk_simple_gla(*qkv, x.g),
        "kda": lambda: fla.chunk_kda(*qkv, x.g, x.b),
        "linear": lambda: fla.chunk_linear_attn(*qkv, normalize=False),
    }
    found: Tensor = call[cell.op]()[0]
    return found


def both(function: Any, cell: Cell) -> tuple[Call, Call]:
    """Forward without gradients, and forward with backward."""
    x = problem(cell)
    fixed = cell.op == "retnet"
    leaves = Problem(
        *(None if y is None else y.detach().requires_grad_(not fixed or i != 3)
          for i, y in enumerate(x))
    )  # fmt: skip
    wanted = [y for y in leaves if y is not None and y.requires_grad]
    do = torch.randn_like(x.v)

    def forward() -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (function(cell, x),)

    def training() -> tuple[Tensor, ...]:
        o = function(cell, leaves)
        return o, *torch.autograd.grad(o, wanted, do)

    return forward, training


def contenders(cell: Cell) -> dict[str, tuple[Call, Call]]:
    found = {"ours": both(ours, cell)}
    if harness.device() == "cuda":
        found[PEER] = both(theirs, cell)
    return found


def differences(calls: dict[str, tuple[Call, Call]]) -> float:
    """Largest relative difference of ours to the peer, over o and all gradients."""
    if PEER not in calls:
        return 0.0
    mine, other = (calls[name][1]() for name in ("ours", PEER))
    pairs = zip(mine, other, strict=True)
    errors = [(a.float() - b.float()).norm() / b.float().norm() for a, b in pairs]
    return torch.stack(errors).max().item()


def measure(cell: Cell) -> Iterator[harness.Row]:
    """One row per mode and clock."""
    calls = contenders(cell)
    difference = differences(calls)
    note = {"note": "guard of issue 640 bypassed"} if cell.op in GATED else {}
    for index, mode in enumerate(("fwd", "fwd+bwd")):
        chosen = {name: call[index] for name, call in calls.items()}
        for clock, timed in (("gpu", harness.all_graphed(chosen)), ("eager", chosen)):
            ms = harness.interleaved(timed, REPEATS)
            mine, other = ms.get("ours"), ms.get(PEER)
            more = {"differ": round(difference, 5), **(note if mode == "fwd+bwd" else {})}
            yield harness.row(
                cell.op, str(cell), mode, clock, mine, PEER if other else None, other, **more
            )


def page(rows: list[harness.Row]) -> str:
    """Markdown: GPU time, and the call as a user makes it."""
    lines = [
        "# Recurrences", "",
        "bfloat16, ms; by `benchmarks/recurrence.py`. GPU: replays of a CUDA graph; eager: the "
        "call with the host's share. `differ`: largest relative difference of results.", "",
        "| shape | mode | clock | ours | fla-triton | ratio | differ |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in rows:
        mine, other = row["ours_ms"], row["peer_ms"]
        ratio = f"{other / mine:.2f}" if mine and other else "-"
        cells = (row["shape"], row["mode"], row["clock"], mine, other or "-", ratio, row["differ"])
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def save(rows: list[harness.Row], folder: Path) -> None:
    """Put the rows in place of those of the same shapes."""
    path = folder / "recurrence.json"
    old = json.loads(path.read_text()) if path.exists() else []
    shapes = {row["shape"] for row in rows}
    merged = [row for row in old if row["shape"] not in shapes] + rows
    folder.mkdir(parents=True, exist_ok=True)
    text = ",\n".join(json.dumps(row) for row in merged)
    path.write_text(f"[\n{text}\n]\n")
    (folder / "recurrence.md").write_text(page(merged))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=harness.RESULTS)
    parser.add_argument("--only", action="append", help="an op; repeatable")
    parser.add_argument("--heads", type=int, help="shapes of so many heads alone")
    parser.add_argument("--warm", action="store_true", help="fill the kernel caches, save nothing")
    parser.add_argument("--dry", action="store_true", help="tiny sizes, on any machine")
    options = parser.parse_args()
    os.environ["FLA_DISABLE_BACKEND_DISPATCH"] = "1"
    cells = [
        cell
        for cell in (REHEARSAL if options.dry else CELLS)
        if (not options.only or cell.op in options.only)
        and (not options.heads or cell.heads == options.heads)
    ]
    if options.warm:
        for cell in dict.fromkeys(cell._replace(batch=1, tokens=4096) for cell in cells):
            error = harness.attempt(str(cell), lambda cell=cell: differences(contenders(cell)))
            print(cell, "differ", error, flush=True)
        return
    rows = [row for cell in cells for row in measure(cell)]
    print(page(rows))
    if not options.dry:
        save(rows, options.output)


if __name__ == "__main__":
    main()
