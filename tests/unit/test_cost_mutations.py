"""A cost formula that is off by one is caught: each is broken in turn, and what is said of small
models must differ then from what they do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from counting import forward_flops, graph_of_mixer, step_flops, training_flops
from test_cost_pairs import KEEPS, counted, keep_of
from test_costs import backward, forward

from mixerlang.ir.graph import Graph
from mixerlang.nn import backend
from mixerlang.primitives import attention as a
from mixerlang.primitives import (
    attention_parts,
    convolution,
    ffn,
    keep_cost,
    keep_kernels,
    keep_pairs,
    model,
    norm,
    part,
    pointwise,
    recurrence,
    recurrence_kernels,
    recurrence_parts,
)
from mixerlang.primitives import keep as k
from mixerlang.primitives.part import Flops, Part, Workload
from mixerlang.runtime.load import load

BATCH, LENGTHS = 2, (1, 23, 70)

MIXERS = [
    "layer(attention(heads=4, kv_heads=2, head_dim=8, value_dim=6, qk_norm=rmsnorm, bias=true, "
    "gate=true, sink_logits=true, keep=window(6) | sinks(2)), ffn=mlp(gelu, bias=true), "
    "norm=layernorm)",
    "attention(heads=2, head_dim=8, keep=window(6) | learned(budget=4, sinks=2))",
    "attention(heads=2, head_dim=8, keep=window(6) | evict(h2o, budget=4))",
    "attention(heads=2, head_dim=8, keep=compressed(4, stride=2, map=mlp))",
    "attention(heads=4, kv_heads=2, head_dim=8, keep=blocks(3, top=4, score=mlp))",
    "attention(heads=4, kv_heads=2, head_dim=8, keep=gated(compressed(4, stride=2), "
    "blocks(4, top=3, score=compressed), dilated(4, 2)))",
    "attention(heads=2, head_dim=8, keep=by_head([window(9) & strided(2), full]))",
    "gated_deltanet(2, head_dim=6, value_heads=4)",
    "gla(2, key_dim=6, value_dim=10, rank=4)",
    "kda(2, head_dim=8)",
    "mamba2(4, head_dim=8, state=6, groups=2)",
    "hedgehog(2, head_dim=8)",
    "based(2, head_dim=8, feature_dim=4)",
    "convolution(3, bias=true)",
    "gated(convolution(3), convolution(4))",
    "concat(convolution(3), mean(convolution(2), convolution(4), learned=true))",
]
PAIRS = [(text, length) for text in KEEPS for length in (7, 40)]


@dataclass(frozen=True)
class Truth:
    """What a model does, by what is asked of it."""

    graph: Graph
    measured: dict[str, int]

    def said(self) -> dict[str, int]:
        graph, found = self.graph, {"parameters": self.graph.parameters()}
        for length in LENGTHS:
            work, train = Workload(BATCH, length), Workload(BATCH, length, training=True)
            found[f"forward {length}"] = forward(graph, work).dense
            found[f"training {length}"] = forward(graph, train).dense
            found[f"backward {length}"] = backward(graph, train).dense
            found[f"step {length}"] = forward(graph, work, step=True).dense
            for way in ("eager", "kernels"):
                held = Workload(BATCH, length, 4, kernels=way == "kernels")
                found[f"{way} cache {length}"] = sum(
                    node.op.cache_bytes(graph.width(node), held) for node in graph
                )
        return found


def measured(graph: Graph, path: Path) -> dict[str, int]:
    model = load(path)
    found = {"parameters": model.num_parameters()}
    for length in LENGTHS:
        found[f"forward {length}"] = forward_flops(model, BATCH, length)
        passes = training_flops(model, BATCH, length)
        found[f"training {length}"], found[f"backward {length}"] = passes
        found[f"step {length}"] = step_flops(model, BATCH, length)
        for way in ("eager", "kernels"):
            with backend.forced(way):
                cache = load(path, device="meta").new_cache(BATCH, max_length=length)
            found[f"{way} cache {length}"] = cache.nbytes
    return found


@pytest.fixture(scope="module")
def truths(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Truth]]:
    patch = pytest.MonkeyPatch()
    patch.setenv("MIXERLANG_CACHE", str(tmp_path_factory.mktemp("cache")))
    found = []
    for mixer in MIXERS:
        folder = tmp_path_factory.mktemp("spec")
        graph = graph_of_mixer(folder, mixer)
        found.append(Truth(graph, measured(graph, folder / "model.mix")))
    yield found
    patch.undo()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[k.Keep, int, int]]:
    folder = tmp_path_factory.mktemp("keep")
    keeps = {text: keep_of(folder, text) for text in KEEPS}
    return [(keeps[text], length, counted(keeps[text], length)) for text, length in PAIRS]


def broken(value: Any) -> Any:
    """One more of whatever a formula gives."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case Flops():
            return value + Flops(1, 1)
        case Part():
            return replace(value, forward=broken(value.forward), backward=broken(value.backward))
        case keep_pairs.Pairs():
            return replace(value, count=broken(value.count))
        case keep_cost.Extent():
            return replace(value, recent=broken(value.recent))
        case keep_pairs.Term():
            return replace(value, rate=value.rate + 1)
        case frozenset():
            return frozenset(map(broken, value))
        case list():
            return [*map(broken, value[:1]), *value[1:]] or [(1, 1)]
        case tuple():
            return tuple(map(broken, value))
        case None:
            return None
    return iter(broken(list(value)))


