"""Every mixer, keep, combination and block as a user gets it: a spec, loaded and run.

Under eval(): full forward = chunked prefill = steps = packed, and no output sees the future.
Under train(): every parameter gets a finite gradient. What has attention, in plain PyTorch and
through the kernels' ops.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import mixerlang
from mixerlang.nn.backend import forced

LENGTH = 23
"""Longer than every window, block and budget below, and a multiple of none."""

ATTENTION = "attention(heads=4, kv_heads=2, head_dim=8, keep={})"

KEEPS = {
    "full": "full",
    "window": "window(5)",
    "window_one": "window(1)",
    "window_beyond": "window(100)",
    "sinks": "window(4) | sinks(2)",
    "strided": "window(3) | strided(4)",
    "dilated": "dilated(3, rate=2)",
    "intersection": "strided(2) & window(7)",
    "learned": "window(6) | learned(budget=4, sinks=2)",
    "learned_no_sinks": "window(6) | learned(budget=3, sinks=0)",
    "learned_small_cnn": "window(3) | learned(5, sinks=1, scorer=cnn([3, 3], dilations=[1, 2]))",
    "learned_beyond": "window(9) | learned(budget=100)",
    "tova": "window(4) | evict(tova, budget=3)",
    "tova_alone": "evict(tova, budget=6)",
    "h2o": "window(4) | evict(h2o, budget=3)",
    "norm": "window(4) | evict(norm, budget=3)",
    "random": "window(4) | evict(random, budget=3)",
    "blocks": "blocks(3, top=4)",
    "blocks_mlp": "blocks(3, top=4, score=mlp)",
    "blocks_window": "blocks(3, top=3, forced_first=0, forced_last=1) | window(4)",
    "blocks_and": "blocks(4, top=3) & window(9)",
    "compressed": "compressed(3)",
    "compressed_mlp": "compressed(4, stride=2, map=mlp)",
    "nsa": "gated(compressed(3), blocks(3, top=4), window(4))",
    "nsa_learned": "gated(compressed(4, stride=2, map=mlp), blocks(4, top=3, score=compressed), "
    "window(5))",
    "by_head": "by_head([window(3), full])",
    "by_head_learned": "by_head([window(6) | learned(budget=4), window(2)])",
}

ATTENTIONS = {
    "mha": "attention(heads=3, head_dim=8)",
    "mqa": "attention(heads=4, kv_heads=1, head_dim=8)",
    "odd": "attention(heads=3, kv_heads=3, head_dim=7, value_dim=5, position=none)",
    "alibi": "attention(heads=3, head_dim=8, position=alibi, keep=window(6))",
    "partial_rope": "attention(heads=2, head_dim=12, position=rope(theta=100, fraction=1/2))",
    "everything": "attention(heads=4, kv_heads=2, head_dim=8, qk_norm=rmsnorm, bias=true, "
    "gate=true, softcap=5, sink_logits=true, scale=0.3, keep=window(6))",
}

RECURRENCES = {
    "linear": "linear_attention(2, head_dim=8)",
    "based": "based(2, head_dim=8, feature_dim=4)",
    "hedgehog": "hedgehog(2, head_dim=8)",
    "retnet": "retnet(2, head_dim=8)",
    "lightning": "lightning(2, head_dim=8)",
    "gla": "gla(2, key_dim=6, value_dim=10, rank=4)",
    "hgrn2": "hgrn2(2, head_dim=8)",
    "mamba2": "mamba2(4, head_dim=8, state=6)",
    "mamba2_groups": "mamba2(4, head_dim=8, state=6, groups=2)",
    "deltanet": "deltanet(2, head_dim=8)",
    "delta_negative": "recurrence(2, key_dim=8, features=silu >> l2norm, update=delta(2))",
    "gated_deltanet": "gated_deltanet(3, head_dim=8)",
    "gdn_grouped": "gated_deltanet(2, head_dim=6, expand_v=1, value_heads=4)",
    "kda": "kda(2, head_dim=8)",
    "decayed_sum": "recurrence(2, key_dim=6, features=elu1, decay=scalar, normalizer=sum)",
}

SMALL = {"a": "attention(heads=2, head_dim=8, keep=window(5))", "r": "gated_deltanet(2, 8)"}

COMBINATIONS = {
    "convolution": "convolution(3, activation=silu, bias=true)",
    "sum": "sum({a}, {r})",
    "mean": "mean({a}, {r}, {r})",
    "weights": "sum({a}, {r}, weights=[0.5, 2])",
    "learned_weights": "mean({a}, {r}, weights=[1, 3], learned=true)",
    "gated": "gated({a}, {r})",
    "concat": "concat({a}, {r})",
    "chain": "{r} >> {a}",
    "tied": "tied({a})",
    "tied_layer": "tied(layer({r}))",
    "no_ffn": "layer({a}, ffn=none)",
    "no_mixer": "layer(none, ffn=mlp(relu2))",
    "no_norm": "layer({a}, norm=none)",
    "gelu": "layer({a}, ffn=mlp(gelu, bias=true), norm=layernorm)",
    "postnorm": "layer({a}, block=postnorm)",
    "sandwich": "layer({a}, block=sandwich)",
    "parallel": "layer({a}, block=parallel)",
}

MIXERS = {
    **{f"keep-{name}": ATTENTION.format(keep) for name, keep in KEEPS.items()},
    **{f"attention-{name}": text for name, text in ATTENTIONS.items()},
    **{f"recurrence-{name}": text for name, text in RECURRENCES.items()},
    **{f"combine-{name}": text.format(**SMALL) for name, text in COMBINATIONS.items()},
}

# Their choices are discontinuous: in float64 no two scores are near enough to swap.
DISCRETE = ("learned", "tova", "h2o", "keep-norm", "blocks", "nsa")


CASES = [(name, "eager") for name in MIXERS]
CASES += [(name, "kernels") for name in MIXERS if name.startswith(("keep", "attention"))]


@pytest.fixture(autouse=True)
def backend(way: str) -> Iterator[None]:
    with forced(way):
        yield


def load(name: str, folder: Path) -> torch.nn.Module:
    spec = folder / "case.mix"
    spec.write_text(
        "model case { vocab = 31; dim = 16; context = 64\n"
        f"init = normal(std=0.3); ffn = swiglu(hidden=24)\nlayers = [{MIXERS[name]}] * 2 }}\n"
    )
    dtype = torch.float64 if any(word in name for word in DISCRETE) else torch.float32
    model = mixerlang.load(spec, dtype=dtype, seed=1)
    spread_scores(model)
    return model.eval()


def spread_scores(model: torch.nn.Module) -> None:
    """Scorers start by keeping everything; let them choose."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if "scorer" in name:
            with torch.no_grad():
                noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
                parameter.copy_(noise * 0.5)


def tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 31, shape, generator=torch.Generator().manual_seed(seed))


def close(got: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("name", "way"), CASES)
@torch.no_grad()
def test_one_forward(name: str, way: str, tmp_path: Path) -> None:
    """Full forward = chunked prefill and steps = packed = packed into a cache, then steps."""
    model = load(name, tmp_path)
    batch = tokens(2, LENGTH)
    full = model(batch)
    assert full.isfinite().all() and full.std() > 1e-3

    cache = model.new_cache(2, max_length=LENGTH)
    parts = [model(part, cache=cache) for part in batch.split([7, 1, 5, 1, 1, 1, 1, 6], dim=1)]
    close(torch.cat(parts, 1), full)

    steps_cache = model.new_cache(2)
    close(torch.cat([model(token, cache=steps_cache) for token in batch.split(1, 1)], 1), full)

    lengths = (LENGTH, 1, 9)
    rows = [tokens(1, n, seed=n) for n in lengths]
    alone = [model(row) for row in rows]
    starts = torch.tensor([0, *torch.tensor(lengths).cumsum(0)])
    close(model(torch.cat(rows, 1), cu_seqlens=starts), torch.cat(alone, 1))

    cache = model.new_cache(len(rows))
    close(model(torch.cat(rows, 1), cu_seqlens=starts, cache=cache), torch.cat(alone, 1))
    more = tokens(len(rows), 4, seed=5)
    got = torch.cat([model(token, cache=cache) for token in more.split(1, 1)], 1)
    for row, extra, out in zip(rows, more, got, strict=True):
        close(out, model(torch.cat([row, extra[None]], 1))[0, -4:])


@pytest.mark.parametrize(("name", "way"), CASES)
@torch.no_grad()
def test_causal(name: str, way: str, tmp_path: Path) -> None:
    """A later token changes no earlier output."""
    model = load(name, tmp_path)
    first = tokens(1, LENGTH)
    for cut in (1, 8, LENGTH - 1):
        other = first.clone()
        other[:, cut:] = (other[:, cut:] + 1 + tokens(1, LENGTH - cut, seed=9) % 30) % 31
        close(model(other)[:, :cut], model(first)[:, :cut])


@pytest.mark.parametrize(("name", "way"), CASES)
def test_gradients(name: str, way: str, tmp_path: Path) -> None:
    """Every parameter gets a finite gradient."""
    model = load(name, tmp_path).train()
    logits, aux = model(tokens(2, LENGTH), return_aux=True)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens(2 * LENGTH, seed=4))
    loss = loss + sum(v["score"].relu().mean() for v in aux.values() if "score" in v)
    loss.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
