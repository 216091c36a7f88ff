"""attention.md from the rows of attention.json: a section for each op."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

Row = dict[str, Any]

MODES = ("fwd", "fwd+bwd")


def page(rows: list[Row]) -> str:
    """The whole page; ops without a section of their own are left out."""
    lines = [
        "# Attention kernels beside their peers",
        "",
        *prose(
            "Written from `attention.json` by the scripts in `benchmarks/`, which say how they"
            " measure. ms, bfloat16. `gpu`: replays of a CUDA graph, the L2 emptied before each;"
            " `eager`: the call as a user makes it, on a host that is slow."
        ),
    ]
    for (op,), group in grouped(rows, "op").items():
        if op in SECTIONS:
            lines += ["", *SECTIONS[op](group)]
    return "\n".join(lines) + "\n"


def grouped(rows: Iterable[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for item in rows:
        groups.setdefault(tuple(item[key] for key in keys), []).append(item)
    return groups


def prose(text: str) -> list[str]:
    return textwrap.wrap(text, 100, break_long_words=False, break_on_hyphens=False)


def heading(title: str, rows: list[Row], script: str, text: str) -> list[str]:
    """A section's title, where its numbers are from, and what its words mean."""
    first = rows[0]
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    source = f"{first['gpu']}, {versions}, {first['date']}, `benchmarks/{script}`."
    return [f"## {title}", "", *prose(f"{source} {text}")]


def ms(value: float | None) -> str:
    """Four digits that count."""
    if value is None:
        return "-"
    return f"{value:.{max(0, min(4, 3 - math.floor(math.log10(max(value, 1e-4)))))}f}"


def ratio(theirs: float | None, ours: float | None) -> str:
    return "-" if theirs is None or ours is None else f"{theirs / ours:.2f}"


def header(*names: str) -> list[str]:
    return [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]


def line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def peers(rows: list[Row]) -> dict[str, float | None]:
    return {item["peer"]: item["peer_ms"] for item in rows}


# ----------------------------------------------------------------------------------------- window


WINDOW = """16 heads. flex: compiled FlexAttention, its block mask prebuilt; flash2: torch's
FlashAttention-2 with window arguments; `best`: the faster peer's time over ours."""


def speedup(rows: list[Row]) -> float:
    """Ours against the better peer: rows of one cell, mode and clock."""
    best: float = min(row["peer_ms"] for row in rows) / rows[0]["ours_ms"]
    return best


def window(rows: list[Row]) -> list[str]:
    """Geometric means, then every cell."""
    cells = grouped(rows, "mode", "clock", "shape")
    lines = [
        *heading("Window", rows, "attention_window.py", WINDOW),
        "",
        *header("mode", "clock", "windows", "geometric mean of best", "least", "cells below 1"),
    ]
    for mode, clock in itertools.product(MODES, ("gpu", "eager")):
        for label, widest in (("all", 2048), ("to 512", 512)):
            found = [
                speedup(group)
                for (mode_, clock_, shape), group in cells.items()
                if (mode_, clock_) == (mode, clock) and int(shape.rsplit("W", 1)[1]) <= widest
            ]
            if found:
                lines.append(_means(mode, clock, label, found))
    for mode, clock in itertools.product(MODES, ("gpu", "eager")):
        lines += ["", f"### Window, {mode}, {clock} time", ""]
        lines += header("shape", "ours", "flex", "flash2", "best")
        lines += [
            line(shape, ms(group[0]["ours_ms"]), *map(ms, peers(group).values()),
                 f"{speedup(group):.2f}")
            for (mode_, clock_, shape), group in cells.items()
            if (mode_, clock_) == (mode, clock)
        ]
    return lines


def _means(mode: str, clock: str, label: str, found: list[float]) -> str:
    mean = math.exp(sum(map(math.log, found)) / len(found))
    below = f"{sum(value < 1 for value in found)} of {len(found)}"
    return line(mode, clock, label, f"{mean:.2f}", f"{min(found):.2f}", below)


# -------------------------------------------------------------------------------------------- lte

LTE = """Scorer, intervals and attention together, with the scorer's dropout in fwd+bwd. random,
rising: under the budget, every token a candidate, in the second each replacing one; sparse: no
budget, 12.5 % kept. cudnn, flash: SDPA over all of the past; flex: FlexAttention under the mask of
`random`, without a scorer, its block mask rebuilt each call or prebuilt. capped, uncapped: the
faster dense peer's time over the slower of random and rising, and over sparse, whose work grows
with the square of the length as dense attention's does."""

