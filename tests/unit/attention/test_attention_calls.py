"""Every keep: a whole sequence, chunks, single steps and packed sequences give one answer."""

from __future__ import annotations

import pytest
import torch

from mixerlang.nn.keeps import (
    Blocks,
    ByHead,
    Cnn,
    Compressed,
    Dilated,
    Evict,
    Full,
    GatedKeep,
    Intersection,
    Learned,
    MlpMap,
    Sinks,
    Strided,
    Union,
    Window,
)
from mixerlang.nn.norm import LayerNorm, RMSNorm
from mixerlang.nn.position import Alibi, Rope

CNN = Cnn((3, 3), (2, 1))
LTE = Union((Window(4), Learned(4, 2, CNN)))
H2O = Union((Window(3), Evict("h2o", 3)))

STATIC = {
    "full": Full(),
    "window": Window(5),
    "window_of_one": Window(1),
    "window_beyond": Window(100),
    "sinks": Union((Window(4), Sinks(2))),
    "sinks_alone": Sinks(3),
    "strided": Strided(3),
    "dilated": Dilated(3, 4),
    "intersection": Intersection((Window(9), Strided(2))),
    "empty_rows": Intersection((Window(3), Sinks(2))),
    "compressed": Compressed(4),
    "compressed_mlp": Compressed(4, 2, MlpMap()),
    "compressed_beyond": GatedKeep((Compressed(50), Window(5))),
    "heads": ByHead((Window(3), Full(), Window(3))),
}
CHOOSING = {
    "learned": LTE,
    "learned_first": Union((Learned(3, 0, CNN), Window(3))),
    "learned_sinks_only": Union((Window(4), Learned(4, 4, CNN))),
    "learned_beyond": Union((Window(4), Learned(100, 2, CNN))),
    "learned_window_beyond": Union((Window(60), Learned(3, 2, CNN))),
    "tova": Evict("tova", 5),
    "tova_window": Union((Window(3), Evict("tova", 3))),
    "h2o": H2O,
    "norm": Union((Window(3), Evict("norm", 3))),
    "random": Union((Window(3), Evict("random", 3))),
    "blocks": Blocks(4, 3),
    "blocks_beyond": Blocks(50, 3),
    "blocks_mlp": Blocks(3, 3, 1, 1, "mlp"),
    "blocks_and_window": Intersection((Blocks(4, 2, 1, 1), Window(11))),
    "blocks_or_window": Union((Blocks(4, 2, 0, 1), Window(3))),
    "lansa": GatedKeep((Compressed(4), Blocks(4, 3), Window(5))),
    "nsa": GatedKeep((Blocks(6, 3, 1, 1, "compressed"), Compressed(4, 2, MlpMap(2)), Window(5))),
    "gated_evictions": GatedKeep((LTE, Window(9), H2O, Sinks(2), Evict("random", 4))),
    "gated_learned_full": GatedKeep((LTE, Full())),
    "gated_alone": GatedKeep((Window(2),)),
    "heads_learned": ByHead((LTE, Window(3), LTE)),
}
OPTIONS = {
    "mha": {"kv_heads": None, "value_dim": None},
    "mqa": {"kv_heads": 1},
    "odd_heads": {"heads": 5, "kv_heads": 5, "head_dim": 7, "value_dim": 3},
    "no_positions": {"position": None},
    "partial_rope": {"position": Rope(100.0, 0.5), "keep": Full()},
    "alibi": {"position": Alibi(), "keep": LTE},
    "alibi_heads": {"position": Alibi(), "keep": ByHead((LTE, Window(3), Full()))},
    "sink_logits": {"sink_logits": True, "keep": ByHead((LTE, Sinks(1), Full()))},
    "softcap": {"softcap": 2.0, "scale": 0.7},
    "norms": {"qk_norm": RMSNorm(eps=1e-5), "bias": True, "gate": True},
    "layernorm": {"qk_norm": LayerNorm(), "keep": LTE},
}
CASES = [
    *[pytest.param({"keep": k, "dtype": torch.float32}, id=n) for n, k in STATIC.items()],
    *[pytest.param({"keep": k}, id=n) for n, k in CHOOSING.items()],
    *[pytest.param({"keep": Window(5)} | o, id=n) for n, o in OPTIONS.items()],
]
LENGTH = 37


def close(got, wanted):
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("options", CASES)
@torch.no_grad()
def test_chunks_and_steps(Layer, options):
    layer = Layer(**options)
    x = layer.x(2, LENGTH)
    full = layer(x)
    assert full.std() > 1e-3
    for max_length in (None, LENGTH, 2 * LENGTH):
        chunks = layer.in_parts(x, [1, 7, 1, 9, 3, 16], layer.cache(2, max_length))
        close(chunks, full)
    close(layer.in_parts(x, [1] * LENGTH, layer.cache(2, LENGTH)), full)
    close(layer(x[:, :1]), full[:, :1])


@pytest.mark.parametrize("options", CASES)
@torch.no_grad()
def test_packed(Layer, options):
    layer = Layer(**options)
    lengths = [5, LENGTH, 1, 14]
    rows = [layer.x(1, n, seed=n) for n in lengths]
    alone = torch.cat([layer(row) for row in rows], 1)
    packed = torch.cat(rows, 1)
    close(layer(packed, lengths=lengths), alone)

    cache = layer.cache(len(rows))
    close(layer(packed, cache, lengths), alone)
    more = [layer.x(1, n, seed=50 + n) for n in (3, 1, 6, 4)]
    got = layer(torch.cat(more, 1), cache, [3, 1, 6, 4]).split([3, 1, 6, 4], dim=1)
    step = layer.x(len(rows), 1, seed=99)
    last = layer(step, cache)
    for index, (row, extra, out) in enumerate(zip(rows, more, got, strict=True)):
        whole = layer(torch.cat([row, extra, step[index : index + 1]], 1))
        close(out, whole[:, row.shape[1] : -1])
        close(last[index], whole[0, -1:])


@pytest.mark.parametrize("options", CASES)
@torch.no_grad()
def test_causal(Layer, options):
    layer = Layer(**options)
    x = layer.x(1, LENGTH)
    for cut in (LENGTH - 1, 12, 1):
        other = torch.cat([x[:, :cut], layer.x(1, LENGTH - cut, seed=7)], 1)
        close(layer(other)[:, :cut], layer(x)[:, :cut])
    assert not torch.allclose(layer(other)[:, 1:], layer(x)[:, 1:])


@pytest.mark.parametrize("options", CASES)
def test_gradients(Layer, options):
    layer = Layer(**options)
    layer.attention.train()
    x = layer.x(2, LENGTH).requires_grad_()
    layer(x).square().sum().backward()
    for name, parameter in [("x", x), *layer.attention.named_parameters()]:
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("keep", [LTE, GatedKeep((Compressed(4), Blocks(4, 3), Window(5))), H2O])
def test_autocast(Layer, keep):
    layer = Layer(keep, dtype=torch.float32)
    layer.attention.train()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(layer.x(2, 20))
    y.float().square().sum().backward()
    assert y.isfinite().all()
    assert all(p.grad.isfinite().all() for p in layer.attention.parameters())
