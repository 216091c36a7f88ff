"""From a path to resolved models: the front door of the language."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..diagnostics import Diagnostics
from ..diagnostics.suggest import did_you_mean
from ..source import Source
from ..syntax import ast
from .files import printable
from .model import ModelResolver
from .modules import Loader, Module
from .names import Names
from .resolved import ResolvedModel


@dataclass(frozen=True)
class Project:
    """A file, everything it imports, and the models it holds that have no error of their own."""

    path: str
    module: Module | None
    diagnostics: Diagnostics

    @property
    def sources(self) -> list[Source]:
        """The files of the spec, the one given first."""
        return [] if self.module is None else self.module.files()

    @property
    def models(self) -> dict[str, ast.Model]:
        if self.module is None:
            return {}
        return {model.name.id: model for model in reversed(self.module.models)}

    def resolve(
        self, model: ast.Model, settings: Mapping[str, Any] | None = None
    ) -> ResolvedModel | None:
        """One model with its params set; what is wrong goes to `diagnostics`."""
        assert self.module is not None
        return ModelResolver(self.module, model, settings or {}, self.diagnostics).resolve()

    def choose(self, name: str | None) -> ast.Model | None:
        """The model of a name, or the only one."""
        models = self.models
        if name is None and len(models) == 1:
            return next(iter(models.values()))
        if name in models:
            return models[name]
        listed = ", ".join(sorted(models))
        if name is not None:
            help = did_you_mean(name, models) or (f"it holds {listed}" if listed else None)
            text = f"`{printable(self.path)}` has no model `{printable(name)[:60]}`"
        elif models:
            help = f"choose one: {printable(self.path)}:{next(iter(sorted(models)))}"
            text = f"`{printable(self.path)}` holds several models: {listed}"
        else:
            help, text = "write model name { ... }", f"`{printable(self.path)}` holds no model"
        if self.module is not None:
            self.diagnostics.add("MX207", None, text, help=help)
        return None


def split_spec(spec: str | os.PathLike[str]) -> tuple[str, str | None]:
    """"file.mix:model" to its parts; a path that exists as it stands is a path."""
    text = os.fspath(spec)
    path, colon, name = text.rpartition(":")
    if colon and path and name.isidentifier() and not os.path.exists(text):
        return path, name
    return text, None


def open_project(path: str, root: str | os.PathLike[str] | None = None) -> Project:
    """Read a file and its imports. Imports stay inside `root`, by default the file's folder."""
    diagnostics = Diagnostics()
    real = Path(os.path.realpath(path)) if "\0" not in path else Path(path)
    bound = Path(os.path.realpath(root)) if root is not None else real.parent
    loader = Loader(bound, diagnostics)
    module = loader.load(path, real)
    return _checked(Project(path, module, diagnostics))


def open_text(text: str, path: str = "<text>") -> Project:
    """A project of one text, which may import nothing."""
    diagnostics = Diagnostics()
    loader = Loader(Path(os.devnull), diagnostics)
    module = loader.module(Source(path, text), Path(os.devnull))
    return _checked(Project(path, module, diagnostics))


def _checked(project: Project) -> Project:
    if project.module is not None:
        for module in [project.module, *_imported(project.module)]:
            Names(module, project.diagnostics)
    return project


def _imported(module: Module) -> list[Module]:
    found: list[Module] = []
    stack = list(module.imports)
    while stack:
        other = stack.pop()
        if other not in found:
            found.append(other)
            stack.extend(other.imports)
    return found
