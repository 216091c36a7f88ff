"""Render a variant's kernels from the templates: text in, text out, the same bytes every time."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from .. import tuned
from ..pieces import pieces
from .intervals import GRAIN, SEGMENT
from .tiles import choose, table
from .variant import ALIGNED, BY_KEY, DTYPES, Variant

if TYPE_CHECKING:
    import jinja2

PASSES = ("forward", "backward_q", "backward_kv")


def passes(variant: Variant) -> tuple[str, ...]:
    """What a variant is rendered to. Keys that are found in lists have backward passes of their
    own, which come before backward_kv."""
    gathered = ("backward_gathered", "backward_held")
    sinks = ("backward_sinks",) if variant.sinks_apart else ()
    return (*PASSES, *gathered[: variant.intervals + (variant.budget is not None)], *sinks)


def render(name: str, variant: Variant) -> str:
    """The source of one of the variant's `passes`."""
    channels, values = pieces(variant.head_dim), pieces(variant.value_dim)
    context = {
        "template": f"{name}.py.jinja",
        "variant": variant,
        "tiles": tiles(name, variant),
        "summary": summary(variant),
        "channels": channels,
        "values": values,
        "padded": any(piece.padded for piece in channels + values),
        "windowed": variant.window is not None,
        "sinks_apart": variant.sinks_apart,
        "sinks_here": variant.sinks > 0 and not (variant.sinks_apart and name == "backward_kv"),
        "sinks_alone": name == "backward_sinks",
        "thinned": variant.rate > 1,
        "packed": variant.packed,
        "intervals": variant.intervals,
        "gathered": name in ("backward_gathered", "backward_held"),
        "capped": variant.budget is not None,
        "segment": SEGMENT,
        "grain": GRAIN,
        "aligned": ALIGNED,
        "by_query": name not in BY_KEY,
        "whole_blocks": name in BY_KEY,
        "log2_e": math.log2(math.e),
    }
    return _environment().get_template(f"{name}.py.jinja").render(context)


def tiles(name: str, variant: Variant) -> dict[tuple[str, int], dict[str, int]]:
    """(GPU or its generation, bytes per element) -> what the pass is told at launch."""
    shipped = {
        (target, size): choose(name, variant, target, size).options(name)
        for target in table()["tiles"]
        for size in sorted({*DTYPES.values()})
    }
    return shipped | tuned.load(replace(variant, packed=False).stem(name), state())


@cache
def state() -> str:
    """Of the templates: tiles found for others do not count."""
    return tuned.state_of(Path(__file__).parent)


def summary(variant: Variant) -> str:
    """One line for a reader of the rendered file."""
    heads = f"{variant.heads} heads of {variant.head_dim}"
    if variant.value_dim != variant.head_dim:
        heads += f" (values of {variant.value_dim})"
    layout = ", packed sequences" if variant.packed else ""
    return f"{heads} over {variant.kv_heads} KV heads; {', '.join(_keeps(variant))}{layout}."


def _keeps(variant: Variant) -> list[str]:
    """What a query sees."""
    keeps = ["all of the past" if variant.window is None else f"a window of {variant.window}"]
    if variant.rate > 1:
        keeps.append(f"of it each {variant.rate}th key")
    if variant.sinks:
        keeps.append(f"{variant.sinks} sinks")
    if variant.strided:
        keeps.append(f"each {variant.strided}th key")
    if variant.intervals:
        most = "all that are" if variant.budget is None else f"at most {variant.budget}"
        keeps.append(f"kept keys, {most}")
    return keeps


@cache
def _environment() -> jinja2.Environment:
    import jinja2  # a folder that carries its rendered kernels does without

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
