"""What runs each mixer of a model on a GPU, told before there is one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..diagnostics import Diagnostics
from ..ir.graph import Graph, LayerInfo
from ..ir.spelling import spell
from ..primitives import Mixer
from ..primitives import keep as k
from ..primitives.attention import Attention, branches, leaves
from ..primitives.keep_kernels import as_data
from ..primitives.norm import Alibi
from ..primitives.recurrence import Recurrence
from ..primitives.scan import Scan
from ..source import Span
from .naming import one_line, place_of

if TYPE_CHECKING:
    from ..kernels.decode.layout import Layout
    from ..nn.route import Route

RUNS = {
    "sdpa": "scaled_dot_product_attention (cuDNN)",
    "attention": "attention kernels",
    "intervals": "eviction, attention kernels",
    "recurrence": "recurrence kernels",
    "scan": "a kernel of its equations, token by token",
    "eager": "plain PyTorch",
}
"""What a route runs, for a reader."""


@dataclass(frozen=True)
class Softmax:
    """One softmax of a bound attention layer: a branch, and the KV heads that share it.

    group: the branches of these heads, gated with one another; they run one way.
    """

    attention: Attention
    keep: k.Keep
    kv_heads: int
    group: tuple[k.Keep, ...]

    @property
    def heads(self) -> int:
        """Query heads."""
        heads, kv_heads, _, _ = self.attention.shape()
        return heads // kv_heads * self.kv_heads

    @property
    def plain(self) -> bool:
        """Whether it is softmax(q k^T * scale) without more."""
        attention = self.attention
        biased = isinstance(attention.position, Alibi)
        return attention.softcap is None and not attention.sink_logits and not biased

    def route(self, training: bool = False) -> Route:
        """What runs it, among new tokens alone."""
        from ..nn.route import Route

        own = self._route(self.keep, training)
        for other in self.group if own.reason is None else ():
            if self._route(other, training).reason is not None:
                return Route("eager", reason=f"it is gated with {spell(other)}")
        return own

    def layout(self) -> Layout | None:
        """What it holds for decoding; None where plain PyTorch holds it, and its group."""
        from ..nn.route import layout

        if self.route().op == "eager" or None in [layout(as_data(each)) for each in self.group]:
            return None
        return layout(as_data(self.keep))

    def _route(self, keep: k.Keep, training: bool) -> Route:
        """Of a branch by itself; policies without weights evict nothing in training."""
        from ..nn.route import route

        if training and any(isinstance(leaf, k.Evict) for leaf in leaves(keep)):
            keep = k.Full()
        _, _, head_dim, value_dim = self.attention.shape()
        return route(as_data(keep), head_dim, value_dim, self.plain)


@dataclass(frozen=True)
class Served:
    """A part of alike layers. what: the keep, or the mixer's word. by: what runs it, `plain
    PyTorch` for a `reason`. place: `file:line`. layers: those that have it, by index."""

    label: str
    what: str
    by: str
    reason: str | None
    place: str | None
    layers: tuple[int, ...] = ()

    @property
    def runs(self) -> str:
        """`plain PyTorch (chosen blocks have no kernel yet)`."""
        first, *rest = self.by.split("; ")
        return "; ".join([f"{first} ({self.reason})" if self.reason else first, *rest])

    @property
    def line(self) -> str:
        """`window(8): attention kernels`."""
        return one_line(f"{self.what}: {self.runs}")

    def as_json(self) -> dict[str, Any]:
        """An entry of config.json."""
        return {
            "label": one_line(self.label),
            "layers": list(self.layers),
            "what": one_line(self.what),
            "by": self.by,
            "reason": self.reason,
            "place": None if self.place is None else one_line(self.place),
        }


def served(graph: Graph) -> list[Served]:
    """Every part of every layer that mixes tokens, alike ones together."""
    found: dict[Served, list[int]] = {}
    for layer in graph.layers:
        for part in parts_of(graph, layer):
            found.setdefault(part, []).append(layer.index)
    return [replace(part, layers=tuple(indices)) for part, indices in found.items()]


def report_limits(graph: Graph, diagnostics: Diagnostics) -> None:
    """Tell, where the spec says it, each size that no kernel serves."""
    from ..kernels.attention.variant import MAX_HEAD_DIM
    from ..nn.route import MAX_BUDGET

    for node in graph:
        if not isinstance(node.op, Attention):
            continue
        _, _, *dims = node.op.shape()
        for name, dim in zip(("head_dim", "value_dim"), dims, strict=True):
            if dim > MAX_HEAD_DIM and (name == "head_dim" or dim != dims[0]):
                span = node.op.origin.of(name)
                _tell(diagnostics, span or node.span, f"{name} {dim}", name, MAX_HEAD_DIM)
        for leaf in leaves(node.op.keep):
            if isinstance(leaf, k.Learned | k.Evict) and leaf.budget > MAX_BUDGET:
                span = leaf.origin.of("budget")
                _tell(diagnostics, span, f"a budget of {leaf.budget}", "budget", MAX_BUDGET)


def _tell(diagnostics: Diagnostics, span: Span | None, what: str, name: str, most: int) -> None:
    message = f"no kernel serves {what}, so the layer runs as plain PyTorch"
    diagnostics.add("MX601", span, message, help=f"kernels serve {name}s up to {most}")


def softmaxes(attention: Attention) -> Iterator[Softmax]:
    """Each softmax of a bound layer; KV heads with equal keeps share one."""
    keep, (_, kv_heads, _, _) = attention.keep, attention.shape()
    keeps = keep.keeps if isinstance(keep, k.ByHead) else (keep,) * kv_heads
    for own in dict.fromkeys(keeps):
        group = branches(own)
        for branch in group:
            yield Softmax(attention, branch, keeps.count(own), group)


def parts_of(graph: Graph, layer: LayerInfo) -> list[Served]:
    """What runs each part of a layer that mixes tokens, alike ones once, its index left out."""
    return list(dict.fromkeys(_parts(graph, layer)))


def _parts(graph: Graph, layer: LayerInfo) -> Iterator[Served]:
    label, place = layer.label, place_of(layer.span)
    for id in layer.nodes:
        op = graph[id].op
        if isinstance(op, Attention):
            for each in softmaxes(op):
                yield Served(label, spell(each.keep), _runs(each), each.route().reason, place)
        elif isinstance(op, Recurrence):
            yield _of_recurrence(op, label, place)
        elif isinstance(op, Scan):
            yield _of_scan(op, label, place)
        elif isinstance(op, Mixer):
            reason = f"{op.word} has no kernels yet"
            yield Served(label, op.word, RUNS["eager"], reason, place)


def _of_recurrence(op: Recurrence, label: str, place: str | None) -> Served:
    from .recurrences import unserved

    reason = unserved(op)
    return Served(label, op.word, RUNS["eager" if reason else "recurrence"], reason, place)


def _of_scan(op: Scan, label: str, place: str | None) -> Served:
    from .scans import unserved

    reason = unserved(op)
    return Served(label, op.word, RUNS["eager" if reason else "scan"], reason, place)


def _runs(softmax: Softmax) -> str:
    """What runs a softmax: a scorer has a kernel of its own, training and decoding may go another
    way."""
    op, training = softmax.route().op, softmax.route(training=True).op
    learned = any(isinstance(leaf, k.Learned) for leaf in leaves(softmax.keep))
    parts = [f"scorer, {RUNS[op]}" if learned and op == "intervals" else RUNS[op]]
    if training != op:
        parts.append(f"in training {RUNS[training]}")
    if op != "eager" and softmax.layout() is None:
        short = "a window no longer than what scores read ahead"
        parts.append(f"decoding in {RUNS['eager']} ({short})")
    return "; ".join(parts)
