"""Bytes of costs: what autograd keeps, what parts move, and what a cache holds while it runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from counting import graph_of_mixer, tokens
from test_every_mixer import KEEPS, MIXERS
from torch import nn

from mixerlang.analysis import analyze
from mixerlang.ir.graph import Graph
from mixerlang.kernels.attention import intervals
from mixerlang.nn import backend
from mixerlang.primitives import attention_parts
from mixerlang.primitives.part import Part, Workload
from mixerlang.runtime.load import load

BATCH, LENGTH = 2, 23

KEPT = [
    "attention(heads=4, kv_heads=2, head_dim=8, keep=window(6) | sinks(2))",
    "attention(heads=4, head_dim=8, value_dim=6, bias=true, position=none, keep=strided(3))",
    "attention(heads=4, kv_heads=2, head_dim=8, qk_norm=rmsnorm, gate=true, keep=window(5))",
    "attention(heads=4, kv_heads=2, head_dim=8, keep=window(6) | learned(4))",
    "layer(none, ffn=mlp(gelu, bias=true))",
    "layer(none, ffn=mlp(relu))",
    "layer(none, ffn=swiglu(2))",
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXERLANG_CACHE", str(tmp_path / "cache"))


def kept(model: nn.Module) -> int:
    """Bytes of the tensors, each once, that autograd keeps for a training step, weights aside."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found: dict[int, torch.UntypedStorage] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        model.train()(tokens(BATCH, LENGTH))
    return sum(storage.nbytes() for storage in found.values())


@pytest.mark.parametrize("mixer", KEPT)
def test_what_autograd_keeps(mixer: str, tmp_path: Path) -> None:
    """Off a GPU an RMSNorm of the residual stream also keeps x over its root mean square, which
    CUDA's does not; positions are kept once for all layers."""
    graph = graph_of_mixer(tmp_path, mixer)
    with backend.forced("kernels"):
        model = load(tmp_path / "model.mix")
        found = kept(model)
    said = analyze(graph, BATCH, LENGTH, backend="kernels").total.number("activation_bytes")
    norms = [m for m in model.modules() if type(m).__name__ == "RMSNorm"  # of the folder's own nn/
             and m.weight.numel() == model.dim]
    beside = 4 * BATCH * LENGTH * model.dim * len(norms)
    positions = 8 * BATCH * LENGTH if "attention" in mixer and "position=none" not in mixer else 0
    assert found == said + beside + positions


def test_constants_are_those_of_the_kernels() -> None:
    assert attention_parts.SEGMENT == intervals.SEGMENT


# ------------------------------------------------------------------------------------------- moved


def parts(graph: Graph, work: Workload, step: bool = False) -> dict[str, Part]:
    found: dict[str, Part] = {}
    for node in graph:
        width = graph.width(node)
        for part in node.op.step_parts(width, work) if step else node.op.parts(width, work):
            found.setdefault(part.name, part)
    return found


def test_bytes_that_attention_moves(tmp_path: Path) -> None:
    """By hand: 12 channels, 4 query and 2 KV heads of 8, values of 6; 2 bytes a number."""
    graph = graph_of_mixer(tmp_path, "attention(heads=4, kv_heads=2, head_dim=8, value_dim=6, "
                           "bias=true, keep=window(5))")
    found = parts(graph, Workload(3, 10))
    rows = 3 * 10
    q = found["q_proj"]
    assert (q.read, q.written) == (2 * (rows * 12 + 13 * 32), 2 * rows * 32)
    attention = found["attention"]
    assert attention.read == 2 * rows * (4 * 8 + 2 * 8 + 2 * 6)
    assert attention.written == 2 * rows * 4 * 6 + 4 * rows * 4  # and the log-sum-exp
    assert found["rope"].read == found["rope"].written == 2 * rows * 6 * 8
    step = parts(graph, Workload(3, 10), step=True)["attention"]
    assert step.read == 2 * 3 * (4 * 8 + 5 * 2 * (8 + 6))  # five tokens are seen
    assert step.written == 2 * 3 * (4 * 6 + 2 * (8 + 6))


