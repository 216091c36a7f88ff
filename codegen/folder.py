"""Writing a generated folder: whole or not at all, and never over anything else."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from ..diagnostics import Diagnostics

GENERATOR = "mixerlang"
SCHEMA = 1
CONFIG = "config.json"


def write_folder(files: Mapping[str, bytes], directory: str | os.PathLike[str]) -> Diagnostics:
    """Write files by their path inside `directory`, replacing an older output of ours.

    MX007, and nothing is touched, where anything else is there. An OSError leaves all as it was.
    """
    diagnostics = Diagnostics()
    target = Path(directory)
    reason = obstacle(target)
    if reason is not None:
        diagnostics.add(
            "MX007", None, f"`{target}` {reason}", help="choose another folder, or move it away"
        )
        return diagnostics
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(target, "new")
    try:
        _write(files, temporary)
        _swap(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return diagnostics


def obstacle(target: Path) -> str | None:
    """Why a folder may not be written here; None where it may."""
    if target.name in ("", ".."):
        return "is not a name for a new folder"
    if target.is_symlink():
        return "is a symbolic link"
    if any(parent.is_file() for parent in target.parents):
        return "is inside a file"
    if not target.exists():
        return None
    if not target.is_dir():
        return "is a file"
    if not any(target.iterdir()):
        return None
    known = _known_files(target)
    if known is None:
        return "is not empty and not an output of mixerlang"
    return _foreign(target, known)


def _known_files(folder: Path) -> set[str] | None:
    """The files that an output of ours says it consists of; None where it is none."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(config, dict) or config.get("generator") != GENERATOR:
        return None
    files = config.get("files")
    return set(map(str, files)) if isinstance(files, list) else None


def _foreign(folder: Path, known: set[str]) -> str | None:
    """Weights or notes that somebody keeps in an output would be lost with it."""
    for path, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            inside = Path(path, name).relative_to(folder).as_posix()
            if inside not in known:
                return f"holds `{inside}`, which mixerlang did not write"
        for name in folders:
            if Path(path, name).is_symlink():
                return f"holds the symbolic link `{name}`"
    return None


def _sibling(target: Path, what: str) -> Path:
    """A name beside the target, so that a rename moves nothing between file systems."""
    return target.with_name(f".{target.name}.{what}-{uuid4().hex}")


def _write(files: Mapping[str, bytes], folder: Path) -> None:
    folder.mkdir()
    for name, data in files.items():
        path = folder / name
        assert path.resolve().is_relative_to(folder.resolve()), name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _swap(new: Path, target: Path) -> None:
    """Put `new` in the place of the target, which comes back if that fails."""
    old = _sibling(target, "old")
    with suppress(FileNotFoundError):
        target.rename(old)
    try:
        new.rename(target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            if old.exists():
                old.rename(target)
            raise
        # Another process has put its own there in between: the last one wins.
        _swap(new, target)
    shutil.rmtree(old, ignore_errors=True)
