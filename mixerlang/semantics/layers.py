"""The layers of a model: the list with its exceptions, and each layer as a program."""

from __future__ import annotations

from collections.abc import Mapping

from ..primitives import Term
from ..primitives import combine as c
from ..primitives.model import ModelFields
from ..source import Span
from ..syntax import ast
from .dataflow import X0, Builder, Program, X
from .evaluate import Evaluator
from .expect import INTEGER, list_of, of_kinds
from .report import listed
from .resolved import ResolvedLayer
from .values import BROKEN, BlockValue, Broken, Env, Failed, Stream

LAYER = of_kinds("mixer", "layer", "none")
LAYERS = list_of(LAYER)
STREAM = of_kinds("stream", "none")


class Layers:
    """Evaluates the layers of one model in its scope."""

    def __init__(self, evaluator: Evaluator, env: Env) -> None:
        self.evaluator = evaluator
        self.env = env

    # ----------------------------------------------------------------------------- the list

    def terms(self, value: ast.Expr, overrides: list[ast.Override]) -> list[Term | Broken]:
        """The list with its exceptions; BROKEN for a layer without a value. Raises Failed where
        there is no list."""
        replacements = [self._replacement(override) for override in overrides]
        layers = list(self.evaluator.evaluate(value, self.env, LAYERS))
        if not layers:
            self.evaluator.fail("MX302", value.span, "a model needs at least one layer")
        for override, layer in zip(overrides, replacements, strict=True):
            for index in override.indices:
                self._replace(layers, index, layer)
        return layers

    def _replacement(self, override: ast.Override) -> Term | Broken:
        try:
            term: Term = self.evaluator.evaluate(override.value, self.env, LAYER)
        except Failed:
            return BROKEN
        return term

    def _replace(
        self, layers: list[Term | Broken], index: ast.Expr | ast.Slice, layer: Term | Broken
    ) -> None:
        try:
            places = self._places(index, len(layers))
        except Failed:
            return
        for place in places:
            layers[place] = layer

    def _places(self, index: ast.Expr | ast.Slice, count: int) -> range:
        if isinstance(index, ast.Slice):
            return self._slice(index, count)
        place = self._index(index)
        if not -count <= place < count:
            self.evaluator.fail("MX308", index.span, f"there is no layer {place}",
                                help=f"the model has {count} layers: 0 to {count - 1}")
        return range(place % count, place % count + 1)

    def _slice(self, index: ast.Slice, count: int) -> range:
        start, stop, step = (
            None if part is None else self._index(part)
            for part in (index.start, index.stop, index.step)
        )
        if step == 0:
            self.evaluator.fail("MX306", index.span, "the step of a slice is not 0")
        places = range(*slice(start, stop, step).indices(count))
        if not places:
            self.evaluator.fail("MX308", index.span, "this slice holds no layer",
                                help=f"the model has {count} layers: 0 to {count - 1}")
        self.evaluator.spend(len(places), index.span)
        return places

    def _index(self, expr: ast.Expr) -> int:
        value: int = self.evaluator.evaluate(expr, self.env, INTEGER)
        return value

    # ------------------------------------------------------------------------------- programs

    def resolve(
        self, terms: list[Term | Broken], fields: ModelFields, block: BlockValue, place: Span
    ) -> list[ResolvedLayer]:
        """Every layer that has a program; the same object for the same term.

        place: what asks for the block of the model.
        """
        known: dict[int, ResolvedLayer | None] = {id(BROKEN): None}
        for term in terms:
            if not isinstance(term, Broken) and id(term) not in known:
                known[id(term)] = self._layer(term, fields, block, place)
        layers = [layer for layer in (known[id(term)] for term in terms) if layer is not None]
        nodes = sum(len(layer.program.steps) for layer in layers)
        self.evaluator.budget.place(nodes, place, self.evaluator.report)
        return layers

    def _layer(
        self, term: Term, fields: ModelFields, block: BlockValue, place: Span
    ) -> ResolvedLayer | None:
        value, tie = term, None
        if isinstance(term, c.Tied) and isinstance(term.value, c.Layer):
            value, tie = term.value, term.identity
        layer = value if isinstance(value, c.Layer) else c.Layer(mixer=value, origin=value.origin)
        if isinstance(layer.block, BlockValue):
            block, place = layer.block, layer.origin.of("block") or place
        span = term.origin.span or place
        builder = Builder(fields.dim, lambda steps: self.evaluator.spend(steps, span))
        if tie is not None:
            builder.enter_tie(tie)
        try:
            program = self._program(block, place, _parts(layer, fields), builder)
        except Failed:
            return None
        label = term.origin.label or value.origin.label or _label(layer.mixer)
        return ResolvedLayer(program, label, term.origin.span)

    def _program(
        self, block: BlockValue, place: Span, parts: Mapping[str, Term], builder: Builder
    ) -> Program:
        """A block evaluated with streams for x and x0."""
        streams = {"x": Stream(X), "x0": Stream(X0)}
        local = Env({**streams, **parts}, block.env)
        missing = self.evaluator.calls.fill(local, block.further, dict(block.given))
        if missing:
            name, needs = block.definition.name.id, [p.name.id for p in missing]
            self.evaluator.fail(
                "MX303", place, f"block `{name}` needs {listed(f'`{n}`' for n in needs)}",
                help=f"write {name}({', '.join(f'{n}=...' for n in needs)})")
        self.evaluator.builder = builder
        self.evaluator.report.calls.append(place)
        try:
            for line in block.definition.body:
                self._line(line, local)
        finally:
            self.evaluator.builder = None
            self.evaluator.report.calls.pop()
        x = local.names["x"]
        assert isinstance(x, Stream), x
        return builder.program(x)

    def _line(self, line: ast.Assign, local: Env) -> None:
        name = line.target.id
        value = self.evaluator.evaluate(line.value, local, STREAM)
        if line.op == "+=":
            before = local.names.get(name)
            if not isinstance(before, Stream | c.NoTerm):
                self.evaluator.fail("MX201", line.target.span, f"`{name}` has no value to add to",
                                    help=f"write {name} = ... first")
            value = self.evaluator.combine("+", before, value, line.span)
        if name == "x" and not isinstance(value, Stream):
            self.evaluator.fail("MX409", line.span, "the block sets x to nothing",
                                help="write x += ..., so that x itself goes on")
        local.names[name] = value


def _parts(layer: c.Layer, fields: ModelFields) -> dict[str, Term]:
    """What the layer hands to its block: its own, else the model's. No norm is the identity."""
    norm = layer.norm or fields.norm
    return {
        "mixer": layer.mixer,
        "ffn": layer.ffn or fields.ffn or c.NoTerm(),
        "norm": c.Chain(parts=()) if norm is None or isinstance(norm, c.NoTerm) else norm,
    }


def _label(mixer: Term) -> str:
    while isinstance(mixer, c.Tied) and not mixer.origin.label:
        mixer = mixer.value
    return mixer.origin.label or type(mixer).word or "layer"
