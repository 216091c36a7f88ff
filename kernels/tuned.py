"""Tiles that were found best on a GPU of this machine, kept in the cache for later renderings.

A file holds one kernel's tile on one GPU: processes that search at the same time put whole files in
place, and the last one wins. What was found with another Triton, or for other templates, is not
read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from .loader import cache_root

Options = dict[str, int]


def save(gpu: str, kernel: str, state: str, size: int, found: dict[str, Any]) -> Path:
    """Keep a tile for a kernel on `gpu` (as torch names it) with `size` bytes per element.

    state: of the templates. found: `options`, what the kernel is told at launch, and what was
    measured.
    """
    name = f"{re.sub(r'[^A-Za-z0-9]+', '-', gpu)}-{size}.json"
    path = _folder(kernel, state) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    with os.fdopen(handle, "w") as file:
        json.dump({"gpu": gpu, "size": size, **found}, file)
    os.replace(temporary, path)
    return path


def load(kernel: str, state: str) -> dict[tuple[str, int], Options]:
    """(GPU, bytes per element) -> options, of all GPUs that have been searched on."""
    found: dict[tuple[str, int], Options] = {}
    for path in sorted(_folder(kernel, state).glob("*.json")):
        row = json.loads(path.read_text())
        options = {str(name): int(value) for name, value in row["options"].items()}
        found[str(row["gpu"]), int(row["size"])] = options
    return found


def state_of(folder: Path) -> str:
    """A short hash of a room's templates."""
    total = hashlib.sha256()
    for path in sorted(folder.glob("*.jinja")):
        total.update(path.read_bytes())
    return total.hexdigest()[:12]


def _folder(kernel: str, state: str) -> Path:
    return cache_root() / "tiles" / f"triton-{_triton()}" / f"{kernel}-{state}"


@cache
def _triton() -> str:
    try:
        return metadata.version("triton")
    except metadata.PackageNotFoundError:
        return "none"
