"""What `analyze` predicts beside what runs: peak memory and times of the paper's 0.4B models.

Training is forward, backward and fused AdamW in bfloat16, B 8 x T 4096 and B 2 x T 16384; a step
of decoding is what `stream` does after a prompt of 4k and of 64k tokens. Memory is the allocator's
peak. Models that do not fit, or that the seconds do not reach, are left out and named.

    python benchmarks/predictions.py [--seconds 600] [--output benchmarks/results]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import harness
import torch

import mixerlang
from mixerlang.analysis import analyze, latency_on
from mixerlang.ir.graph import Graph
from mixerlang.nn.loss import cross_entropy
from mixerlang.nn.model import Model
from mixerlang.pipeline import build_graph

MODELS = ("transformer", "swa", "lalte", "gdn", "full", "nsa", "lansa")
TRAINED = ((8, 4096), (2, 16_384))
PROMPTS = (4096, 65_536)
DECODED = 24
GIB = 2**30


class Row(NamedTuple):
    model: str
    what: str
    ms: float
    said_ms: float
    gib: float
    said_gib: float


def measured(run: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median seconds of a run, warmed up, and GiB at its peak."""
    run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return statistics.median(times), torch.cuda.max_memory_allocated() / GIB


def training(name: str, graph: Graph, model: Model) -> Iterator[Row]:
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for batch, length in TRAINED:
        tokens = torch.randint(0, model.vocab, (batch, length), device="cuda")

        def step(tokens: torch.Tensor = tokens) -> None:
            cross_entropy(model.train()(tokens), tokens).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)

        said = analyze(graph, batch, length, "bfloat16", "kernels")
        time_said = latency_on(said, "h100").training
        seconds, gib = measured(step, 3)
        peak = said.memory["peak_bytes.training"] / GIB
        yield Row(name, f"train B{batch} T{length}", seconds * 1e3, time_said * 1e3, gib, peak)


@torch.no_grad()
def decoding(name: str, graph: Graph, model: Model) -> Iterator[Row]:
    model.eval()
    for prompt in PROMPTS:
        tokens = torch.randint(0, model.vocab, (prompt,)).tolist()
        steps = model.stream([tokens], max_new_tokens=DECODED, prefill_chunk=8192)
        for _ in range(4):
            next(steps)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        count = sum(1 for _ in steps)
        torch.cuda.synchronize()
        seconds = (time.perf_counter() - begin) / count
        gib = torch.cuda.max_memory_allocated() / GIB
        said = analyze(graph, 1, prompt, "bfloat16", "kernels")
        time_said, peak = latency_on(said, "h100").step, said.memory["peak_bytes.decode"] / GIB
        yield Row(name, f"step after {prompt}", seconds * 1e3, time_said * 1e3, gib, peak)


def rows(deadline: float) -> Iterator[Row]:
    for name in MODELS:
        if time.time() > deadline:
            print(f"{name}: no time left", flush=True)
            continue
        spec = harness.ROOT / f"specs/paper/{name}_400m.mix"
        graph, _ = build_graph(spec)
        assert graph is not None
        model = mixerlang.load(spec, device="cuda", dtype="bfloat16", seed=0)
        for part in (decoding, training):
            try:
                for row in part(name, graph, model):
                    print(line(row), flush=True)
                    yield row
            except torch.OutOfMemoryError:
                print(f"{name}: {part.__name__} does not fit", flush=True)
            torch.cuda.empty_cache()
        del model
        torch.cuda.empty_cache()


def line(row: Row) -> str:
    time_off, memory_off = row.said_ms / row.ms - 1, row.said_gib / row.gib - 1
    return (f"| {row.model} | {row.what} | {row.ms:.3g} | {row.said_ms:.3g} | {time_off:+.0%} | "
            f"{row.gib:.2f} | {row.said_gib:.2f} | {memory_off:+.1%} |")


HEAD = """\
| model | what | ms | said | off by | GiB | said | off by |
|---|---|---:|---:|---:|---:|---:|---:|"""


def report(found: list[Row]) -> str:
    times = sorted(abs(row.said_ms / row.ms - 1) for row in found)
    memory = sorted(abs(row.said_gib / row.gib - 1) for row in found)
    return "\n".join([
        "# Predicted beside measured", "",
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, `benchmarks/predictions.py`.",
        f"Times are off by {statistics.median(times):.0%} in the median, {times[-1]:.0%} at worst; "
        f"memory by {statistics.median(memory):.1%} and {memory[-1]:.1%}.", "",
        HEAD, *map(line, found), "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    text = report(list(rows(time.time() + arguments.seconds)))
    print(text)
    if arguments.output is not None:
        (arguments.output / "predictions.md").write_text(text)


if __name__ == "__main__":
    main()
