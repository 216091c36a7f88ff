"""From a resolved model to its typed graph."""

from __future__ import annotations

import re
from collections import Counter

from ..diagnostics import Diagnostics
from ..primitives import Mixer, Op, Report, Term
from ..primitives.attention import Reuse
from ..primitives.ffn import Ffn
from ..primitives.keep import ReuseKeep
from ..primitives.model import Embedding, Head
from ..primitives.norm import Norm
from ..primitives.pointwise import Concat
from ..semantics.dataflow import Program, Step
from ..semantics.report import Reporter
from ..semantics.resolved import ResolvedLayer, ResolvedModel
from ..source import Span
from .graph import Graph, LayerInfo, Node, TensorType, Tokens, stream
from .passes.context import check_context
from .passes.reuse import check_reuse

WIDTH_LIMIT = 2**31
IDS = TensorType(("B", "T"))


def build(model: ResolvedModel, diagnostics: Diagnostics) -> Graph:
    """The graph of a model. What does not fit together is reported, and the graph is then not to
    be used."""
    return _Builder(model, Reporter(diagnostics)).build()


class _Builder:
    def __init__(self, model: ResolvedModel, report: Report) -> None:
        self.model = model
        self.report = report
        self.graph = Graph(model.name, model.fields, dict(model.params), model.span)
        self._bound: dict[tuple[int, int], Op] = {}
        self._names: dict[int, list[str]] = {}
        self._owners: dict[tuple[int, int], str] = {}

    def build(self) -> Graph:
        fields = self.model.fields
        place = fields.origin.of
        self._place("tokens", Tokens(), None, (), place("vocab"))
        embedding = Embedding(vocab=fields.vocab, dim=fields.dim, scale=fields.embedding_scale,
                              dropout=fields.dropout, origin=fields.origin)
        last = self._place("embedding", embedding, None, ("tokens",), place("vocab"))
        for index, layer in enumerate(self.model.layers):
            last = self._layer(index, layer, last)
        if fields.final_norm is not None:
            last = self._place("final_norm", fields.final_norm, None, (last,), place("final_norm"))
        head = Head(vocab=fields.vocab, tied=fields.tie_embeddings, scale=fields.logit_scale,
                    softcap=fields.logit_softcap, origin=fields.origin)
        self._place("head", head, None, (last,), place("tie_embeddings"))
        if not self.model.partial:
            check_reuse(self.graph, self.report)
        check_context(self._bound.values(), fields.context, self.report)
        return self.graph

    def _layer(self, index: int, layer: ResolvedLayer, last: str) -> str:
        """Add the nodes of a layer; the id of the node that its x leaves from."""
        program = layer.program
        ids: list[str] = [last, "embedding"]
        nodes: list[str] = []
        for step, name in zip(program.steps, self._step_names(program), strict=True):
            id = f"layers.{index}.{name}"
            inputs = tuple(ids[value] for value in step.inputs)
            self._add_step(id, name, step, index, inputs)
            ids.append(id)
            nodes.append(id)
        output = ids[program.output]
        if self.graph[output].type.width != self.model.fields.dim:
            self.report("MX401", layer.span,
                        f"the layer gives {self.graph[output].type.width} channels and the next "
                        f"one takes {self.model.fields.dim}",
                        help="end the block with linear(..., out=dim)")
            output = last  # so that the next layer is looked at by itself
        self.graph.layers.append(
            LayerInfo(index, layer.label, tuple(nodes), last, output, layer.span))
        return output

    def _add_step(
        self, id: str, name: str, step: Step, layer: int, inputs: tuple[str, ...]
    ) -> None:
        weights = id if step.tie is None else self._owners.setdefault(step.tie, id)
        self._place(id, step.op, layer, inputs, step.span, name, weights)
        if weights != id:
            owned, used = (self.graph.width(self.graph[node]) for node in (weights, id))
            if owned != used:
                self.report("MX401", step.span,
                            f"tied weights for {owned} channels cannot be used on {used}")

    def _place(
        self,
        id: str,
        op: Op,
        layer: int | None,
        inputs: tuple[str, ...],
        span: Span | None,
        name: str | None = None,
        weights: str | None = None,
    ) -> str:
        widths = [self._width(source) for source in inputs]
        bound = self._bind(op, widths[0] if widths else 0)
        if len(set(widths)) > 1 and not isinstance(bound, Concat):
            sizes = " and ".join(str(width) for width in widths)
            self.report("MX401", span, f"streams of {sizes} channels do not go together")
        out = stream(self._bounded(bound.output_width(*widths), span)) if inputs else IDS
        node = Node(id, name or id, bound, layer, weights or id, out, span)
        self.graph.add(node, inputs)
        return id

    def _bounded(self, width: int, span: Span | None) -> int:
        if width < WIDTH_LIMIT:
            return width
        self.report("MX013", span, "a stream has fewer than 2^31 channels")
        return 1

    def _width(self, source: str) -> int:
        last = self.graph[source].type.axes[-1]
        return last if isinstance(last, int) else 0

    def _bind(self, op: Op, width: int) -> Op:
        """A bound op, the same object for the same op at the same width."""
        key = (id(op), width)
        if key not in self._bound:
            self._ready(op)
            self._bound[key] = op.bind(width, self.report)
        return self._bound[key]

    def _ready(self, term: Term) -> None:
        """What the language accepts and no layer implements yet; reuse has a pass of its own."""
        if not term.ready and not isinstance(term, Reuse | ReuseKeep):
            self.report("MX501", term.origin.span, f"`{term.word}` is not implemented yet",
                        help="the language accepts it; no backend can run it so far")
        for child in term.children():
            self._ready(child)

    def _step_names(self, program: Program) -> list[str]:
        if id(program) not in self._names:
            self._names[id(program)] = step_names(program)
        return self._names[id(program)]


def step_names(program: Program) -> list[str]:
    """Names of a layer's nodes: mixer, ffn (numbered where there are several), norm1, add1."""
    stems = [_stem(step.op) for step in program.steps]
    totals = Counter(stems)
    counts: Counter[str] = Counter()
    names = []
    for stem in stems:
        counts[stem] += 1
        alone = totals[stem] == 1 and stem in ("mixer", "ffn")
        names.append(stem if alone else f"{stem}{counts[stem]}")
    return names


def _stem(op: Op) -> str:
    for kind, stem in ((Mixer, "mixer"), (Norm, "norm"), (Ffn, "ffn")):
        if isinstance(op, kind):
            return stem
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(op).__name__).lower()
