"""One model of a file: params, fields, layers with their exceptions, blocks as programs."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from ..diagnostics import Diagnostics
from ..diagnostics.suggest import did_you_mean
from ..primitives import Term
from ..primitives import combine as c
from ..primitives.base import Origin
from ..primitives.model import ModelFields
from ..source import Source, Span
from ..syntax import ast, parse
from .arithmetic import LIST_LIMIT
from .call import BLOCK_PARTS, as_python, bound_text
from .dataflow import X, X0, Builder, Program
from .evaluate import Evaluator
from .expect import Expect, fields_of, list_of, of_kinds
from .modules import Module, check_name, define
from .report import Reporter
from .resolved import ResolvedLayer, ResolvedModel
from .values import BlockValue, Env, Failed, Stream, Thunk

LAYER = of_kinds("mixer", "layer", "none")
LAYERS = list_of(LAYER)
BLOCK = of_kinds("block")
STREAM = of_kinds("stream", "none")
DEFAULT_BLOCK = "prenorm"


class ModelResolver:
    """Resolves one model. `settings`: values for its params, as text or Python numbers."""

    def __init__(
        self, module: Module, model: ast.Model, settings: Mapping[str, Any], found: Diagnostics
    ) -> None:
        self.model = model
        self.report = Reporter(found)
        self.evaluator = Evaluator(self.report)
        self.env = Env({}, module.env)
        self.settings = dict(settings)
        self.fields: dict[str, ast.Field] = {}
        self.params: dict[str, ast.Parameter] = {}
        self.overrides: list[ast.Override] = []
        self._programs: dict[tuple[int, ...], Program] = {}
        self._held: list[Any] = []

    def resolve(self) -> ResolvedModel | None:
        """The resolved model; None where something is wrong, which has been reported."""
        self._collect()
        self._set_params()
        layers = self._attempt(self._layers)
        block = self._attempt(self._block)
        fields = self._attempt(self._fields)
        params = {name: self._attempt(lambda n=name: self._param(n)) for name in self.params}
        if layers is None or block is None or fields is None:
            return None
        resolved = self._attempt(lambda: self._programs_of(layers, fields, block))
        self._unused()
        if resolved is None:
            return None
        return ResolvedModel(self.model.name.id, fields, params, resolved, self.model.name.span)

    def _attempt(self, action: Any) -> Any:
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
                    self.params.setdefault(item.parameter.name.id, item.parameter)
                case ast.Let():
                    check_name(item.name, seen, found)
                    self.env.names.setdefault(item.name.id, define(item, self.env))
                case ast.Field():
                    self._field(item)
                case ast.Override():
                    self._override(item)

    def _field(self, item: ast.Field) -> None:
        name = item.name.id
        known = [*fields_of(ModelFields), "layers", "block"]
        if name not in known:
            help = did_you_mean(name, known) or f"fields: {', '.join(known)}; or write `let`"
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

    # -------------------------------------------------------------------------------- params

    def _set_params(self) -> None:
        for name in self.settings:
            if name not in self.params:
                help = did_you_mean(name, self.params) or (
                    f"its params: {', '.join(self.params)}" if self.params else "it has no params")
                self.report("MX208", self.model.name.span,
                            f"model `{self.model.name.id}` has no param `{name[:60]}`", help=help)
        for name, parameter in self.params.items():
            thunk = self._bind_param(name, parameter)
            if thunk is not None:
                self.env.names.setdefault(name, thunk)

    def _bind_param(self, name: str, parameter: ast.Parameter) -> Thunk | None:
        annotation = self.evaluator.calls.annotation(parameter)
        expr = parameter.default
        if name in self.settings:
            expr = self._setting(name, self.settings[name])
        elif expr is None:
            self.report("MX307", parameter.span, f"param `{name}` has no value",
                        help=f"give it a default, or --set {name}=VALUE")
        if expr is None:
            return None
        return Thunk(expr, self.env, None, False, annotation, parameter.range,
                     span=parameter.name.span)

    def _setting(self, name: str, value: Any) -> ast.Expr | None:
        """A value from outside as an expression of its own source."""
        text = str(value).lower() if isinstance(value, bool) else str(value)
        source = Source(f"--set {name}", f"let value = {text}")
        file, problems = parse(source)
        match file.statements:
            case (ast.Let(parameters=None, value=expr),) if not problems.errors:
                return expr
        self.report("MX301", self.params[name].span,
                    f"the value set for `{name}` is not one expression: {text[:60]!r}")
        return None

    def _param(self, name: str) -> Any:
        thunk = self.env.names.get(name)
        if not isinstance(thunk, Thunk):
            return None
        used = thunk.used
        value = self.evaluator.force(thunk, Expect(), self.params[name].span)
        thunk.used = used
        return float(value) if isinstance(value, Fraction) else value

    def _unused(self) -> None:
        """Warn of what nothing reads; beside errors it may only look unread."""
        if self.report.diagnostics.errors:
            return
        for name, thunk in self.env.names.items():
            if isinstance(thunk, Thunk) and not thunk.used and thunk.span is not None:
                if name in self.params:
                    self.report("MX408", thunk.span, f"nothing reads the param `{name}`")
                else:
                    self.report("MX210", thunk.span, f"`{name}` is never used")

    # -------------------------------------------------------------------------------- fields

    def _fields(self) -> ModelFields:
        values: dict[str, Any] = {}
        spans: dict[str, Span] = {}
        failed = False
        expects = fields_of(ModelFields)
        for name, item in self.fields.items():
            if name not in expects:
                continue
            spans[name] = item.value.span
            try:
                value = self.evaluator.evaluate(item.value, self.env, expects[name])
                values[name] = as_python(value, expects[name])
            except Failed:
                failed = True
        for name, info in ModelFields.model_fields.items():
            if info.is_required() and name not in spans:
                self.report("MX309", self.model.name.span,
                            f"model `{self.model.name.id}` has no `{name}`",
                            help=f"{name} = ...  # {info.description}")
                failed = True
        if failed:
            raise Failed
        return self._validated(values, Origin(self.model.name.span, spans))

    def _validated(self, values: dict[str, Any], origin: Origin) -> ModelFields:
        from pydantic import ValidationError

        try:
            fields = ModelFields(**values, origin=origin)
        except ValidationError as error:
            for problem in error.errors(include_url=False):
                name = str(problem["loc"][0])
                self.report("MX302", origin.of(name), f"`{name}` {bound_text(problem)}")
            raise Failed from None
        if "final_norm" not in values:
            fields = fields.replace(final_norm=fields.norm)
        return fields

    # -------------------------------------------------------------------------------- layers

    def _layers(self) -> list[Term]:
        item = self.fields.get("layers")
        if item is None:
            self.report("MX309", self.model.name.span,
                        f"model `{self.model.name.id}` has no `layers`",
                        help="layers = [mixer, ...] * n")
            raise Failed
        layers = list(self.evaluator.evaluate(item.value, self.env, LAYERS))
        if not layers:
            self.report("MX302", item.value.span, "a model needs at least one layer")
            raise Failed
        failed = False
        for override in self.overrides:
            try:
                self._except(layers, override)
            except Failed:
                failed = True
        if failed:
            raise Failed
        return layers

    def _except(self, layers: list[Term], override: ast.Override) -> None:
        value = self.evaluator.evaluate(override.value, self.env, LAYER)
        for index in override.indices:
            for place in self._places(index, len(layers)):
                layers[place] = value

    def _places(self, index: ast.Expr | ast.Slice, count: int) -> range:
        if isinstance(index, ast.Slice):
            start, stop, step = (
                None if part is None else self._index(part)
                for part in (index.start, index.stop, index.step)
            )
            if step == 0:
                self.evaluator.fail("MX306", index.span, "the step of a slice is not 0")
            places = range(*slice(start, stop, step).indices(count))
            if not places:
                self.evaluator.fail("MX308", index.span, f"no layer of {count} is meant")
            return places
        place = self._index(index)
        if not -count <= place < count:
            self.evaluator.fail("MX308", index.span, f"there is no layer {place}",
                                help=f"the model has {count} layers: 0 to {count - 1}")
        return range(place % count, place % count + 1)

    def _index(self, expr: ast.Expr) -> int:
        value: int = self.evaluator.evaluate(expr, self.env, of_kinds("integer"))
        return value

    # ------------------------------------------------------------------------------- programs

    def _block(self) -> BlockValue:
        item = self.fields.get("block")
        value: BlockValue
        if item is not None:
            value = self.evaluator.evaluate(item.value, self.env, BLOCK)
        else:
            value = self.env.find(DEFAULT_BLOCK)
        return value

    def _programs_of(
        self, layers: list[Term], fields: ModelFields, block: BlockValue
    ) -> tuple[ResolvedLayer, ...]:
        if len(layers) > LIST_LIMIT:
            raise Failed
        known: dict[int, ResolvedLayer | None] = {}
        for term in layers:
            if id(term) not in known:
                known[id(term)] = self._attempt(lambda t=term: self._layer(t, fields, block))
        found = [known[id(term)] for term in layers]
        if any(layer is None for layer in found):
            raise Failed
        return tuple(layer for layer in found if layer is not None)

    def _layer(self, term: Term, fields: ModelFields, block: BlockValue) -> ResolvedLayer:
        value, tie = term, None
        if isinstance(term, c.Tied) and isinstance(term.value, c.Layer):
            value, tie = term.value, term.identity
        layer = value if isinstance(value, c.Layer) else c.Layer(mixer=value, origin=value.origin)
        parts = {
            "mixer": layer.mixer,
            "ffn": layer.ffn or fields.ffn or c.NoTerm(),
            "norm": layer.norm or fields.norm,
        }
        chosen = layer.block if isinstance(layer.block, BlockValue) else block
        program = self._program(chosen, parts, fields.dim, tie)
        label = term.origin.label or value.origin.label or _label(layer.mixer)
        return ResolvedLayer(program, label, term.origin.span)

    def _program(
        self, block: BlockValue, parts: Mapping[str, Any], dim: int, tie: int | None
    ) -> Program:
        """A block evaluated with streams for x and x0."""
        builder = Builder(dim)
        streams = {"x": Stream(X), "x0": Stream(X0)}
        norm = parts["norm"] or c.Chain(parts=())
        names = {**streams, **parts, "norm": norm}
        local = Env(dict(names), block.env)
        for parameter in block.definition.parameters:
            key = parameter.name.id
            if key in BLOCK_PARTS:
                continue
            annotation = self.evaluator.calls.annotation(parameter)
            if key in block.given:
                local.names[key] = block.given[key]
            elif parameter.default is not None:
                local.names[key] = Thunk(parameter.default, block.env, annotation=annotation)
            else:
                self.report("MX303", block.definition.name.span,
                            f"block `{block.definition.name.id}` needs `{key}`",
                            help=f"write block = {block.definition.name.id}({key}=...)")
                raise Failed
        if tie is not None:
            builder.enter_tie(tie)
        self.evaluator.builder = builder
        try:
            for line in block.definition.body:
                self._line(line, local)
        finally:
            self.evaluator.builder = None
        return builder.program(local.names["x"])

    def _line(self, line: ast.Assign, local: Env) -> None:
        value = self.evaluator.evaluate(line.value, local, STREAM)
        if line.op == "+=":
            before = local.names.get(line.target.id)
            if not isinstance(before, Stream | c.NoTerm):
                self.evaluator.fail("MX201", line.target.span,
                                    f"`{line.target.id}` has no value to add to",
                                    help=f"write {line.target.id} = ... first")
            value = self.evaluator.combine("+", before, value, line.span)
        if line.target.id == "x" and not isinstance(value, Stream):
            self.evaluator.fail("MX409", line.span, "the block sets x to nothing",
                                help="write x += ..., so that x itself goes on")
        local.names[line.target.id] = value


def _label(mixer: Term) -> str:
    return mixer.origin.label or type(mixer).word or "layer"
