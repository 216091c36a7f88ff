"""The direction of imports (docs/internals): data walks one way, and no room looks back."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "mixerlang"
STANDALONE = ("nn", "kernels")
"""Copied into generated folders: relative imports and torch alone."""
HEAVY = {"torch", "triton"}

ORDER = {
    "source": 0,
    "algebra": 0,
    "version": 0,
    "diagnostics": 1,
    "errors": 2,
    "syntax": 2,
    "primitives": 3,
    "semantics": 4,
    "ir": 5,
    "pipeline": 6,
    "codegen": 7,
    "analysis": 8,
    "runtime": 9,
    "training": 10,
    "evaluation": 10,
    "hub": 11,
    "api": 12,
    "cli": 13,
    "lsp": 13,
    "__main__": 14,
}
"""A room imports rooms below its own number; of those with the same one, itself alone."""

LIGHT = {room for room, place in ORDER.items() if place <= ORDER["analysis"]} | {"cli"}
"""Rooms that `check` and `analyze` go through."""


def modules() -> Iterator[tuple[str, Path]]:
    """Every module by its dotted name, the linked rooms included."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield dotted(path.relative_to(ROOT)), path
    for room in ("codegen", "kernels", "grammar"):
        for path in sorted((ROOT / room).rglob("*.py")):
            yield dotted(Path("mixerlang") / path.relative_to(ROOT)), path


def dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name: path for name, path in modules() if "__pycache__" not in path.parts}


def imports(name: str, path: Path) -> Iterator[tuple[ast.stmt, str]]:
    """Each import statement with the absolute names that it brings in."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
            yield from ((node, f"{base}.{alias.name}") for alias in node.names)


def room(name: str) -> str:
    """The room of a dotted name: mixerlang.ir.graph -> ir."""
    parts = name.split(".")
    return parts[1] if parts[0] == "mixerlang" and len(parts) > 1 else ""


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_room_looks_back(name: str) -> None:
    own = room(name)
    if own in ("", *STANDALONE, "grammar"):
        return
    assert own in ORDER, f"say in ORDER where {own} stands"
    for node, target in imports(name, MODULES[name]):
        other = room(target)
        if other in ("", own, *STANDALONE, "grammar") or other not in ORDER:
            continue
        assert ORDER[other] < ORDER[own], f"{name}:{node.lineno} imports {target}"


@pytest.mark.parametrize("name", sorted(name for name in MODULES if room(name) in STANDALONE))
def test_standalone_rooms_know_nothing_of_the_compiler(name: str) -> None:
    for node, target in imports(name, MODULES[name]):
        where = f"{name}:{node.lineno} imports {target}"
        if target.startswith("mixerlang"):
            assert room(target) in STANDALONE, where
            assert isinstance(node, ast.ImportFrom) and node.level, f"{where}, not relatively"
        else:
            allowed = sys.stdlib_module_names | HEAVY | {"numpy", "safetensors"}
            rendering = {"jinja2"} if name.endswith(".render") else set()
            assert target.split(".")[0] in allowed | rendering, where


@pytest.mark.parametrize(
    "name", sorted(name for name, path in MODULES.items() if path.name == "reference.py"
                   and room(name) == "kernels")
)
def test_an_oracle_imports_torch_alone(name: str) -> None:
    for _, target in imports(name, MODULES[name]):
        top = target.split(".")[0]
        assert top in sys.stdlib_module_names | {"torch"}, target


@pytest.mark.parametrize("name", sorted(name for name in MODULES if room(name) in LIGHT))
def test_light_rooms_do_not_import_torch_at_load(name: str) -> None:
    path = MODULES[name]
    lines = {node.lineno for node in ast.parse(path.read_text("utf-8")).body}
    for node, target in imports(name, path):
        if node.lineno in lines:
            assert target.split(".")[0] not in HEAVY, f"{name}:{node.lineno}"
            assert room(target) not in STANDALONE, f"{name}:{node.lineno}"


def test_checking_loads_neither_torch_nor_triton_nor_lark() -> None:
    code = (
        "import sys, mixerlang.pipeline as p, mixerlang.diagnostics;"
        "graphs, found = p.check('specs/paper/lalte_400m.mix');"
        "assert graphs['lalte_400m'].parameters() and not len(found);"
        "print(sorted({'torch', 'triton', 'lark', 'numpy', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_files_stay_small() -> None:
    long = {name: n for name, path in MODULES.items()
            if (n := len(path.read_text("utf-8").splitlines())) >= 400}
    assert not long
