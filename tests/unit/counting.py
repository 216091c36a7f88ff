"""FLOPs of models as torch counts them while they run, with what it miscounts put right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mixerlang.ir.graph import Graph
from mixerlang.pipeline import build_graph

Shape = tuple[int, ...]
aten = torch.ops.aten


def solved(a: Shape, b: Shape, *_: object, **__: object) -> int:
    """torch counts a triangular system as nothing; here as the product that it undoes."""
    return 2 * torch.Size(a).numel() * b[-1]


def convolved_back(grad: Shape, x: Shape, weight: Shape, *rest: Any, **__: object) -> int:
    """torch counts (1 + groups) products as large as that of the forward pass; there is one for
    each gradient that is asked for."""
    wanted = next(mask for mask in rest if isinstance(mask, list) and isinstance(mask[0], bool))
    forward = 2 * grad[0] * grad[2] * torch.Size(weight).numel()
    return forward * sum(wanted[:2])


CORRECTED = {
    aten.linalg_solve_triangular: solved,
    aten.convolution_backward: convolved_back,
}


@contextmanager
def counting() -> Iterator[Callable[[], int]]:
    """FLOPs so far, of what runs inside."""
    counter = FlopCounterMode(display=False, custom_mapping=CORRECTED)
    with sdpa_kernel(SDPBackend.MATH), counter:
        yield counter.get_total_flops


def tokens(batch: int, length: int) -> torch.Tensor:
    return torch.zeros(batch, length, dtype=torch.int64)


def forward_flops(model: nn.Module, batch: int, length: int) -> int:
    with torch.no_grad(), counting() as counted:
        model.eval()(tokens(batch, length))
        return counted()


def training_flops(model: nn.Module, batch: int, length: int) -> tuple[int, int]:
    """Of forward and backward, under train()."""
    with counting() as counted:
        logits = model.train()(tokens(batch, length))
        forward = counted()
        logits.sum().backward()
        return forward, counted() - forward


def step_flops(model: Any, batch: int, length: int) -> int:
    """Of one more token after `length` in a cache."""
    model.eval()
    with torch.no_grad():
        cache = model.new_cache(batch)
        if length:
            model(tokens(batch, length), cache=cache)
        with counting() as counted:
            model(tokens(batch, 1), cache=cache)
            return counted()


def graph_of(path: Path) -> Graph:
    graph, diagnostics = build_graph(path)
    assert graph is not None, [item.message for item in diagnostics]
    return graph


def graph_of_mixer(folder: Path, mixer: str) -> Graph:
    """A small model of one layer."""
    path = folder / "model.mix"
    path.write_text(f"model m {{ vocab = 11; dim = 12; context = 32; layers = [{mixer}] }}")
    return graph_of(path)
