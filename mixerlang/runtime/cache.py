"""Where `load` keeps generated folders, by their contents."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

from ..kernels.loader import cache_root


def cached(files: Mapping[str, bytes], name: str) -> Path:
    """A folder with these files, written unless it is there.

    Its name is their hash, so processes that race for it write the same, and the first one wins.
    """
    target = cache_root() / digest(files) / name[:40]
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
    """Whether it has these files and no other that could be imported in their place."""
    try:
        found = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and path.parent.name != "__pycache__"
        }
    except OSError:
        return False
    return found == files


def digest(files: Mapping[str, bytes]) -> str:
    """A short hash of files, names and contents."""
    total = hashlib.sha256()
    for path, data in sorted(files.items()):
        total.update(f"{len(path)}:{path}:{len(data)}:".encode())
        total.update(data)
    return total.hexdigest()[:32]
