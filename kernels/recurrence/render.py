"""Render a variant's kernels from the templates: text in, text out, the same bytes every time."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from .tiles import PASSES, tiles, width
from .variant import CHUNK, Variant, cut

if TYPE_CHECKING:
    import jinja2

PIECE = 64
"""Channels of k, at most, in one product of the passes over chunks."""


def passes(variant: Variant) -> tuple[str, ...]:
    """What a variant is rendered to."""
    absent = {"decays": variant.decay != "vector", "solve": not variant.delta}
    return tuple(name for name in PASSES if not absent.get(name))


def render(name: str, variant: Variant) -> str:
    """The source of one of the variant's `passes`."""
    found = tiles(name, variant)
    vector = variant.decay == "vector"
    template = f"{name}_vector.py.jinja" if vector and name == "gradients" else f"{name}.py.jinja"
    widest = {key: max(tile.get(key, 16) for tile in found.values()) for key in BLOCKS}
    piece = width(variant.key_dim, PIECE)
    context = {
        "template": template,
        "variant": variant,
        "tiles": found,
        "summary": summary(variant),
        "chunk": CHUNK,
        "vector": vector,
        "fades": not variant.delta and variant.decay != "none",
        "piece": piece,
        "channels": f"{piece}, {'KEYS' if variant.key_dim % piece else None}",
        "pieces": cut(variant.key_dim, PIECE),
        "whole": variant.value_dim % widest["BLOCK_V"] == 0,
        "whole_keys": variant.key_dim % widest["BLOCK_K"] == 0,
    }
    return _environment().get_template(template).render(context)


BLOCKS = ("BLOCK_K", "BLOCK_V")


def summary(variant: Variant) -> str:
    """One line for a reader of the rendered file."""
    heads = f"{variant.value_heads} heads of {variant.key_dim} by {variant.value_dim}"
    if variant.group > 1:
        heads += f", {variant.group} to a head of q and k"
    decay = {"none": "no decay", "scalar": "a decay per head", "vector": "a decay per key channel"}
    update = "the delta rule" if variant.delta else "values added"
    return f"{heads}; {decay[variant.decay]}; {update}{' by steps' * variant.step}."


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
