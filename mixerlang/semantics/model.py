"""One model of a file: its params, fields and layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..diagnostics import Diagnostics
from ..diagnostics.suggest import nearest
from ..primitives import Term
from ..primitives.base import Origin
from ..primitives.model import ModelFields
from ..source import Span
from ..syntax import ast
from .budget import Budget
from .construct import as_python, validated
from .evaluate import Evaluator
from .expect import fields_of, of_kinds
from .layers import Layers
from .modules import Module, check_name, define
from .params import Params
from .report import Reporter, listed
from .resolved import ResolvedModel
from .values import BlockValue, Broken, Env, Failed, Thunk

BLOCK = of_kinds("block")
DEFAULT_BLOCK = "prenorm"
FIELDS = (*fields_of(ModelFields), "layers", "block")
REQUIRED = (*(n for n, f in ModelFields.model_fields.items() if f.is_required()), "layers")
UNBOUNDED = {"vocab": 1, "context": 2**31 - 1}
"""In the place of a field without a value, so that the layers can still be looked at."""

T = TypeVar("T")


class ModelResolver:
    """Resolves one model. `settings`: values for its params, as text or Python numbers."""

    def __init__(
        self,
        module: Module,
        model: ast.Model,
        settings: Mapping[str, Any],
        found: Diagnostics,
        budget: Budget,
    ) -> None:
        self.module = module
        self.model = model
        self.report = Reporter(found)
        self.evaluator = Evaluator(self.report, budget)
        self.env = Env({}, module.env)
        self.params = Params(self.evaluator, self.env, settings)
        self.layers = Layers(self.evaluator, self.env)
        self.fields: dict[str, ast.Field] = {}
        self.overrides: list[ast.Override] = []
        self._meant: set[str] = set()

    def resolve(self) -> ResolvedModel | None:
        """The resolved model; None where too little of it is sound. What is wrong has been
        reported; then the model holds the layers that could be resolved, to be looked at."""
        self._collect()
        self.params.bind(self.model, self.module.broken)
        self._missing()
        fields = self._attempt(self._fields)
        terms = self._attempt(self._terms)
        block = self._attempt(self._block)
        params = self.params.values()
        if fields is None or terms is None or block is None:
            return None
        layers = self._attempt(lambda: self.layers.resolve(terms, fields, block, self._place))
        self._unused()
        if layers is None:
            return None
        span = self.model.name.span
        partial = len(layers) < len(terms)
        return ResolvedModel(self.model.name.id, fields, params, tuple(layers), span, partial)

    @property
    def _place(self) -> Span:
        """What asks for the model's block."""
        item = self.fields.get("block")
        return self.model.name.span if item is None else item.value.span

    def _attempt(self, action: Callable[[], T]) -> T | None:
        try:
            return action()
        except Failed:
            return None

    # ---------------------------------------------------------------------------- statements

    def _collect(self) -> None:
        seen: dict[str, Span] = {}
        found = self.report.diagnostics
        for item in self.model.items:
            match item:
                case ast.Param():
                    check_name(item.parameter.name, seen, found)
                case ast.Let():
                    check_name(item.name, seen, found)
                    self.env.names.setdefault(item.name.id, define(item, self.env))
                case ast.Field():
                    self._field(item)
                case ast.Override():
                    self._override(item)

    def _field(self, item: ast.Field) -> None:
        name = item.name.id
        if name not in FIELDS:
            meant = nearest(name, FIELDS)
            help = f"fields: {', '.join(FIELDS)}; a value of your own is written with `let`"
            if meant is not None:
                self._meant.add(meant)
                help = f"did you mean `{meant}`?"
            self.report("MX203", item.name.span, f"a model has no field `{name}`", help=help)
        elif name in self.fields:
            self.report("MX204", item.name.span, f"`{name}` is given twice")
        else:
            self.fields[name] = item

    def _override(self, item: ast.Override) -> None:
        if item.target.id == "layers":
            self.overrides.append(item)
        else:
            self.report("MX203", item.target.span, "exceptions are written layers[...] = ...")

    def _missing(self) -> None:
        """Required fields that are absent, unless what was meant as one is reported already."""
        known = self.fields.keys() | self._meant | self.module.broken
        missing = [name for name in REQUIRED if name not in known]
        if missing:
            names = listed(f"`{name}`" for name in missing)
            self.report("MX309", self.model.name.span,
                        f"model `{self.model.name.id}` has no {names}",
                        help=" ".join(f"{name}: {_described(name)}" for name in missing))

    def _unused(self) -> None:
        """Warn of what nothing reads; beside errors it may only look unread."""
        if self.report.diagnostics.errors:
            return
        for name, thunk in self.env.names.items():
            if isinstance(thunk, Thunk) and not thunk.used and thunk.span is not None:
                if name in self.params.declared:
                    self.report("MX408", thunk.span, f"nothing reads the param `{name}`")
                else:
                    self.report("MX210", thunk.span, f"`{name}` is never used")

    # -------------------------------------------------------------------------------- fields

    def _fields(self) -> ModelFields:
        """Raises Failed without `dim`; what else has no value takes one that bounds nothing."""
        values: dict[str, Any] = dict(UNBOUNDED)
        spans: dict[str, Span] = {}
        for name, expect in fields_of(ModelFields).items():
            item = self.fields.get(name)
            if item is None:
                continue
            spans[name] = item.value.span
            try:
                value = self.evaluator.evaluate(item.value, self.env, expect)
                values[name] = as_python(value, expect)
            except Failed:
                continue
        origin = Origin(self.model.name.span, spans)
        fields = validated(ModelFields, values, origin, self.report)
        if fields is None:
            raise Failed
        return fields if "final_norm" in values else fields.replace(final_norm=fields.norm)

    def _terms(self) -> list[Term | Broken]:
        item = self.fields.get("layers")
        if item is None:
            raise Failed
        return self.layers.terms(item.value, self.overrides)

    def _block(self) -> BlockValue:
        """The model's block; by default prenorm, the file's own if it defines one."""
        item = self.fields.get("block")
        expr = ast.Name(self._place, DEFAULT_BLOCK) if item is None else item.value
        value: BlockValue = self.evaluator.evaluate(expr, self.env, BLOCK)
        return value


def _described(name: str) -> str:
    info = ModelFields.model_fields.get(name)
    return "A list: [mixer, ...] * n." if info is None else str(info.description)
