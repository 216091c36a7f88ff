"""Window attention beside its peers: ours, compiled FlexAttention, torch's FlashAttention-2.

Every cell (batch, length, head dim, window) is measured in one process, the three called in turn
on random bfloat16 inputs, each in the layout it likes best, with the L2 cache emptied before each
call and the results compared. Two clocks: `gpu` times replays of a CUDA graph, `eager` the call
as a user makes it, with the host's share. Flex gets its block mask for nothing: it is built
beforehand. Cells compile in parallel processes, then take turns on the GPU.

    python benchmarks/attention_window.py --output benchmarks/results
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import json
import math
import multiprocessing
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mixerlang.kernels.attention import op

HEADS = 16
BLOCK = 128
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


def window_blocks(tokens: int, window: int) -> Any:
    """FlexAttention's block mask, as create_block_mask makes it, without a T x T tensor."""
    from torch.nn.attention.flex_attention import BlockMask

    def mask(b: Tensor, h: Tensor, t: Tensor, j: Tensor) -> Tensor:
        return (j <= t) & (t - j < window)

    count = tokens // BLOCK
    t0 = torch.arange(count, device="cuda")[:, None] * BLOCK
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
    q, k, v, do = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(4))
    heads_first = [x.transpose(1, 2).contiguous() for x in (q, k, v, do)]
    blocks = window_blocks(cell.tokens, cell.window)
    compiled = torch.compile(flex_attention, dynamic=False)

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return op.attention(q, k, v, window=cell.window)

    def flex(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return compiled(q, k, v, block_mask=blocks)

    def flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        sides = {"window_size_left": cell.window - 1, "window_size_right": 0}
        lengths = (None, None, cell.tokens, cell.tokens)
        return torch.ops.aten._flash_attention_forward(
            q, k, v, *lengths, 0.0, True, False, **sides
        )[0]

    return {
        "ours": both(ours, q, k, v, do),
        "flex": both(flex, *heads_first),
        "flash2": both(flash, q, k, v, do),
    }


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


def differences(calls: dict[str, tuple[Call, Call]], cell: Cell) -> float:
    """Largest relative difference of ours to a peer, over o, dq, dk and dv."""
    results = {name: call[1]() for name, call in calls.items()}
    errors = []
    for name in ("flex", "flash2"):
        for mine, theirs in zip(results["ours"], results[name], strict=True):
            theirs = theirs.transpose(1, 2) if name == "flex" else theirs
            errors.append((mine.float() - theirs.float()).norm() / theirs.float().norm())
    return torch.stack(errors).max().item()


def graphed(call: Call) -> Callable[[], None]:
    """The call as one CUDA graph, warmed up on a side stream as capture wants it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def interleaved(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median ms of each, called in turn, the L2 emptied before every call."""
    flush = torch.empty(1 << 26, device="cuda")
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        events = {}
        for name, call in calls.items():
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            flush.zero_()
            before.record()
            call()
            after.record()
            events[name] = before, after
        torch.cuda.synchronize()
        for name, (before, after) in events.items():
            times[name].append(before.elapsed_time(after))
    return {name: sorted(values)[repeats // 2] for name, values in times.items()}


def measure(cell: Cell, repeats: int) -> Iterator[dict[str, Any]]:
    """One row per mode, clock and peer."""
    calls = contenders(cell)
    difference = differences(calls, cell)
    assert difference < 1e-2, f"{cell}: results differ by {difference:.1e}"
    for index, mode in enumerate(("fwd", "fwd+bwd")):
        chosen = {name: call[index] for name, call in calls.items()}
        graphs = {name: graphed(call) for name, call in chosen.items()}
        for clock, timed in (("gpu", graphs), ("eager", chosen)):
            ms = interleaved(timed, repeats)
            for peer in ("flex", "flash2"):
                yield row(cell, mode, clock, ms["ours"], peer, ms[peer])


def row(cell: Cell, mode: str, clock: str, ours: float, peer: str, theirs: float) -> dict[str, Any]:
    import triton

    return {
        "op": "window",
        "shape": str(cell),
        "mode": mode,
        "clock": clock,
        "ours_ms": round(ours, 5),
        "peer": peer,
        "peer_ms": round(theirs, 5),
        "gpu": torch.cuda.get_device_name(),
        "versions": {"torch": torch.__version__, "triton": triton.__version__},
        "date": datetime.date.today().isoformat(),
    }


def work(
    cells: list[Cell], barrier: Any, large: Any, turn: Any, results: Any, repeats: int
) -> None:
    """Compile some cells beside others, then measure them alone."""
    warnings.filterwarnings("ignore")
    try:
        for cell in cells:
            # All of the long ones at once would not fit the GPU.
            with large if cell.tokens > 100_000 else contextlib.nullcontext():
                differences(contenders(cell), cell)
                torch.cuda.empty_cache()
    except Exception:
        traceback.print_exc()
    barrier.wait()
    for cell in cells:
        with turn:
            try:
                results.put(list(measure(cell, repeats)))
            except Exception:
                traceback.print_exc()
                results.put([])
            torch.cuda.synchronize()
            torch.cuda.empty_cache()


def speedup(rows: list[dict[str, Any]]) -> float:
    """Ours against the better peer: rows of one cell, mode and clock."""
    return min(row["peer_ms"] for row in rows) / rows[0]["ours_ms"]


def grouped(rows: list[dict[str, Any]], *keys: str) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for item in rows:
        groups.setdefault(tuple(item[key] for key in keys), []).append(item)
    return groups


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as markdown: geometric means, then every cell."""
    first = rows[0]
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    lines = [
        "# Window attention",
        "",
        f"{first['gpu']}, {versions}, {first['date']}; bfloat16, {HEADS} heads; written by",
        "`benchmarks/attention_window.py`, which says how it measures. ms; `best` is the faster",
        "peer's time over ours. flex: compiled FlexAttention, its block mask prebuilt; flash2:",
        "torch's FlashAttention-2 with window arguments.",
        "",
        "| mode | clock | windows | geometric mean of best | least | cells below 1 |",
        "|---|---|---|---|---|---|",
    ]
    cells = grouped(rows, "mode", "clock", "shape")
    for mode, clock in itertools.product(("fwd", "fwd+bwd"), ("gpu", "eager")):
        for label, widest in (("all", 2048), ("to 512", 512)):
            found = [
                speedup(group)
                for (mode_, clock_, shape), group in cells.items()
                if (mode_, clock_) == (mode, clock) and int(shape.rsplit("W", 1)[1]) <= widest
            ]
            mean = math.exp(sum(map(math.log, found)) / len(found))
            below = sum(value < 1 for value in found)
            lines.append(
                f"| {mode} | {clock} | {label} | {mean:.2f} | {min(found):.2f} "
                f"| {below} of {len(found)} |"
            )
    for mode, clock in itertools.product(("fwd", "fwd+bwd"), ("gpu", "eager")):
        lines += ["", f"## {mode}, {clock} time", "", "| shape | ours | flex | flash2 | best |"]
        lines.append("|---|---|---|---|---|")
        for (mode_, clock_, shape), group in cells.items():
            if (mode_, clock_) == (mode, clock):
                peers = {item["peer"]: item["peer_ms"] for item in group}
                lines.append(
                    f"| {shape} | {group[0]['ours_ms']:.4f} | {peers['flex']:.4f} "
                    f"| {peers['flash2']:.4f} | {speedup(group):.2f} |"
                )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--workers", type=int, default=15)
    options = parser.parse_args()
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    barrier, large = context.Barrier(options.workers), context.Semaphore(2)
    turn, results = context.Lock(), context.Queue()
    shares = [CELLS[index :: options.workers] for index in range(options.workers)]
    workers = [
        context.Process(target=work, args=(share, barrier, large, turn, results, options.repeats))
        for share in shares
    ]
    for worker in workers:
        worker.start()
    rows = [item for _ in CELLS for item in results.get()]
    for worker in workers:
        worker.join()
    order = [str(cell) for cell in CELLS]
    rows.sort(key=lambda item: order.index(item["shape"]))
    options.output.mkdir(parents=True, exist_ok=True)
    text = ",\n".join(json.dumps(item) for item in rows)
    (options.output / "attention.json").write_text(f"[\n{text}\n]\n")
    (options.output / "attention.md").write_text(table(rows))
    print(table(rows))
    print(f"{len(rows)} rows of {len(CELLS) * 8}")


if __name__ == "__main__":
    main()
