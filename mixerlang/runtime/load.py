"""From a spec, or a generated folder, to a running model: by importing the generated package."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch

from ..codegen.compile import compile_spec
from ..codegen.folder import CONFIG, GENERATOR, SCHEMA
from ..errors import FolderError, SpecError
from ..nn.model import Model
from .cache import cached, digest
from .wake import waking

Device = str | torch.device | None
Dtype = str | torch.dtype | None

_importing = threading.RLock()
"""Two threads that load one folder would otherwise see each other's half-imported package."""


def load(
    spec: str | os.PathLike[str],
    *,
    params: Mapping[str, Any] | None = None,
    device: Device = None,
    dtype: Dtype = None,
    seed: int | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Model:
    """A new model of "file.mix" or "file.mix:model": what `mixerlang compile` writes, imported.

    params: values for the params of the model. device: default torch's. dtype: of the weights,
    default what the spec says. seed: of the initial weights; torch's own random state stays as it
    is. root: the folder that imports stay in. Raises SpecError where the spec has errors.
    """
    place = _place(device)
    with waking(place):
        compiled, diagnostics = compile_spec(spec, params, root)
        if compiled is None:
            raise SpecError(diagnostics)
        folder = cached(compiled.files, compiled.graph.name)
        package = _opened(folder, dtype)
    return _instance(*package, place, seed)


def load_folder(
    directory: str | os.PathLike[str],
    *,
    device: Device = None,
    dtype: Dtype = None,
    seed: int | None = None,
) -> Model:
    """A new model of a folder that `mixerlang compile` wrote. This runs the code in it."""
    place = _place(device)
    with waking(place):
        package = _opened(Path(directory), dtype)
    return _instance(*package, place, seed)


def _place(device: Device) -> torch.device:
    return torch.get_default_device() if device is None else torch.device(device)


def _opened(folder: Path, dtype: Dtype) -> tuple[ModuleType, torch.dtype]:
    """The package of a folder, and the dtype that its weights are to have."""
    config = read_config(folder)
    dtype = config["dtype"] if dtype is None else dtype
    wanted = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(wanted, torch.dtype) or not wanted.is_floating_point:
        raise ValueError(f"dtype must be a floating-point type, not {dtype}")
    return import_folder(folder), wanted


def _instance(
    module: ModuleType, dtype: torch.dtype, place: torch.device, seed: int | None
) -> Model:
    with place:
        if seed is None:
            model = module.Model()
        else:
            others = [place] if place.type == "cuda" else []
            with torch.random.fork_rng(devices=others):
                torch.manual_seed(seed)
                model = module.Model()
    # A folder brings a base class of its own, so that it runs without mixerlang.
    return cast(Model, model.to(dtype))


def read_config(folder: Path) -> dict[str, Any]:
    """The config of a generated folder."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise FolderError(f"{folder} holds no readable {CONFIG}: {error}") from error
    if not isinstance(config, dict) or config.get("generator") != GENERATOR:
        raise FolderError(f"{folder} is no output of mixerlang")
    if config.get("schema") != SCHEMA:
        raise FolderError(
            f"{folder} has schema {config.get('schema')} and this mixerlang reads {SCHEMA}: "
            "compile it again"
        )
    return config


def import_folder(folder: Path) -> ModuleType:
    """The package in a folder, under a name of its own: the same one for the same contents."""
    folder = folder.resolve()
    name = f"_mixerlang_{digest(_python_files(folder) | {'': bytes(folder)})}"
    with _importing:
        return sys.modules[name] if name in sys.modules else _import(folder, name)


def _import(folder: Path, name: str) -> ModuleType:
    """Import a folder as the package `name`, which is gone again if that fails."""
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        for each in [key for key in sys.modules if key == name or key.startswith(f"{name}.")]:
            del sys.modules[each]
        raise
    return module


def _python_files(folder: Path) -> dict[str, bytes]:
    paths = sorted(folder.rglob("*.py"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


__all__ = ["import_folder", "load", "load_folder", "read_config"]