WORKLOADS = ("random", "rising", "sparse")
LTE_PEERS = ("cudnn", "flash", "flex-rebuilt", "flex-prebuilt")


def lte(rows: list[Row]) -> list[str]:
    """A table for each mode, clock and number of heads, by length."""
    lines = heading("Learned eviction", rows, "attention_lte.py", LTE) if rows else []
    for (mode, clock), group in grouped(rows, "mode", "clock").items():
        lines += ["", f"### Learned eviction, {mode}, {clock} time", ""]
        lines += header("shape", *WORKLOADS, *LTE_PEERS, "capped", "uncapped")
        cells: dict[str, list[Row]] = {}
        for item in group:
            cells.setdefault(item["shape"].rsplit(" ", 1)[0], []).append(item)
        lines += [_lte_line(shape, cell) for shape, cell in cells.items()]
    return lines


def _lte_line(shape: str, rows: list[Row]) -> str:
    ours: dict[str, float] = {}
    for item in rows:  # Flex is measured apart, with ours once more
        ours.setdefault(item["shape"].rsplit(" ", 1)[1], item["ours_ms"])
    found = peers(rows)
    dense = min((found[name] or math.inf for name in ("cudnn", "flash") if name in found),
                default=None)
    capped = max((ours[name] for name in ("random", "rising") if name in ours), default=None)
    times = [ours.get(name) for name in WORKLOADS] + [found.get(name) for name in LTE_PEERS]
    return line(shape, *map(ms, times), ratio(dense, capped), ratio(dense, ours.get("sparse")))


# ----------------------------------------------------------------------------------------- decode

DECODE = """One step of one layer, replays of a CUDA graph, caches taking turns. ours: a cache of
fixed size, its update, attention, the scorer's share; cudnn: SDPA over a full cache that nobody
writes. flat: ours, the slowest context over the fastest."""


def decode(rows: list[Row]) -> list[str]:
    """A line per batch and context, then how flat each batch is."""
    lines = heading("Decoding", rows, "decode.py", DECODE) if rows else []
    lines += ["", *header("shape", "ours", "cudnn", "ratio", "cache MiB", "full cache MiB")]
    lines += [
        line(item["shape"], ms(item["ours_ms"]), ms(item["peer_ms"]),
             ratio(item["peer_ms"], item["ours_ms"]), f"{item['ours_mib']:.1f}",
             f"{item['peer_mib']:.0f}")
        for item in rows
    ]
    batches: dict[str, list[float]] = {}
    for item in rows:
        batches.setdefault(item["shape"].split()[0], []).append(item["ours_ms"])
    flat = ", ".join(f"{name} {max(times) / min(times):.3f}" for name, times in batches.items())
    return [*lines, "", f"Flat in context: {flat}."]


# ------------------------------------------------------------------------------------------ model

MODEL = """0.4B (24 layers of 1024), bf16 weights; transformer: the paper's, window: a window of 512
in every layer; llama: transformers' Llama with the transformer's weights. train: forward, backward
and fused AdamW, as it is or through torch.compile (whose Llama is missing: it ran out of memory
beside the others; alone, on the day before, it took 324 ms); decode: greedy, a token, after the
prompt; first token: from the call on, when no graph is to be captured; prefill: the forward over
the prompt into a new cache. first step (`benchmarks/first_step.py`): a fresh process until its
first training step is done, from empty kernel caches (cold) or not (warm)."""


def model(rows: list[Row]) -> list[str]:
    lines = heading("Whole models", rows, "model.py", MODEL) if rows else []
    names = ("what", "ours", "llama", "ratio", "tokens/s", "llama's", "GiB", "llama's")
    lines += ["", *header(*names)]
    return lines + [_model_line(item) for item in rows]


def _model_line(item: Row) -> str:
    ours, theirs, tokens = item["ours_ms"], item["peer_ms"], item.get("tokens")
    rates = [f"{1e3 * tokens / t:,.0f}" if t and tokens else "-" for t in (ours, theirs)]
    memory = [item.get(name, "-") for name in ("ours_gib", "peer_gib")]
    return line(item["shape"], ms(ours), ms(theirs), ratio(theirs, ours), *rates, *memory)


SECTIONS: dict[str, Callable[[list[Row]], list[str]]] = {
    "window": window,
    "lte": lte,
    "decode": decode,
    "model": model,
}
