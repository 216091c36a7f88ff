"""Search tiles of the attention kernels on the GPU at hand, for the table that ships.

Builds candidates in parallel processes, leaves out what spills or does not agree with the tile that
ships (kernels/attention/search.py), times the rest one after another, prints the best of each case
and writes every row as JSON. `kernels/attention/tiles.json` was filled from its results; for the
sizes of one spec there is `mixerlang compile --autotune`.

    python benchmarks/attention_tiles.py --output tiles_found.json --dims 64 128 --windows 512
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mixerlang.kernels.attention import render, search
from mixerlang.kernels.attention.launch import architecture
from mixerlang.kernels.attention.variant import Variant

HEADS = 16
SHOWN = 6


def variants(dims: list[int], windows: list[int], budgets: list[int]) -> list[Variant]:
    """Plain windows, or with budgets interval lists; a budget of 0 keeps without a bound."""
    kinds: list[dict[str, Any]] = [
        {"intervals": True, "budget": budget or None, "score_grad": True} for budget in budgets
    ] or [{}]
    return [
        Variant(HEADS, HEADS, dim, dim, dim**-0.5, window=window, **kind)
        for dim, window, kind in itertools.product(dims, windows, kinds)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passes", nargs="+", help="default: all that a case has")
    parser.add_argument("--dims", nargs="+", type=int, default=[64, 128])
    parser.add_argument("--windows", nargs="+", type=int, default=[128, 512, 2048])
    parser.add_argument("--budgets", nargs="+", type=int, default=[])
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    began, rows = time.time(), []
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        for variant in variants(options.dims, options.windows, options.budgets):
            call = search.example(variant, getattr(torch, options.dtype), options.tokens)
            for name in options.passes or set(search.SEARCHED) & {*render.passes(variant)}:
                found = search.search(name, call, architecture(call.q), pool)
                rows += [row(name, variant, options.dtype, each) for each in found]
                print(variant.stem(name), " ".join(map(shown, found[:SHOWN])), flush=True)
    print(f"{len(rows)} tiles in {time.time() - began:.0f} s")
    options.output.write_text("\n".join(map(json.dumps, rows)))


def row(name: str, variant: Variant, dtype: str, found: search.Found) -> dict[str, Any]:
    return {
        "pass": name,
        "dtype": dtype,
        "dim": variant.head_dim,
        "window": variant.window,
        "intervals": variant.intervals,
        "budget": variant.budget,
        "tile": list(astuple(found.tile)),
        "ms": found.ms,
    }


def shown(found: search.Found) -> str:
    """`64x64x4x3x128=0.2241`."""
    parts = [part for part in astuple(found.tile) if part is not None]
    return f"{'x'.join(map(str, parts))}={found.ms:.4f}"


if __name__ == "__main__":
    main()
