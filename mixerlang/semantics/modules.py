"""Files to scopes: definitions, imports, and what may not be defined twice."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from ..diagnostics import Diagnostics, Note
from ..primitives import RESERVED, Origin
from ..source import Source, Span
from ..syntax import ast, parse
from . import registry
from .files import TOTAL_LIMIT, prelude, read_source, resolve_import
from .values import BlockValue, Closure, Env, RecurrenceRule, Thunk

DEPTH_LIMIT = 100
HEAD = re.compile(
    r"(?:^|[;{])[ \t]*(let\b|param\b|mixer\b|block\b|recurrence\b|model\b|)[ \t]*"
    r"([A-Za-z_][A-Za-z0-9_]*)(?!\w)",
    re.MULTILINE,
)
"""What a line may define, whatever else is wrong with it: its keyword and its name."""

Definition = ast.Let | ast.MixerDef | ast.BlockDef | ast.RecurrenceDef


@dataclass(eq=False)
class Module:
    """One file: its definitions over its imports over the prelude, and its models."""

    source: Source
    file: ast.File
    env: Env
    models: list[ast.Model] = field(default_factory=list)
    imports: list[Module] = field(default_factory=list)
    broken: frozenset[str] = frozenset()
    """Names that head statements which the parser reported and left out."""

    def all(self) -> list[Module]:
        """This module and everything it imports, each once."""
        found = {id(self): self}
        stack = [self]
        while stack:
            for module in stack.pop().imports:
                if id(module) not in found:
                    found[id(module)] = module
                    stack.append(module)
        return list(found.values())


class Loader:
    """Loads a file and what it imports. `root` bounds imports; sizes add up to TOTAL_LIMIT."""

    def __init__(self, root: Path, diagnostics: Diagnostics) -> None:
        self.root = root
        self.diagnostics = diagnostics
        self.prelude = Env({})
        for file in prelude():
            define_all(file, self.prelude)
        self._loaded: dict[Path, Module | None] = {}
        self._loading: list[Path] = []
        self._bytes = 0

    def load(self, path: str, real: Path, span: Span | None = None) -> Module | None:
        """The module of a file; None where it cannot be read."""
        if real in self._loading:
            names = " -> ".join(p.name for p in [*self._loading[self._loading.index(real):], real])
            self.diagnostics.add("MX005", span, f"imports form a cycle: {names}",
                                 help="move what both need into a third file")
            return None
        if len(self._loading) >= DEPTH_LIMIT:
            self.diagnostics.add("MX010", span, f"imports nest more than {DEPTH_LIMIT} deep",
                                 help="import from one place what several files need")
            return None
        if real not in self._loaded:
            self._loading.append(real)
            self._loaded[real] = self._read(path, real, span)
            self._loading.pop()
        return self._loaded[real]

    def _read(self, path: str, real: Path, span: Span | None) -> Module | None:
        source = read_source(path, self.diagnostics, span, real)
        if source is None:
            return None
        self._bytes += len(source.text.encode())
        if self._bytes > TOTAL_LIMIT:
            self.diagnostics.add("MX003", span, "the spec and its imports exceed 512 KiB")
            return None
        return self.module(source, real)

    def module(self, source: Source, real: Path) -> Module:
        """The module of a text that has been read."""
        file, problems = parse(source)
        self.diagnostics.extend(problems)
        imported = Env({}, self.prelude)
        module = Module(source, file, Env({}, imported))
        self._check_names(file)
        define_all(file, module.env)
        malformed = {item.span.start for item in problems if item.code == "MX105" and item.span}
        if problems.errors:
            module.broken = self._broken(source)
            for name in module.broken - _sound(file):
                imported.names[name] = Thunk(ast.Name(file.span, name), imported, failed=True)
        for statement in file.statements:
            if isinstance(statement, ast.Import):
                span = statement.path.span
                if malformed.isdisjoint(range(span.start, span.end)):
                    self._import(statement, module, imported, real)
            elif isinstance(statement, ast.Model):
                module.models.append(statement)
        return module

    def _broken(self, source: Source) -> frozenset[str]:
        """Names that a file with syntax errors may have meant to define: their use is no error."""
        provided = registry.constructors().keys() | self.prelude.names.keys()
        heads = HEAD.findall(source.text)
        return frozenset(name for keyword, name in heads if keyword or name not in provided)

    def _import(
        self, statement: ast.Import, module: Module, imported: Env, importer: Path
    ) -> None:
        target = resolve_import(statement.path, importer, self.root, self.diagnostics)
        if target is None:
            return
        folder = os.path.dirname(module.source.path)
        shown = os.path.normpath(os.path.join(folder, statement.path.value))
        other = self.load(shown, target, statement.path.span)
        if other is None or other in module.imports:
            return
        module.imports.append(other)
        twice = [
            name
            for name in other.env.names
            if name in imported.names
            and name not in module.env.names
            and name not in module.broken
        ]
        if twice:
            names = ", ".join(f"`{name}`" for name in twice[:10])
            self.diagnostics.add(
                "MX006", statement.path.span, f"{names} comes from another import too",
                help="rename one of them, or define the name in this file",
            )
        imported.names = {**other.env.names, **imported.names}

    def _check_names(self, file: ast.File) -> None:
        """Names of definitions: not reserved, each once."""
        seen: dict[str, Span] = {}
        models: dict[str, Span] = {}
        for statement in file.statements:
            if isinstance(statement, ast.Import):
                continue
            scope = models if isinstance(statement, ast.Model) else seen
            check_name(statement.name, scope, self.diagnostics)


def _sound(file: ast.File) -> set[str]:
    """Names that some statement of a file defines."""
    found: set[str] = set()
    for statement in file.statements:
        if isinstance(statement, ast.Model):
            found.update(item.name.id for item in statement.items if isinstance(item, ast.Let))
        elif not isinstance(statement, ast.Import):
            found.add(statement.name.id)
    return found


def check_name(name: ast.Name, seen: dict[str, Span], diagnostics: Diagnostics) -> None:
    """A defined name is free: neither reserved nor taken in its scope."""
    if name.id in RESERVED:
        diagnostics.add("MX205", name.span, f"`{name.id}` is a name of the language",
                        help="choose another name")
    elif name.id in seen:
        diagnostics.add("MX204", name.span, f"`{name.id}` is defined twice",
                        notes=(Note("the first definition", seen[name.id]),))
    seen.setdefault(name.id, name.span)


def define_all(file: ast.File, env: Env) -> None:
    """Bind the definitions of a file, the first of each name."""
    for statement in file.statements:
        if isinstance(statement, Definition) and statement.name.id not in env.names:
            env.names[statement.name.id] = define(statement, env)


def define(
    statement: Definition, env: Env
) -> Thunk | Closure | BlockValue | RecurrenceRule:
    """What a definition binds its name to."""
    name = statement.name.id
    match statement:
        case ast.BlockDef():
            origin = Origin(statement.name.span, label=name)
            return BlockValue(definition=statement, env=env, origin=origin)
        case ast.RecurrenceDef():
            return RecurrenceRule(statement, env)
        case ast.Let(parameters=None) | ast.MixerDef(parameters=None):
            return Thunk(statement.value, env, label=name, span=statement.name.span)
        case ast.Let() | ast.MixerDef():
            assert statement.parameters is not None
            return Closure(name, statement.parameters, statement.value, env, statement.name.span)
