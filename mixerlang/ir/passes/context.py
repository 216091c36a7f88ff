"""Sizes of keeps that never bind within the context."""

from __future__ import annotations

from collections.abc import Iterable

from ...primitives import Op, Report
from ...primitives import keep as k
from ...primitives.attention import Attention, leaves

SIZES: dict[type[k.Keep], str] = {
    k.Window: "size",
    k.Sinks: "count",
    k.Strided: "stride",
    k.Dilated: "rate",
    k.Learned: "budget",
    k.Evict: "budget",
    k.Blocks: "size",
    k.Compressed: "size",
}
"""The field of each keep that counts tokens."""


def check_context(ops: Iterable[Op], context: int, report: Report) -> None:
    """Warn of windows, budgets and blocks that hold more tokens than a training sequence has."""
    for op in ops:
        for leaf in leaves(op.keep) if isinstance(op, Attention) else ():
            name = SIZES.get(type(leaf))
            if name is not None and getattr(leaf, name) > context:
                report("MX406", leaf.origin.of(name),
                       f"{name} {getattr(leaf, name)} of `{leaf.word}` exceeds the context of "
                       f"{context}", help="it never binds in training")