def test_bytes_that_a_recurrence_moves(tmp_path: Path) -> None:
    """By hand: 2 heads of q and k of 6, 4 of v of 5."""
    graph = graph_of_mixer(tmp_path, "recurrence(2, value_heads=4, key_dim=6, value_dim=5, "
                           "update=delta, decay=scalar, conv=3)")
    found = parts(graph, Workload(3, 100))
    rows = 3 * 100
    core = found["recurrence"]
    assert core.read == rows * (2 * (2 * 2 * 6 + 4 * 5) + 4 * 4 + 4 * 4)  # decay and step, float32
    assert core.written == rows * 2 * 4 * 5
    assert core.saved == core.read + core.written  # states are made again
    conv = found["conv"]
    assert (conv.read, conv.written) == (2 * (rows * 44 + 44 * 3), 2 * rows * 44)
    step = parts(graph, Workload(3, 100), step=True)["step"]
    state = 3 * 4 * 4 * 6 * 5
    assert step.read == 3 * (2 * (2 * 2 * 6 + 4 * 5) + 32) + state
    assert step.written == 3 * 2 * 4 * 5 + state


def test_bytes_that_norms_and_ffns_move(tmp_path: Path) -> None:
    graph = graph_of_mixer(tmp_path, "layer(none, ffn=swiglu(hidden=16), norm=layernorm)")
    found = parts(graph, Workload(2, 8))
    rows = 2 * 8
    norm = found["layernorm"]
    assert (norm.read, norm.written) == (2 * (rows * 12 + 24), 2 * rows * 12)
    product = found["silu(gate) * up"]
    assert (product.read, product.written) == (2 * rows * 32, 2 * rows * 16)
    assert found["logits"].written == 2 * rows * 11


# -------------------------------------------------------------------------------------------- held


@pytest.mark.parametrize("name", MIXERS)
def test_a_cache_holds_what_is_said_at_every_step(name: str, tmp_path: Path) -> None:
    """Past windows and budgets: the bytes allocated stay, and the tokens held are at most those
    that the definition must hold."""
    graph = graph_of_mixer(tmp_path, MIXERS[name])
    model = load(tmp_path / "model.mix").eval()
    most = 14
    for way in ("eager", "kernels"):
        said = analyze(graph, BATCH, most, "float32", way).total
        with backend.forced(way), torch.no_grad():
            held = model.new_cache(BATCH, max_length=most)
            assert held.nbytes == said["cache_bytes"]
            for seen in range(1, most + 1):
                model(tokens(BATCH, 1), cache=held)
                assert held.nbytes == said["cache_bytes"], seen
                if way == "eager":
                    assert filled(held.states) <= bound(graph, seen)


def filled(states: dict[str, dict[str, torch.Tensor]]) -> int:
    """Bytes of keys and values in filled slots, of states, tails and the like."""
    total = 0
    for state in states.values():
        for name, x in state.items():
            path, _, last = name.rpartition(".")
            place = f"{path}.positions" if path else "positions"
            if place not in state:
                total += 0 if "scores" in path else x.nbytes
            elif last in ("k", "v"):
                rows = (state[place] >= 0).sum(-1).expand(-1, x.shape[1])
                total += int(rows.sum()) * x.shape[-1] * x.element_size()
    return total


def bound(graph: Graph, seen: int) -> int:
    cost = analyze(graph, BATCH, seen, "float32").total
    return cost.number("cache_bound_bytes")


@pytest.mark.parametrize("keep", ["full", "window", "sinks", "tova", "norm", "compressed", "nsa"])
def test_a_full_cache_holds_exactly_what_the_definition_must(keep: str, tmp_path: Path) -> None:
    graph = graph_of_mixer(
        tmp_path, f"attention(heads=4, kv_heads=2, head_dim=8, keep={KEEPS[keep]})"
    )
    model = load(tmp_path / "model.mix").eval()
    held = model.new_cache(BATCH, max_length=LENGTH)
    equal = 0
    with torch.no_grad():
        for seen in range(1, LENGTH + 1):
            model(tokens(BATCH, 1), cache=held)
            equal += filled(held.states) == bound(graph, seen)
    assert equal >= 2  # where blocks have just been completed fewer tokens are held
