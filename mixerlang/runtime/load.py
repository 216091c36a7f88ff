"""From a spec, or a generated folder, to a running model: by importing the generated package."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast
from uuid import uuid4

import torch

from ..codegen.compile import compile_spec
from ..codegen.folder import CONFIG, GENERATOR, SCHEMA
from ..errors import FolderError, SpecError
from ..nn.model import Model

Device = str | torch.device | None
Dtype = str | torch.dtype | None


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
    compiled, diagnostics = compile_spec(spec, params, root)
    if compiled is None:
        raise SpecError(diagnostics)
    folder = cached(compiled.files, compiled.graph.name)
    return _instance(folder, device, dtype, seed)


def load_folder(
    directory: str | os.PathLike[str],
    *,
    device: Device = None,
    dtype: Dtype = None,
    seed: int | None = None,
) -> Model:
    """A new model of a folder that `mixerlang compile` wrote. This runs the code in it."""
    return _instance(Path(directory), device, dtype, seed)


def _instance(folder: Path, device: Device, dtype: Dtype, seed: int | None) -> Model:
    config = read_config(folder)
    dtype = config["dtype"] if dtype is None else dtype
    wanted = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(wanted, torch.dtype) or not wanted.is_floating_point:
        raise ValueError(f"dtype must be a floating-point type, not {dtype}")
    module = import_folder(folder)
    with torch.device(torch.get_default_device() if device is None else device) as place:
        if seed is None:
            model = module.Model()
        else:
            others = [place] if place.type == "cuda" else []
            with torch.random.fork_rng(devices=others):
                torch.manual_seed(seed)
                model = module.Model()
    # A folder brings a base class of its own, so that it runs without mixerlang.
    return cast(Model, model.to(wanted))


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
    name = f"_mixerlang_{_digest(_python_files(folder) | {'': bytes(folder)})}"
    if name in sys.modules:
        return sys.modules[name]
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


# --------------------------------------------------------------------------------------- the cache


def cache_folder() -> Path:
    """Where generated folders of `load` are kept: MIXERLANG_CACHE, or the user's cache."""
    chosen = os.environ.get("MIXERLANG_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base, "mixerlang")


def cached(files: Mapping[str, bytes], name: str) -> Path:
    """A folder with these files, written unless it is there.

    Its name is their hash, so processes that race for it write the same, and the first one wins.
    """
    target = cache_folder() / _digest(files) / name[:40]
    if _holds(target, files):
        return target
    home = target.parent
    home.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = home.with_name(f".{home.name}-{uuid4().hex}")
    try:
        for path, data in files.items():
            file = temporary / target.name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        try:
            temporary.rename(home)
        except OSError:
            if not _holds(target, files):  # not another process, but a damaged or edited copy
                _discard(home)
                temporary.rename(home)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _discard(folder: Path) -> None:
    """Out of the way in one step, then away."""
    old = folder.with_name(f".{folder.name}-{uuid4().hex}")
    folder.rename(old)
    shutil.rmtree(old, ignore_errors=True)


def _holds(folder: Path, files: Mapping[str, bytes]) -> bool:
    try:
        return all((folder / path).read_bytes() == data for path, data in files.items())
    except OSError:
        return False


def _digest(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for path, data in sorted(files.items()):
        digest.update(f"{len(path)}:{path}:{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()[:32]


__all__ = ["cache_folder", "import_folder", "load", "load_folder", "read_config"]
