"""The kernels that a model's folder carries, rendered with the constants of its spec."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from textwrap import wrap
from typing import TYPE_CHECKING

from ..ir.graph import Graph
from ..primitives import keep as k
from ..primitives.attention import Attention, leaves, scorer_shapes
from ..primitives.base import Op
from ..primitives.norm import Alibi
from ..primitives.recurrence import Recurrence
from ..primitives.scan import Scan
from .expression import WIDTH
from .naming import enumerate_numbers, one_line, place_of
from .serve import Softmax, softmaxes

if TYPE_CHECKING:
    from ..kernels.attention.variant import Variant
    from ..kernels.scorer.network import Network


@dataclass(frozen=True)
class Source:
    """A rendered kernel: kernels/`room`/rendered/`stem`.py. notes: where its numbers come from."""

    room: str
    stem: str
    text: str
    notes: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        return f"kernels/{self.room}/rendered/{self.stem}.py"


def rendered(graph: Graph, header: Sequence[str] = ()) -> dict[str, bytes]:
    """The rendered files of a model by their path inside the folder.

    header: lines on what the folder was compiled from.
    """
    files: dict[str, bytes] = {}
    for source, users in _sources(graph).items():
        assert source.path not in files, f"{source.stem} names two kernels"
        lines = [f"For {users}.", *header, *source.notes]
        comment = "".join(f"# {line}\n" for each in lines for line in wrapped(each))
        files[source.path] = (comment + source.text).encode()
        about = f'"""Kernels of kernels/{source.room} for the sizes of this model."""\n'
        files[f"kernels/{source.room}/rendered/__init__.py"] = about.encode()
    return dict(sorted(files.items()))


def _sources(graph: Graph) -> dict[Source, str]:
    """Every rendered kernel, with what it is for: `lte (lalte.mix:12), layers 1, 3`."""
    users: dict[tuple[str, str | None], list[int]] = {}
    found: dict[Source, list[tuple[str, str | None]]] = {}
    of_op: dict[Op, list[Source]] = {}
    for layer in graph.layers:
        user = (layer.label, place_of(layer.span))
        users.setdefault(user, []).append(layer.index)
        for op in dict.fromkeys(graph[id].op for id in layer.nodes):
            if op not in of_op:
                of_op[op] = list(sources(op))
            for source in of_op[op]:
                found.setdefault(source, []).append(user)
    return {
        source: "; ".join(_spelled(*user, users[user]) for user in dict.fromkeys(own))
        for source, own in found.items()
    }


def wrapped(line: str) -> list[str]:
    """A line of a comment; a command stays whole, to be copied."""
    text = one_line(line)
    width = len(text) if " mixerlang " in text else WIDTH - len("# ")
    return wrap(text, width, subsequent_indent="  ")


def _spelled(label: str, place: str | None, indices: list[int]) -> str:
    where = f" ({place})" if place else ""
    return f"{label}{where}, layer{'s' * (len(indices) > 1)} {enumerate_numbers(indices)}"


def sources(op: Op) -> Iterator[Source]:
    """What a bound layer launches that is rendered."""
    from . import recurrences, scans

    if isinstance(op, Attention):
        yield from _of_attention(op)
    elif isinstance(op, Recurrence):
        yield from recurrences.sources(op)
    elif isinstance(op, Scan):
        yield from scans.sources(op)


def _of_attention(attention: Attention) -> Iterator[Source]:
    from ..kernels.attention import render as of_attention
    from ..kernels.attention.tiles import table
    from ..kernels.scorer import render as of_scorer

    notes = tuple(f"Tiles of {gpu}: {text}." for gpu, text in table()["source"].items())
    for softmax in softmaxes(attention):
        for variant in variants(softmax):
            for name in of_attention.passes(variant):
                text = of_attention.render(name, variant)
                yield Source("attention", variant.stem(name), text, notes)
        network = scorer(softmax)
        if network is not None:
            for stem, text in of_scorer.sources(network).items():
                yield Source("scorer", stem, text)


def scorer(softmax: Softmax) -> Network | None:
    """What scores the tokens of a softmax, where kernels do."""
    from ..kernels.scorer.network import Network

    cnn = _cnn(softmax)
    if cnn is None or softmax.route().op != "intervals":
        return None
    _, _, head_dim, value_dim = softmax.attention.shape()
    *convolutions, _ = scorer_shapes(cnn, head_dim, value_dim)
    channels = tuple(out for _, out, _ in convolutions)
    return Network(softmax.kv_heads, head_dim, value_dim, channels, cnn.kernels, cnn.dilations)


def dropout(softmax: Softmax) -> float:
    """Of its scorer's inputs in training."""
    cnn = _cnn(softmax)
    return 0.0 if cnn is None else cnn.dropout


def _cnn(softmax: Softmax) -> k.Cnn | None:
    scorers = [leaf.scorer for leaf in leaves(softmax.keep) if isinstance(leaf, k.Learned)]
    return next((scorer for scorer in scorers if isinstance(scorer, k.Cnn)), None)


# ------------------------------------------------------------------------------------- attention


def variants(softmax: Softmax) -> Iterator[Variant]:
    """The specialisations of the attention kernels that a softmax may call for: whole and packed
    sequences, in training and afterwards."""
    for variant in dict.fromkeys([*variants_of(softmax, True), *variants_of(softmax, False)]):
        if not _sdpa_serves(variant):
            yield variant
        yield replace(variant, packed=True)


def variants_of(softmax: Softmax, training: bool) -> Iterator[Variant]:
    """Those of whole sequences, in training or afterwards; none in plain PyTorch."""
    route = softmax.route(training)
    if route.reach is None:
        return
    if route.op != "intervals":
        yield replace(_variant(softmax), **asdict(route.reach))
        return
    yield replace(
        _variant(softmax),
        window=route.reach.window,
        intervals=True,
        budget=budget(softmax, training),
        score_grad=training,
    )


def budget(softmax: Softmax, training: bool) -> int | None:
    """Slots of what evicts; None where nothing bounds them, as while a scorer learns."""
    (leaf,) = (leaf for leaf in leaves(softmax.keep) if isinstance(leaf, k.Learned | k.Evict))
    uncapped = training and isinstance(leaf, k.Learned) and not leaf.capped
    return None if uncapped else leaf.budget


def _variant(softmax: Softmax) -> Variant:
    """Over all of the past."""
    from ..kernels.attention.variant import Variant

    attention = softmax.attention
    _, _, head_dim, value_dim = attention.shape()
    return Variant(
        softmax.heads,
        softmax.kv_heads,
        head_dim,
        value_dim,
        attention.scale or head_dim**-0.5,
        softcap=attention.softcap,
        sink_logits=attention.sink_logits,
        slopes=isinstance(attention.position, Alibi),
    )


def _sdpa_serves(variant: Variant) -> bool:
    """Whether PyTorch has a kernel for it in every dtype."""
    plain = variant.softcap is None and not (variant.sink_logits or variant.slopes)
    alike = variant.heads == variant.kv_heads and variant.head_dim == variant.value_dim
    return plain and variant.window is None and alike and variant.head_dim % 8 == 0
