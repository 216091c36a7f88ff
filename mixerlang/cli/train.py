"""mixerlang train."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Device, Json, Root, Set, Spec

if TYPE_CHECKING:
    from ..nn.model import Model
    from ..training import Corpus, Result, TrainConfig


MOST = 1_000_000
"""Sequences of a batch, or batches."""


class Compute(StrEnum):
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def train(
    spec: Spec,
    data: Annotated[
        str,
        typer.Option(help="A file of text, or python-docs (travels with Python), or enwik8 "
                     "(downloaded once with pip)."),
    ] = "python-docs",
    limit: Annotated[
        int | None,
        typer.Option(min=2, show_default=False, help="Use only the first bytes of the data."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", show_default=False,
                     help="Folder for the log and the checkpoints; without it none are kept."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in DIR.")] = False,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps.")] = 1000,
    batch: Annotated[int, typer.Option(min=1, max=MOST, help="Sequences per step.")] = 8,
    length: Annotated[
        int | None,
        typer.Option(min=2, show_default=False,
                     help="Tokens per sequence; by default the model's context."),
    ] = None,
    lr: Annotated[float, typer.Option(min=1e-12, help="Peak learning rate.")] = 3e-4,
    warmup: Annotated[
        int | None,
        typer.Option(min=0, show_default=False,
                     help="Steps of warmup; by default a tenth, at most 512."),
    ] = None,
    weight_decay: Annotated[float, typer.Option(min=0, help="AdamW's decay of matrices.")] = 0.1,
    clip: Annotated[float, typer.Option(min=1e-12, help="Largest norm of the gradient.")] = 1.0,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Of the weights, the batches and dropout.")
    ] = 0,
    eval_every: Annotated[int, typer.Option(min=1, help="Steps between evaluations.")] = 100,
    eval_batches: Annotated[
        int, typer.Option(min=1, max=MOST, help="Batches of the validation set.")
    ] = 8,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 100,
    sparsity_every: Annotated[
        int | None,
        typer.Option(min=1, show_default=False, help="Steps between updates of LTE's sparsity "
                     "weights; by default 32, fewer in a short run."),
    ] = None,
    max_seconds: Annotated[
        float | None,
        typer.Option(min=1e-3, show_default=False, help="Pause after so long; --resume goes on."),
    ] = None,
    compute: Annotated[
        Compute, typer.Option("--dtype", help="bfloat16 computes under autocast.")
    ] = Compute.FLOAT32,
    device: Device = None,
    json: Json = False,
    set: Set = None,
    root: Root = None,
) -> None:
    """Train a byte-level model on text."""
    if resume and output is None:
        raise typer.BadParameter("--resume needs the directory of the run", param_hint="--output")
    from ..ir.views import digest
    from ..training import TrainConfig
    from .models import model_of_spec
    from .output import print_data

    model, graph = model_of_spec(spec, set, root, device, None, seed)
    config = TrainConfig(
        steps=steps, batch=batch, length=length or model.context, lr=lr, warmup=warmup,
        weight_decay=weight_decay, clip=clip, seed=seed, eval_every=eval_every,
        eval_batches=eval_batches, checkpoint_every=checkpoint_every,
        sparsity_every=sparsity_every, max_seconds=max_seconds, dtype=compute.value,
    )
    corpus = _corpus(data, limit)
    result = _trained(model, corpus, config, output, resume, digest(graph), quiet=json)
    if json:
        print_data(_as_json(result))
    if result.reason == "interrupted":
        raise typer.Exit(130)


def _corpus(data: str, limit: int | None) -> Corpus:
    from ..training import TrainingError, open_corpus
    from .guard import CommandError

    try:
        return open_corpus(data, limit=limit)
    except TrainingError as error:
        raise CommandError(str(error)) from None


def _trained(
    model: Model, corpus: Corpus, config: TrainConfig, output: Path | None, resume: bool,
    spec: str, quiet: bool,
) -> Result:
    """Train with progress on stdout; on stderr where stdout is for the result."""
    from rich.console import Console

    from ..training import TrainingError
    from ..training import train as train_model
    from ..training.progress import ProgressView
    from .guard import CommandError

    try:
        with ProgressView(Console(stderr=quiet)) as view:
            return train_model(model, corpus, config, directory=output, resume=resume, spec=spec,
                               on_event=view)
    except TrainingError as error:
        raise CommandError(str(error)) from None


def _as_json(result: Result) -> dict[str, Any]:
    last = result.last
    return {
        "step": result.step,
        "reason": result.reason,
        "seconds": result.seconds,
        "loss": None if last is None else last.loss,
        "bits_per_byte": None if last is None else last.bits_per_byte,
        "unigram_entropy": result.unigram_entropy,
        "directory": None if result.directory is None else str(result.directory),
    }
