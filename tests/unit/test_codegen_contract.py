"""Terms and layers agree: what the generator leaves out of a constructor means the same there."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

import mixerlang
from mixerlang.codegen.expression import Call, Items, constructor, flat, laid_out, value_of
from mixerlang.codegen.package import LEFT_BEHIND, _targets, classes, closure, imports, text
from mixerlang.codegen.package import Path as RoomPath
from mixerlang.codegen.statement import written
from mixerlang.primitives import MODULES, Op, Term
from mixerlang.primitives.combine import Combination, Layer, NoTerm, Tied
from mixerlang.primitives.model import Embedding, Head, ModelFields

NO_LAYER = (Combination, Layer, NoTerm, Tied, ModelFields, Embedding, Head)

NOT_YET = {("Attention", "kv"), ("Attention", "weights")}
"""Fields whose only values are told with MX501."""


def ready_terms() -> list[type[Term]]:
    """Terms that may reach a constructor of nn/: concrete, with a layer or data class."""
    found = []
    for module in MODULES:
        for term in vars(module).values():
            if (
                isinstance(term, type)
                and issubclass(term, Term)
                and term.__module__ == module.__name__
                and term.ready
                and term.__name__ in classes()
                and not issubclass(term, NO_LAYER)
            ):
                found.append(term)
    return found


@pytest.mark.parametrize("term", ready_terms(), ids=lambda term: term.__name__)
def test_keywords_and_defaults(term: type[Term]) -> None:
    module = "mixerlang." + ".".join(classes()[term.__name__].with_suffix("").parts)
    layer = getattr(importlib.import_module(module), term.__name__)
    accepted = inspect.signature(layer).parameters
    for name, field in term.model_fields.items():
        if name == "origin" or name in term.spec_only or (term.__name__, name) in NOT_YET:
            continue
        assert name in accepted, f"{term.__name__} takes no {name}"
        if not field.is_required():
            value: Any = field.get_default(call_default_factory=True)
            default = accepted[name].default
            if default is inspect.Parameter.empty:
                assert bound(term, name), f"{term.__name__}({name}) has no default"
            elif isinstance(value, Term):
                assert type(default).__name__ == type(value).__name__
            elif not bound(term, name):
                assert default == value


def bound(term: type[Term], name: str) -> bool:
    """Whether `bind` always gives the field a value, so that it is always written."""
    return issubclass(term, Op) and name in {
        "hidden", "out", "kv_heads", "head_dim", "value_dim", "value_heads", "key_dim"
    }  # fmt: skip


def test_most_terms_have_a_class() -> None:
    names = {term.__name__ for term in ready_terms()}
    assert {"Attention", "Recurrence", "RMSNorm", "SwiGLU", "Learned", "Rope", "Normal"} <= names
    assert len(names) > 40


def test_written_ops_need_no_class() -> None:
    for module in MODULES:
        for term in vars(module).values():
            if isinstance(term, type) and issubclass(term, Op) and term.__module__.endswith(
                "pointwise"
            ) and term.__name__ != "Pointwise":  # fmt: skip
                assert (term.__name__ in classes()) != written_class(term)


def written_class(term: type[Op]) -> bool:
    return written(term.model_construct())


def test_expressions() -> None:
    from mixerlang.primitives.attention import Attention
    from mixerlang.primitives.keep import Learned, Union, Window

    keep = Union(parts=(Window(size=3), Learned(budget=4)))
    call = constructor(Attention(heads=2, keep=keep, position=None), 16)
    wanted = (
        "Attention(16, heads=2, position=None, "
        "keep=Union(parts=(Window(size=3), Learned(budget=4))))"
    )
    assert flat(call) == wanted
    assert laid_out(call, 4, 8) == wanted
    assert laid_out(call, 4, 9) == (
        "Attention(\n        16,\n        heads=2,\n        position=None,\n"
        "        keep=Union(parts=(Window(size=3), Learned(budget=4))),\n    )"
    )
    assert flat(Items(("1",))) == "(1,)"
    assert flat(Call("f", ())) == "f()"


@pytest.mark.parametrize("value", ['x"', "a b", "", "\n", object(), b"x", float("nan"), [1]])
def test_nothing_else_becomes_code(value: object) -> None:
    with pytest.raises(AssertionError):
        value_of(value)


def parsed(path: RoomPath) -> set[RoomPath]:
    """What a file imports relatively, by Python's own parser."""
    found: set[RoomPath] = set()
    for node in ast.walk(ast.parse(text(path))):
        if isinstance(node, ast.ImportFrom) and node.level:
            names = [alias.name for alias in node.names]
            found.update(_targets(path.parents[node.level - 1], node.module or "", names))
    return {target for target in found if target.name not in LEFT_BEHIND}


def test_imports_are_found_as_a_parser_finds_them() -> None:
    root = Path(mixerlang.__file__).parent
    paths = [RoomPath(path.relative_to(root).as_posix())
             for room in ("nn", "kernels") for path in (root / room).rglob("*.py")]
    assert len(paths) > 60
    for path in paths:
        on_the_way = {parent / "__init__.py" for parent in path.parents if parent.name}
        assert set(imports(path)) == parsed(path) | on_the_way, path


def test_carried_files_import_by_statements() -> None:
    """A module whose name is put together while a model runs would be left behind."""
    for path in closure(set(classes().values())):
        if path != RoomPath("kernels/loader.py"):
            assert "import_module" not in text(path), path


def test_closures_are_whole() -> None:
    for path in set(classes().values()):
        files = closure([path])
        assert RoomPath("nn/__init__.py") in files and path in files
        assert all(target in files for file in files for target in imports(file))
