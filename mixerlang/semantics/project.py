"""From a path to resolved models: the front door of the language."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..diagnostics import Diagnostics
from ..diagnostics.suggest import did_you_mean
from ..source import Source
from ..syntax import ast
from .budget import Budget
from .files import printable
from .model import ModelResolver
from .modules import Loader, Module
from .names import Names
from .resolved import ResolvedModel


@dataclass(frozen=True)
class Project:
    """A file, everything it imports, and the models it holds."""

    path: str
    module: Module | None
    diagnostics: Diagnostics
    budget: Budget = field(default_factory=Budget)

    @property
    def sources(self) -> list[Source]:
        """The files of the spec, the one given first."""
        return [] if self.module is None else [module.source for module in self.module.all()]

    @property
    def models(self) -> dict[str, ast.Model]:
        """By name, in the order of the file; of two with one name the first."""
        found: dict[str, ast.Model] = {}
        for model in [] if self.module is None else self.module.models:
            found.setdefault(model.name.id, model)
        return found

    def resolve(
        self, model: ast.Model, settings: Mapping[str, Any] | None = None
    ) -> ResolvedModel | None:
        """One model with its params set; what is wrong goes to `diagnostics`."""
        assert self.module is not None
        resolver = ModelResolver(self.module, model, settings or {}, self.diagnostics, self.budget)
        return resolver.resolve()

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
        if not self._is_broken(name):
            self.diagnostics.add("MX207", None, text, help=help)
        return None

    def _is_broken(self, name: str | None) -> bool:
        """Whether what is reported already may be why there is no such model."""
        if self.module is None:
            return True
        return bool(self.module.broken) if name is None else name in self.module.broken


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
    try:
        real = Path(os.path.realpath(path))
    except ValueError:  # no path at all: reading it says so
        real = Path(path)
    bound = Path(os.path.realpath(root)) if root is not None else real.parent
    loader = Loader(bound, diagnostics)
    return _checked(Project(path, loader.load(path, real), diagnostics))


def open_text(text: str, path: str = "<text>") -> Project:
    """A project of one text, which may import nothing."""
    diagnostics = Diagnostics()
    loader = Loader(Path(os.devnull), diagnostics)
    module = loader.module(Source(path, text), Path(os.devnull))
    return _checked(Project(path, module, diagnostics))


def _checked(project: Project) -> Project:
    if project.module is not None:
        for module in project.module.all():
            Names(module, project.diagnostics)
    return project
