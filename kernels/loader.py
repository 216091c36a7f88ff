"""Rendered kernels as modules: Triton reads a kernel's source from a file, so each gets one.

A package that was rendered beforehand carries its kernels as modules of its own, and needs no
renderer. Elsewhere they are rendered when first called for, into a cache.

A file's folder is named by the hash of its text. Two processes that render the same kernel write
the same bytes, and each puts its file in place in one step, so neither reads a half-written one.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType


def namespace(module_name: str) -> str:
    """Where the ops of `module_name` register: under the package that holds its `kernels`.

    So a generated folder with kernels of its own and mixerlang fit in one process.
    """
    package = module_name.partition(".kernels.")[0]
    return re.sub(r"\W", "_", package)


def kernel(package: str, stem: str, render: Callable[[], str]) -> ModuleType:
    """The module of a kernel: `package`.rendered.`stem` where that is, else what `render` gives."""
    name = f"{package}.rendered.{stem}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name not in (name, f"{package}.rendered"):
            raise
    try:
        return load(stem, render())
    except ModuleNotFoundError as missing:
        if missing.name not in ("jinja2", f"{package}.render"):
            raise
        raise ImportError(
            f"{package} carries no {stem}, and {missing.name}, which would render it, is not "
            "there: generate the folder again for these sizes, or install mixerlang"
        ) from missing


def cache_root() -> Path:
    """Where what can be made again is kept: $MIXERLANG_CACHE, or the user's cache folder."""
    chosen = os.environ.get("MIXERLANG_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mixerlang"


def write(stem: str, source: str) -> Path:
    """The file that holds `source`, written unless it is there already."""
    data = source.encode()
    folder = cache_root() / "kernels" / hashlib.sha256(data).hexdigest()[:20]
    path = folder / f"{stem}.py"
    if path.is_file() and path.read_bytes() == data:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path


def load(stem: str, source: str) -> ModuleType:
    """Import rendered text; the same text gives the same module."""
    path = write(stem, source)
    name = f"_mixerlang_kernel_{path.parent.name}_{stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # Inspection of a kernel's source goes through sys.modules; a module that failed stays out.
    sys.modules[name] = module
    return module
