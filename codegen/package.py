"""What a generated folder carries along of nn/ and kernels/, found in their sources."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath

Path = PurePosixPath

ROOMS = ("nn", "kernels")
"""Packages of mixerlang whose files may be carried along."""

LEFT_BEHIND = frozenset({"render.py", "ahead.py", "search.py"})
"""What makes and builds kernels: a folder carries the kernels themselves."""

# Patterns in place of a parser, which takes a second for all files: half of loading a model.
CLASS = re.compile(r"^class ([A-Za-z]\w*)", re.M)
IMPORT = re.compile(r"^ *from (\.+)([\w.]*) import (?:\(([^)]*)\)|(.*))", re.M)
NAME = re.compile(r"(?:^|,)\s*(\w+)")
COMMENT = re.compile(r"#.*")


@cache
def source(path: Path) -> bytes | None:
    """A file of a room by its path inside mixerlang, or None."""
    found = files("mixerlang").joinpath(str(path))
    return found.read_bytes() if found.is_file() else None


def text(path: Path) -> str:
    found = source(path)
    assert found is not None, path
    return found.decode()


@cache
def classes() -> dict[str, Path]:
    """The file of each public class of nn/."""
    found: dict[str, Path] = {}
    for entry in sorted(files("mixerlang").joinpath("nn").iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".py"):
            path = Path("nn", entry.name)
            for name in CLASS.findall(text(path)):
                other = found.setdefault(name, path)
                assert other == path, f"{name} is defined in {other} and in {path}"
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
    for dots, module, block, line in IMPORT.findall(text(path)):
        names = NAME.findall(COMMENT.sub("", block or line))
        targets = _targets(path.parents[len(dots) - 1], module, names)
        found.extend(target for target in targets if target.name not in LEFT_BEHIND)
    for target in found:
        assert target.parts[0] in ROOMS, f"{path} imports {target}"
    return tuple(dict.fromkeys(found))


def _targets(package: Path, module: str, names: list[str]) -> Iterator[Path]:
    """`from .a import b` is a.py, or a/__init__.py and a/b.py where that is a module."""
    base = package.joinpath(*module.split("."))
    single = base.with_suffix(".py") if module else base
    if module and source(single) is not None:
        yield single
        return
    if module:
        yield base / "__init__.py"
    for name in names:
        for inner in (base / f"{name}.py", base / name / "__init__.py"):
            if source(inner) is not None:
                yield inner
