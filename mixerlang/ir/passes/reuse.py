"""What `reuse(back=n)` points to: the attention layer n attentions earlier.

No backend can run reuse yet, so a reuse that points to something is told so.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...primitives import Report
from ...primitives.attention import Attention, Reuse, leaves
from ...primitives.keep import Blocks, Evict, Learned, ReuseKeep
from ..graph import Graph

SELECTING = (Blocks, Evict, Learned, ReuseKeep)
"""Keeps that choose tokens by what they hold; another layer can take the choice over."""


def check_reuse(graph: Graph, report: Report) -> None:
    """Report every reuse: once for each place in the spec, whatever layers it stands in."""
    earlier: list[Attention] = []
    problems: dict[int, tuple[Reuse | ReuseKeep, str | None]] = {}
    for node in graph:
        if not isinstance(node.op, Attention):
            continue
        for reuse in reuses(node.op):
            known = problems.get(id(reuse), (reuse, None))[1]
            problems[id(reuse)] = (reuse, known or _problem(reuse, node.op, earlier, node.id))
        earlier.append(node.op)
    for reuse, problem in problems.values():
        if problem is None:
            report("MX501", reuse.origin.span, "`reuse` is not implemented yet",
                   help="the language accepts it; no backend can run it so far")
        else:
            report("MX405", reuse.origin.of("back"), problem,
                   help="back=1 is the attention layer before this one")


def reuses(op: Attention) -> Iterator[Reuse | ReuseKeep]:
    """Everything that an attention takes from earlier ones."""
    yield from (reuse for reuse in (op.kv, op.weights) if reuse is not None)
    yield from (leaf for leaf in leaves(op.keep) if isinstance(leaf, ReuseKeep))


def _problem(
    reuse: Reuse | ReuseKeep, op: Attention, earlier: list[Attention], id: str
) -> str | None:
    if reuse.back > len(earlier):
        return f"reuse points {reuse.back} attentions back, and {id} has {len(earlier)} before it"
    source = earlier[-reuse.back]
    if isinstance(reuse, ReuseKeep):
        selects = any(isinstance(leaf, SELECTING) for leaf in leaves(source.keep))
        return None if selects else f"the layer that {id} points to selects no tokens"
    if reuse is op.kv and _kv(source) != _kv(op):
        return (f"{id} has {_described(op)}, the layer that it takes keys and values from "
                f"{_described(source)}")
    if reuse is op.weights and source.heads != op.heads:
        return f"{id} has {op.heads} heads, the layer that it takes weights from {source.heads}"
    return None


def _kv(op: Attention) -> tuple[int | None, int | None, int | None]:
    return op.kv_heads, op.head_dim, op.value_dim


def _described(op: Attention) -> str:
    return f"{op.kv_heads} KV heads of {op.head_dim} and {op.value_dim} channels"


