"""How long a model takes on a GPU: each part as long as its products or its bytes, then a launch.

A part's time is the longer of its executed FLOPs and of its bytes, at the rates that the GPU
attains, and the gap to the next kernel. Passes that a CUDA graph replays (a decoding step) take
the sum; others at least as long as the host takes to start every kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..algebra import Count
from ..ir.graph import Graph, Node, Tokens
from ..primitives.part import Part, Workload
from .device import Device, device
from .executed import executed
from .memory import MOMENTS
from .metrics import PASSES
from .nodes import node_widths, parts_of
from .report import BYTES, Analysis


@dataclass(frozen=True)
class Time:
    """Seconds of kernels that products bound, that bytes bound, of gaps; launches of kernels."""

    products: float = 0.0
    bytes: float = 0.0
    gaps: float = 0.0
    launches: int = 0

    @property
    def seconds(self) -> float:
        return self.products + self.bytes + self.gaps

    def __add__(self, other: Time) -> Time:
        return Time(
            self.products + other.products,
            self.bytes + other.bytes,
            self.gaps + other.gaps,
            self.launches + other.launches,
        )

    @property
    def bound(self) -> str:
        """What most of it goes to."""
        shares = {"FLOPs": self.products, "bytes": self.bytes, "launches": self.gaps}
        return max(shares, key=lambda name: shares[name])


@dataclass(frozen=True)
class Latency:
    """times: by pass and by name, of kinds of layers and of what stands around them."""

    analysis: Analysis
    device: Device
    times: dict[str, dict[str, Time]]

    def total(self, name: str) -> Time:
        return sum(self.times[name].values(), Time())

    @property
    def prefill(self) -> float:
        return self._hosted("forward")

    @property
    def step(self) -> float:
        """Of a decoding step, replayed as one CUDA graph."""
        return self.total("step").seconds

    @property
    def training(self) -> float:
        """Of a training step: forward, loss, backward, AdamW."""
        forward, backward = self.total("training"), self.total("backward")
        both = forward + backward
        host = both.launches * self.device.host
        return max(both.seconds, host) + self._around_training()

    @property
    def mfu(self) -> float:
        """Useful FLOPs of a training step over what the GPU could do in its time."""
        total = self.analysis.total
        useful = sum(total.number(f"flops.{name}.useful") for name in ("training", "backward"))
        return useful / (self.training * self.device.flops[self.analysis.dtype])

    def _hosted(self, name: str) -> float:
        time = self.total(name)
        return max(time.seconds, time.launches * self.device.host)

    def _around_training(self) -> float:
        """The loss reads the logits twice and writes their gradient; AdamW reads weights, gradients
        and moments, and writes all but the gradients."""
        analysis = self.analysis
        element = BYTES[analysis.dtype]
        logits = analysis.batch * analysis.length * analysis.graph.fields.vocab
        states = analysis.total.parameters * (2 * (1 + MOMENTS) + 1)
        return element * (3 * logits + states) / _bandwidth(self.device)

    def as_json(self) -> dict[str, Any]:
        return {
            "device": self.device.name,
            "seconds": {"prefill": self.prefill, "step": self.step, "training": self.training},
            "tokens_per_second": {
                "prefill": self.analysis.batch * self.analysis.length / self.prefill,
                "step": self.analysis.batch / self.step,
                "training": self.analysis.batch * self.analysis.length / self.training,
            },
            "mfu": self.mfu,
            "kinds": {
                name: {
                    kind: {"seconds": time.seconds, "bound": time.bound, "launches": time.launches}
                    for kind, time in times.items()
                }
                for name, times in self.times.items()
            },
        }


def latency_on(analysis: Analysis, name: str) -> Latency:
    """On a GPU by its name; ValueError where there is none."""
    return latency(analysis, device(name))


def latency(analysis: Analysis, device: Device) -> Latency:
    work = Workload(analysis.batch, analysis.length, BYTES[analysis.dtype], kernels=True)
    times: dict[str, dict[str, Time]] = {name: {} for name in PASSES}
    known: dict[object, Time] = {}
    for title, nodes in _titled(analysis.graph):
        for node in nodes:
            for name in PASSES:
                key = (node.op, node_widths(analysis.graph, node), name)
                if key not in known:
                    known[key] = _node_time(analysis.graph, node, work, name, device)
                times[name][title] = times[name].get(title, Time()) + known[key]
    return Latency(analysis, device, times)


def _titled(graph: Graph) -> Iterator[tuple[str, list[Node]]]:
    for layer in graph.layers:
        yield layer.label, [graph[id] for id in layer.nodes]
    for node in graph:
        if node.layer is None and not isinstance(node.op, Tokens):
            yield node.name, [node]


def _node_time(graph: Graph, node: Node, work: Workload, name: str, device: Device) -> Time:
    parts = parts_of(node.op, node_widths(graph, node), work, work, name)
    flops = executed(node.op, parts, work, name)
    timed = (_part_time(part, count, work, name, device)
             for part, count in zip(parts, flops, strict=True))
    return sum(timed, Time())


def _part_time(part: Part, flops: Count, work: Workload, name: str, device: Device) -> Time:
    dtype = next(dtype for dtype, size in BYTES.items() if size == work.bytes_per_element)
    share = device.attention if part.name in ("attention", "scorer") else device.matrix
    products = _plain(flops) / (device.flops[dtype] * share)
    moved = _plain(part.read) + _plain(part.written)
    launches = 1
    if name == "backward":
        multiplies = _plain(part.backward.dense) > 0
        moved = 2 * moved if multiplies else moved + _plain(part.read)
        launches = 2 if multiplies else 1
    streamed = moved / _bandwidth(device)
    gaps = launches * device.gap
    if products > streamed:
        return Time(products, 0.0, gaps, launches)
    return Time(0.0, streamed, gaps, launches)


def _bandwidth(device: Device) -> float:
    return device.bandwidth * device.attained_bandwidth


def _plain(count: Count) -> int:
    assert isinstance(count, int)
    return count
