"""FLOPs of small models as torch counts them while they run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from mixerlang.ir.graph import Graph
from mixerlang.pipeline import build_graph
from mixerlang.runtime.counting import counting


def tokens(batch: int, length: int) -> torch.Tensor:
    return torch.zeros(batch, length, dtype=torch.int64)


def forward_flops(model: nn.Module, batch: int, length: int) -> int:
    with torch.no_grad(), counting() as counter:
        model.eval()(tokens(batch, length))
    return counter.get_total_flops()


def training_flops(model: nn.Module, batch: int, length: int) -> tuple[int, int]:
    """Of forward and backward, under train()."""
    with counting() as counter:
        logits = model.train()(tokens(batch, length))
        forward = counter.get_total_flops()
        logits.sum().backward()
    return forward, counter.get_total_flops() - forward


def step_flops(model: Any, batch: int, length: int) -> int:
    """Of one more token after `length` in a cache."""
    model.eval()
    with torch.no_grad():
        cache = model.new_cache(batch)
        if length:
            model(tokens(batch, length), cache=cache)
        with counting() as counter:
            model(tokens(batch, 1), cache=cache)
    return counter.get_total_flops()


def graph_of(path: Path) -> Graph:
    graph, diagnostics = build_graph(path)
    assert graph is not None, [item.message for item in diagnostics]
    return graph


def graph_of_mixer(folder: Path, mixer: str) -> Graph:
    """A small model of one layer."""
    path = folder / "model.mix"
    path.write_text(f"model m {{ vocab = 11; dim = 12; context = 32; layers = [{mixer}] }}")
    return graph_of(path)