FORMULAS: list[tuple[Any, str]] = [
    *[(part, name) for name in ("linear", "depthwise")],
    *[(attention_parts, name) for name in (
        "parts", "step_parts", "_before", "_after", "_softmax", "_step", "step_keys", "_completed",
        "_scorer", "_summaries", "map_macs", "_chosen", "_chosen_step", "_branch_count")],
    *[(keep_pairs, name) for name in (
        "visible_pairs", "past", "near", "kept_pairs", "_beside_eviction", "_summary_pairs",
        "_block_pairs", "_others", "_union_pairs", "_terms")],
    *[(keep_cost, name) for name in (
        "_store_bytes", "branch_extent", "_extent", "_own_bytes", "_scorer_inputs")],
    (keep_cost.Store, "slots"), (keep_cost.Extent, "slots"), (keep_kernels, "_layout_bytes"),
    (recurrence_kernels, "kernel_cache_bytes"), (recurrence_kernels, "bound_bytes"),
    *[(recurrence_parts, name) for name in (
        "parts", "step_parts", "_around", "_core", "_state", "_step_flops", "_alone_backward",
        "_chunk", "_chunked_flops", "_spared")],
    *[(recurrence.Recurrence, name) for name in (
        "projections", "conv_channels", "parameters", "cache_bytes", "state_bytes",
        "decay_heads")],
    *[(cls, name) for cls in (recurrence.Taylor, recurrence.Hedgehog)
      for name in ("width",)], (recurrence.Hedgehog, "weights"),
    *[(cls, name) for cls in (recurrence.Scalar, recurrence.Vector)
      for name in ("maps", "weights")],
    *[(a, name) for name in ("keys_of", "summaries", "scorer_shapes", "keep_parameters",
                             "mlp_map_parameters")],
    *[(a.Attention, name) for name in ("projections", "parameters", "cache_bytes")],
    *[(cls, "parameters") for cls in (
        convolution.Convolution, ffn.SwiGLU, ffn.Mlp, model.Embedding, model.Head, norm.RMSNorm,
        norm.LayerNorm, pointwise.WeightedSum, pointwise.GatedSum)],
    *[(cls, "parts") for cls in (
        convolution.Convolution, ffn.SwiGLU, ffn.Mlp, model.Head, pointwise.GatedSum,
        pointwise.Linear)],
    (convolution.Convolution, "cache_bytes"),
]  # fmt: skip


def test_as_they_are_formulas_say_what_happens(
    truths: list[Truth], pairs: list[tuple[k.Keep, int, int]]
) -> None:
    for truth in truths:
        assert truth.said() == truth.measured
    assert not any(off(keep, length, seen) for keep, length, seen in pairs)


@pytest.mark.parametrize(("owner", "name"), FORMULAS, ids=[
    f"{getattr(owner, '__name__', owner).rpartition('.')[2]}.{name}" for owner, name in FORMULAS
])  # fmt: skip
def test_a_broken_formula_is_caught(
    owner: Any, name: str, truths: list[Truth], pairs: list[tuple[k.Keep, int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    right: Callable[..., Any] = getattr(owner, name)

    def wrong(*arguments: Any, **named: Any) -> Any:
        return broken(right(*arguments, **named))

    for module in (
        owner,
        a,
        attention_parts,
        keep_cost,
        keep_kernels,
        keep_pairs,
        recurrence_parts,
        convolution,
        ffn,
        model,
        pointwise,
    ):
        if getattr(module, name, None) is right:
            monkeypatch.setattr(module, name, wrong)
    assert any(differs(truth) for truth in truths) or any(
        off(keep, length, seen) for keep, length, seen in pairs
    )


def differs(truth: Truth) -> bool:
    try:
        return truth.said() != truth.measured
    except (AssertionError, ValueError, TypeError, RecursionError):
        return True


def off(keep: k.Keep, length: int, seen: int) -> bool:
    """Whether pairs are not those counted, or in training not all of them."""
    if keep_pairs.visible_pairs(keep, length).count != seen:
        return True
    evicts = any(isinstance(leaf, k.Learned | k.Evict) for leaf in a.leaves(keep))
    trained = keep_pairs.visible_pairs(keep, length, training=True).count
    return evicts and trained != math.comb(length + 1, 2)
