"""Search tiles for the attention kernels of a model on the GPU at hand, and keep what is faster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import TYPE_CHECKING

from ..ir.graph import Graph
from ..primitives.attention import Attention
from .kernels import variants
from .serve import softmaxes

if TYPE_CHECKING:
    from ..kernels.attention.variant import Variant

LONGEST = 16_384
"""Tokens of the sequence that is timed, at most; longer ones rank tiles alike."""


@dataclass(frozen=True)
class Tuned:
    """A kernel that was searched for: milliseconds with the tile that was in use, and with the best
    that was found; `tile` is None where none is faster."""

    kernel: str
    before: float
    after: float
    tile: str | None


def tune(graph: Graph, dtype: str, workers: int | None = None) -> Iterator[Tuned]:
    """Search for each attention kernel of a model, one after another; needs a GPU and triton.

    dtype: of the call. Tiles that are faster than those that ship go to the cache.
    """
    tokens = min(max(graph.fields.context, 2048), LONGEST)
    count = workers or os.cpu_count() or 1
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        for variant in distinct(graph):
            yield from _of_variant(variant, dtype, tokens, pool)


def distinct(graph: Graph) -> list[Variant]:
    """The specialisations of a model, each once: packed sequences take the tile of whole ones."""
    found: dict[Variant, None] = {}
    for node in graph:
        if isinstance(node.op, Attention):
            for softmax in softmaxes(node.op):
                for variant in variants(softmax):
                    found[replace(variant, packed=False)] = None
    return list(found)


def _of_variant(variant: Variant, dtype: str, tokens: int, pool: Executor) -> Iterator[Tuned]:
    import torch

    from ..kernels import tuned
    from ..kernels.attention import render, search
    from ..kernels.attention.launch import architecture, gpu

    call = search.example(variant, getattr(torch, dtype), tokens)
    size = call.q.element_size()
    for name in (name for name in render.passes(variant) if name in search.SEARCHED):
        kernel, before = variant.stem(name), search.shipped(name, call)
        best = search.best(name, call, architecture(call.q), pool)
        if best is None or best.ms >= before:
            yield Tuned(kernel, before, before, None)
            continue
        options = best.tile.options(name)
        found = {"options": options, "ms": best.ms, "before": before}
        tuned.save(gpu(call.q), kernel, render.state(), size, found)
        yield Tuned(kernel, before, best.ms, f"{best.tile.own} x {best.tile.step}")
