"""What `mixerlang compile --autotune` does before it writes the folder."""

from __future__ import annotations

import sys

from ..ir.graph import Graph
from .guard import CommandError, need_triton


def search(graph: Graph, dtype: str | None) -> None:
    """Search tiles for the kernels of a model; what comes of each is told on stderr."""
    from ..codegen.tune import distinct, tune

    _need_gpu()
    dtype = dtype or graph.fields.dtype
    count = len(distinct(graph))
    print(f"searching tiles for {count} kind{'s' * (count != 1)} of attention in {dtype}",
          file=sys.stderr)
    for found in tune(graph, dtype):
        result = "nothing faster" if found.tile is None else f"{found.after:.4f} ms, {found.tile}"
        print(f"  {found.kernel}: {found.before:.4f} ms, {result}", file=sys.stderr, flush=True)


def _need_gpu() -> None:
    import torch

    need_triton("--autotune")
    if not torch.cuda.is_available():
        raise CommandError("--autotune needs a GPU, and torch finds none",
                           help="run it on the machine that has one; without it the tiles that "
                           "ship with mixerlang serve")
