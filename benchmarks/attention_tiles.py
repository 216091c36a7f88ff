"""Search tiles of the attention kernels on the GPU at hand: check each, then time it.

Compiles and checks in parallel processes (a tile that miscompiles is told apart from a slow one),
times one after another in this process, prints the best of each case and writes every row as
JSON. `kernels/attention/tiles.json` was filled from its results.

    python benchmarks/attention_tiles.py --output tiles_found.json --dims 64 128 --windows 512
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import sys
import tempfile
import time
import warnings
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mixerlang.kernels.attention import ahead, launch
from mixerlang.kernels.attention.render import PASSES
from mixerlang.kernels.attention.variant import Tile, Variant

HEADS = 16
TOLERANCE = {"bfloat16": 1e-2, "float16": 2e-3, "float32": 1e-5}


def candidates(name: str, dim: int, dtype: str) -> list[Tile]:
    """Tiles worth compiling; float32 runs on the plain cores, where a thread holds far less."""
    if dtype == "float32":
        sides = itertools.product([16, 32, 64], [16, 32], [4, 8], [1, 2])
        return [Tile(*parts) for parts in sides if parts[0] * dim <= 1024 * parts[2]]
    sides = itertools.product([64, 128], [32, 64, 128], [4, 8], [2, 3, 4])
    return [tile for parts in sides if plausible(name, dim, tile := Tile(*parts))]


def plausible(name: str, dim: int, tile: Tile) -> bool:
    """Accumulators and scores within the registers, at most three stages in the backward."""
    if tile.warps == 8 and tile.own == 64 and dim <= 128:
        return False
    accumulators = {"forward": 1, "backward_q": 1, "backward_kv": 2}[name] * tile.own * dim
    scores = {"forward": 1.5, "backward_q": 2.5, "backward_kv": 2.5}[name] * tile.own * tile.step
    if (accumulators + scores) / (32 * tile.warps) > 230:
        return False
    return tile.stages <= (4 if name == "forward" else 3)


def inputs(tokens: int, dim: int, dtype: torch.dtype, seed: int = 0) -> list[torch.Tensor]:
    """q, k, v and do, (1, T, H, D) each."""
    torch.manual_seed(seed)
    return [torch.randn(1, tokens, HEADS, dim, device="cuda", dtype=dtype) for _ in range(4)]


def dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, variant: Variant) -> Any:
    """o and lse in float32."""
    t = torch.arange(q.shape[1], device="cuda")
    distance = t[:, None] - t
    seen = (distance >= 0) & (distance < (variant.window or q.shape[1]))
    s = torch.einsum("bthd,bjhd->bhtj", q, k) * variant.scale
    s = s.masked_fill(~seen, -torch.inf)
    return torch.einsum("bhtj,bjhd->bthd", s.softmax(-1), v), s.logsumexp(-1)


def check(job: tuple[str, Variant, Tile]) -> tuple[str | float, int]:
    """Largest relative error of what the pass writes, or why it cannot run; bytes spilled."""
    name, variant, tile = job
    try:
        compiled = ahead.build(name, variant, tile, "sm_90")
        with tempfile.TemporaryDirectory() as scratch:
            spilled = ahead.resources(compiled, Path(scratch)).spilled
        return (error(name, variant, tile), spilled) if not spilled else ("spills", spilled)
    except Exception as problem:
        return f"{type(problem).__name__}: {str(problem)[:100]}", 0


def error(name: str, variant: Variant, tile: Tile) -> float:
    """Of what one pass writes, relative to float32 by the whole score matrix."""
    tokens = (variant.window or 512) + 2 * tile.own + 37
    q, k, v, do = inputs(tokens, variant.head_dim, getattr(torch, variant.dtype))
    wide = [x.float().requires_grad_() for x in (q, k, v)]
    o, lse = dense(*wide, variant)
    dq, dk, dv = torch.autograd.grad(o, wide, do.float())
    o, lse = o.detach(), lse.detach()
    delta = (o * do).sum(-1).transpose(1, 2).contiguous()
    if name == "forward":
        pairs = zip(launch.forward(q, k, v, variant, tile=tile), (o, lse), strict=True)
    elif name == "backward_q":
        found = launch.backward_q(do, q, k, v, o.to(q.dtype), lse, None, variant, tile=tile)
        pairs = zip(found, (dq, delta), strict=True)
    else:
        found = launch.backward_kv(do, q, k, v, lse, delta, variant, tile=tile)
        pairs = zip(found, (dk, dv), strict=True)
    errors = [(a.float() - b).norm() / b.norm() for a, b in pairs]
    return torch.stack(errors).max().item()  # unlike the built-in, this one keeps a NaN


def start_worker() -> None:
    warnings.filterwarnings("ignore")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_num_threads(1)


def graph_time(call: Any, flush: torch.Tensor, repeats: int = 12) -> float:
    """Median ms of one replay of the captured call, the L2 emptied before each."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for before, after in events:
        flush.zero_()
        before.record()
        graph.replay()
        after.record()
    torch.cuda.synchronize()
    times = sorted(before.elapsed_time(after) for before, after in events)
    return times[len(times) // 2]


def timed_call(job: tuple[str, Variant, Tile], tokens: int) -> Any:
    name, variant, tile = job
    q, k, v, do = inputs(tokens, variant.head_dim, getattr(torch, variant.dtype))
    lse = torch.full((1, HEADS, tokens), 6.0, device="cuda")
    if name == "forward":
        return lambda: launch.forward(q, k, v, variant, tile=tile)
    if name == "backward_q":
        return lambda: launch.backward_q(do, q, k, v, v, lse, None, variant, tile=tile)
    return lambda: launch.backward_kv(do, q, k, v, lse, lse, variant, tile=tile)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passes", nargs="+", default=list(PASSES))
    parser.add_argument("--dims", nargs="+", type=int, default=[64, 128])
    parser.add_argument("--windows", nargs="+", type=int, default=[128, 512, 2048])
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    jobs = [
        (name, Variant(HEADS, HEADS, dim, dim, options.dtype, dim**-0.5, window), tile)
        for dim in options.dims
        for window in options.windows
        for name in options.passes
        for tile in candidates(name, dim, options.dtype)
    ]
    began = time.time()
    with multiprocessing.get_context("spawn").Pool(options.workers, start_worker) as pool:
        checked = pool.map(check, jobs, chunksize=1)
    print(f"{len(jobs)} tiles compiled and checked in {time.time() - began:.0f} s", flush=True)
    flush = torch.empty(1 << 26, device="cuda")
    rows = []
    for job, (problem, spilled) in zip(jobs, checked, strict=True):
        name, variant, tile = job
        right = isinstance(problem, float) and problem < TOLERANCE[variant.dtype]
        row = {"pass": name, "dtype": variant.dtype, "dim": variant.head_dim}
        row |= {"window": variant.window, "error": problem, "spilled": spilled}
        row |= {"tile": list(astuple(tile))}
        row |= {"ms": graph_time(timed_call(job, options.tokens), flush) if right else None}
        rows.append(row)
    print(f"timed at {time.time() - began:.0f} s", flush=True)
    options.output.write_text("\n".join(json.dumps(row) for row in rows))
    report(rows)


def report(rows: list[dict[str, Any]]) -> None:
    """The five fastest of each case, and every tile that was wrong."""
    for row in rows:
        if row["ms"] is None:
            print("left out", *row.values())

    def case(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["dim"], row["window"], row["pass"]

    for key, group in itertools.groupby(rows, case):
        timed = sorted((row for row in group if row["ms"]), key=lambda row: row["ms"])
        print(*key, " ".join(f"{'x'.join(map(str, r['tile']))}={r['ms']:.4f}" for r in timed[:6]))


if __name__ == "__main__":
    main()
