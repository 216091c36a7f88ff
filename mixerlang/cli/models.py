"""From a spec or a compiled folder on the command line to a model that speaks bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from .guard import CommandError
from .options import settings

if TYPE_CHECKING:
    from ..ir.graph import Graph
    from ..nn.model import Model

BYTES = 256


def model_of_target(
    target: str, given: list[str] | None, root: Path | None, device: str | None,
    dtype: str | None, seed: int,
) -> Model:
    """The model of a spec or of a compiled folder."""
    folder = Path(target)
    if not folder.is_dir():
        return model_of_spec(target, given, root, device, dtype, seed)[0]
    if given or root is not None:
        raise typer.BadParameter("a compiled folder takes neither --set nor --root")
    from ..runtime.load import load_folder, read_config

    config = read_config(folder)
    require_bytes(config["name"], config["vocab"])
    return load_folder(folder, device=place(device), dtype=dtype, seed=seed)


def model_of_spec(
    spec: str, given: list[str] | None, root: Path | None, device: str | None,
    dtype: str | None, seed: int,
) -> tuple[Model, Graph]:
    """The model of a spec, and the graph it was made from."""
    from .specs import graph_of

    graph = graph_of(spec, given, root)
    require_bytes(graph.name, graph.fields.vocab)
    from ..runtime.load import load

    model = load(spec, params=settings(given), root=root, device=place(device), dtype=dtype,
                 seed=seed)
    return model, graph


def require_bytes(name: str, vocab: int) -> None:
    """Text goes in and out as bytes: there is no tokenizer."""
    if vocab != BYTES:
        raise CommandError(
            f"{name} has a vocabulary of {vocab:,}, and this command feeds models bytes: there is "
            "no tokenizer here",
            help=f"use a model with vocab = {BYTES}, or call model(tokens) and model.generate(...) "
            "from Python",
        )


def place(device: str | None) -> str:
    """The device asked for, or the best there is."""
    import torch

    wanted = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=wanted).item()  # the device "meta" computes nothing
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch built without CUDA
        reason = str(error).partition("\n")[0]
        raise CommandError(f"the device {wanted!r} cannot be used: {reason}") from None
    return wanted


def load_weights(model: Model, path: Path) -> Path:
    """Read weights from a file, or from the best checkpoint of a training run."""
    from safetensors import SafetensorError

    file = _weights_file(path)
    try:
        model.load(file)
    except (SafetensorError, ValueError) as error:
        raise CommandError(f"the weights do not fit or cannot be read: {error}") from None
    return file


def _weights_file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        what = "is not a regular file" if path.exists() else "does not exist"
        raise CommandError(f"`{path}` {what}")
    from ..training.checkpoint import Checkpoints
    from ..training.errors import TrainingError

    try:
        best = Checkpoints(path).best()
    except TrainingError as error:
        raise CommandError(str(error)) from None
    if best is None:
        raise CommandError(f"`{path}` holds no checkpoint of a training run",
                           help="name a .safetensors file, or the directory given to train -o")
    return best / "model.safetensors"
