"""What a generated folder carries along of nn/ and kernels/, found in their sources."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath

Path = PurePosixPath

ROOMS = ("nn", "kernels")
"""Packages of mixerlang whose files may be carried along."""


@cache
def source(path: Path) -> bytes | None:
    """A file of a room by its path inside mixerlang, or None."""
    found = files("mixerlang").joinpath(str(path))
    return found.read_bytes() if found.is_file() else None


@cache
def tree(path: Path) -> ast.Module:
    text = source(path)
    assert text is not None, path
    return ast.parse(text)


@cache
def classes() -> dict[str, Path]:
    """The file of each public class of nn/."""
    found: dict[str, Path] = {}
    for entry in sorted(files("mixerlang").joinpath("nn").iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".py"):
            path = Path("nn", entry.name)
            for node in tree(path).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    other = found.setdefault(node.name, path)
                    assert other == path, f"{node.name} is defined in {other} and in {path}"
    return found


def closure(paths: Iterable[Path]) -> list[Path]:
    """The files, and all that they import relatively, sorted."""
    found: set[Path] = set()
    stack = list(paths)
    while stack:
        path = stack.pop()
        if path not in found:
            found.add(path)
            stack.extend(imports(path))
    return sorted(found)


@cache
def imports(path: Path) -> tuple[Path, ...]:
    """The files that a file needs to be imported: packages on the way to it, what it names."""
    found = [parent / "__init__.py" for parent in path.parents if parent.name]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.level:
            found.extend(_targets(path, node))
    for target in found:
        assert target.parts[0] in ROOMS, f"{path} imports {target}"
    return tuple(dict.fromkeys(found))


def _targets(path: Path, node: ast.ImportFrom) -> Iterator[Path]:
    """`from .a import b` is a.py, or a/__init__.py and a/b.py where that is a module."""
    base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
    module = base.with_suffix(".py") if base.name else base
    if base.name and source(module) is not None:
        yield module
        return
    if base.name:
        yield base / "__init__.py"
    for alias in node.names:
        for inner in (base / f"{alias.name}.py", base / alias.name / "__init__.py"):
            if source(inner) is not None:
                yield inner
