"""Render a variant's kernels from the templates: text in, text out, the same bytes every time."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import jinja2

from .variant import Tile, Variant, pieces

PASSES = ("forward", "backward_q", "backward_kv")


def render(name: str, variant: Variant, tile: Tile) -> str:
    """The source of one pass: `forward`, `backward_q` or `backward_kv`."""
    channels, values = pieces(variant.head_dim), pieces(variant.value_dim)
    own_keys = name == "backward_kv"
    context = {
        "template": f"{name}.py.jinja",
        "variant": variant,
        "tile": tile,
        "summary": summary(variant),
        "channels": channels,
        "values": values,
        "padded": any(piece.padded for piece in channels + values),
        "windowed": variant.window is not None,
        "sink_blocks": variant.window is not None and variant.sinks > 0,
        "packed": variant.packed,
        "whole_blocks": own_keys,
        "precision": precision(variant),
        "log2_e": math.log2(math.e),
        "block_q": tile.step if own_keys else tile.own,
        "block_k": tile.own if own_keys else tile.step,
    }
    return _environment().get_template(f"{name}.py.jinja").render(context)


def file_stem(name: str, variant: Variant) -> str:
    """What a rendered file is called: attention_forward_d64_w512."""
    dims = f"d{variant.head_dim}"
    if variant.value_dim != variant.head_dim:
        dims += f"_e{variant.value_dim}"
    return f"attention_{name}_{dims}_{variant.reach}"


def summary(variant: Variant) -> str:
    """One line for a reader of the rendered file."""
    keep = "all of the past" if variant.window is None else f"a window of {variant.window}"
    if variant.sinks:
        keep += f" and {variant.sinks} sinks"
    heads = f"{variant.heads} heads of {variant.head_dim}"
    if variant.value_dim != variant.head_dim:
        heads += f" (values of {variant.value_dim})"
    layout = ", packed sequences" if variant.packed else ""
    return f"{heads} over {variant.kv_heads} KV heads, {variant.dtype}; {keep}{layout}."


def precision(variant: Variant) -> str:
    """The last argument of every product: float32 stays float32 unless tf32 is asked for."""
    if variant.dtype != "float32":
        return ""
    return f', input_precision="{"tf32" if variant.tf32 else "ieee"}"'


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
