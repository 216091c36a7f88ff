"""Keeps as the kernels see them: the data that layers take, and bytes of the cache on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..algebra import Count, greatest, least, reached
from . import keep as k
from .attention import branches
from .base import Term
from .part import Workload

if TYPE_CHECKING:
    from ..kernels.decode.layout import Layout
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
) -> Count | None:
    """Of the KV heads that share a keep, for one sequence; None where plain PyTorch holds it."""
    from ..nn.route import layout, route

    total: Count = 0
    for branch in map(as_data, branches(keep)):
        served = route(branch, head_dim, value_dim).op != "eager"
        held = layout(branch) if served else None
        if held is None:
            return None
        total = total + _layout_bytes(held, (kv_heads, head_dim, value_dim), work)
    return total


def _layout_bytes(held: Layout, shape: tuple[int, int, int], work: Workload) -> Count:
    """Of one sequence. They rise with the entries of its ring alone, and evenly."""
    length = work.length
    if isinstance(length, int):
        return held.nbytes(1, *shape, length, work.bytes_per_element)
    few, many = 1, 2 if held.window is None else held.window + 1
    least_bytes, bytes_then = (
        held.nbytes(1, *shape, most, work.bytes_per_element) for most in (few, many)
    )
    entries = held.ring(many) - held.ring(few)
    per_entry = (bytes_then - least_bytes) // entries if entries else 0
    return least_bytes + per_entry * (_ring(held, length) - held.ring(few))


def _ring(held: Layout, length: Count) -> Count:
    """Entries for sequences of up to `length` tokens, as Layout.ring has them."""
    if held.everything:
        return length
    assert held.window is not None
    window = held.window
    return greatest(
        least(length, window - 1) + (held.span + 1) * reached(length, window), held.raw_rows
    )
