"""Keeps as the kernels see them: the data that layers take, and bytes of the cache on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import keep as k
from .attention import branches
from .base import Term, Workload

if TYPE_CHECKING:
    from ..nn.keeps import Keep


def as_data(term: Term) -> Keep:
    """A keep of the language as the data that the layers take."""
    from ..nn import keeps

    values = {name: _value(value) for name, value in term.arguments().items()}
    found: Keep = getattr(keeps, type(term).__name__)(**values)
    return found


def _value(value: object) -> object:
    if isinstance(value, tuple):
        return tuple(map(_value, value))
    return as_data(value) if isinstance(value, Term) else value


def kernel_cache_bytes(
    keep: k.Keep, kv_heads: int, head_dim: int, value_dim: int, work: Workload
) -> int | None:
    """Of the KV heads that share a keep, for one sequence; None where plain PyTorch holds it."""
    from ..nn.route import layout, route

    total = 0
    for branch in map(as_data, branches(keep)):
        served = route(branch, head_dim, value_dim).op != "eager"
        held = layout(branch) if served else None
        if held is None:
            return None
        element = work.bytes_per_element
        total += held.nbytes(1, kv_heads, head_dim, value_dim, work.length, element)
    return total
