"""What the analyzer says of a model, beside what the model does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ..analysis import Analysis, analyze
from ..ir.graph import Graph
from ..nn import backend
from ..nn.model import Model
from .counting import counting

REPEATS = 3
"""Runs that are timed; the median counts."""


@dataclass(frozen=True)
class Checked:
    """what: a metric, of the model or of a layer. found: as counted, or as the tensors have it."""

    what: str
    unit: str
    said: int
    found: int

    @property
    def agrees(self) -> bool:
        return self.said == self.found

    def as_json(self) -> dict[str, Any]:
        return {"what": self.what, "unit": self.unit, "said": self.said, "found": self.found,
                "agrees": self.agrees}


@dataclass(frozen=True)
class Validation:
    """seconds: measured, by pass, the way the device runs it."""

    analysis: Analysis
    device: str
    checked: tuple[Checked, ...]
    seconds: dict[str, float]

    @property
    def agrees(self) -> bool:
        return all(each.agrees for each in self.checked)

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.analysis.model,
            "batch": self.analysis.batch,
            "length": self.analysis.length,
            "device": self.device,
            "agrees": self.agrees,
            "checked": [each.as_json() for each in self.checked],
            "seconds": self.seconds,
        }


def validate(model: Model, graph: Graph, batch: int, length: int) -> Validation:
    """Count and time a prefill, a training step without its optimizer, and a decoding step.

    The model's weights stay; gradients are gone afterwards. FLOPs are those of plain PyTorch.
    """
    weight = model.embedding.weight
    dtype = str(weight.dtype).removeprefix("torch.")
    analysis = analyze(graph, batch, length, dtype)
    tokens = torch.zeros(batch, length, dtype=torch.int64, device=weight.device)
    try:
        with backend.forced("eager"):
            checked = tuple(_checked(model, analysis, tokens))
        seconds = dict(_timed(model, tokens))
    finally:
        model.zero_grad(set_to_none=True)
        model.eval()
    return Validation(analysis, str(weight.device), checked, seconds)


def _checked(model: Model, analysis: Analysis, tokens: torch.Tensor) -> Iterator[Checked]:
    batch, length = tokens.shape
    total = analysis.total
    yield Checked("parameters", "", total.parameters, model.num_parameters())
    with torch.no_grad(), counting() as counter:
        model.eval()(tokens)
    counts = counter.get_flop_counts()
    for layer in analysis.layers:
        own = sum(counts.get(f"{type(model).__name__}.layers.{layer.index}", {}).values())
        name = f"layer {layer.index} ({layer.label}) forward"
        yield Checked(name, "FLOPs", layer.cost.number("flops.forward.dense"), own)
    found = {"forward": counter.get_total_flops()}
    with counting() as counter:
        logits = model.train()(tokens)
        found["training"] = counter.get_total_flops()
        logits.sum().backward()
        found["backward"] = counter.get_total_flops() - found["training"]
    cache = model.eval().new_cache(batch, max_length=length + 1)
    longer = analyze(analysis.graph, batch, length + 1, analysis.dtype).total
    with torch.no_grad():
        model(tokens, cache=cache)
        with counting() as counter:
            model(tokens[:, :1], cache=cache)
    found["step"] = counter.get_total_flops()
    for name, flops in found.items():
        yield Checked(name, "FLOPs", total.number(f"flops.{name}.dense"), flops)
    yield Checked("cache", "bytes", longer.number("cache_bytes"), cache.nbytes)


def _timed(model: Model, tokens: torch.Tensor) -> Iterator[tuple[str, float]]:
    """Seconds of each pass, by the backend that the device has."""
    batch, length = tokens.shape
    model.eval()
    with torch.no_grad():
        yield "forward", _median(lambda: model(tokens), tokens.device)
        cache = model.new_cache(batch, max_length=length + REPEATS + 1)
        model(tokens, cache=cache)
        yield "step", _median(lambda: model(tokens[:, :1], cache=cache), tokens.device)
    model.train()
    yield "training", _median(lambda: model(tokens).sum().backward(), tokens.device)


def _median(run: Callable[[], object], device: torch.device) -> float:
    times = []
    for _ in range(REPEATS + 1):  # the first warms up
        _wait(device)
        begin = time.perf_counter()
        run()
        _wait(device)
        times.append(time.perf_counter() - begin)
    return sorted(times[1:])[REPEATS // 2]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
