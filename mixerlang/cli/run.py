"""mixerlang run."""

from __future__ import annotations

import sys
from codecs import getincrementaldecoder
from pathlib import Path
from typing import Annotated

import typer

from .options import Device, Dtype, Json, Root, Set


def run(
    target: Annotated[
        str, typer.Argument(metavar="SPEC", show_default=False,
                            help="A .mix file, file.mix:model, or a compiled folder.")
    ],
    prompt: Annotated[str, typer.Option(help="Text to go on from.", show_default=False)] = "\n",
    weights: Annotated[
        Path | None,
        typer.Option(show_default=False, help="A .safetensors file, or the directory of a training "
                     "run, whose best checkpoint is taken."),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option("-n", "--max-new-tokens", min=1, help="Bytes to generate.")
    ] = 200,
    temperature: Annotated[
        float, typer.Option(min=0, max=100, help="0 takes the likeliest.")
    ] = 0.8,
    top_k: Annotated[
        int | None,
        typer.Option(min=1, show_default=False, help="Draw among the k likeliest."),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(min=1e-6, max=1, show_default=False,
                     help="Draw among the fewest whose probabilities reach p."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Of the draws, and of weights not given.")
    ] = 0,
    device: Device = None,
    dtype: Dtype = None,
    json: Json = False,
    set: Set = None,
    root: Root = None,
) -> None:
    """Generate text, byte by byte."""
    if not prompt:
        raise typer.BadParameter("a model continues at least one byte", param_hint="--prompt")
    if 0 < temperature < 1e-3:  # logits over less are no longer numbers
        raise typer.BadParameter("take 0, or at least 0.001", param_hint="--temperature")
    from .models import load_weights, model_of_target
    from .output import note, print_data, safe

    model = model_of_target(target, set, root, device, dtype, seed)
    if weights is None:
        note("no --weights: the model has only just been initialised")
    else:
        load_weights(model, weights)
    # What the shell handed over is kept byte for byte, UTF-8 or not.
    start = list(prompt.encode("utf-8", "surrogateescape"))
    if not json:
        print(safe(prompt, sys.stdout), end="")
    decoder = getincrementaldecoder("utf-8")("replace")
    found: list[int] = []
    text = ""
    for step in model.stream([start], max_new_tokens, temperature=temperature, top_k=top_k,
                             top_p=top_p, seed=seed):
        (token,) = step
        assert token is not None
        found.append(token)
        new = decoder.decode(bytes([token]), final=len(found) == max_new_tokens)
        text += new
        if not json:
            print(safe(new, sys.stdout), end="", flush=True)
    if json:
        prompt = bytes(start).decode("utf-8", "replace")
        print_data({"prompt": prompt, "text": text, "tokens": found})
    else:
        print()
