"""What a cache holds: its bytes, its bounds, its dtype."""

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
    Sinks,
    Strided,
    Union,
    Window,
)

CNN = Cnn((3, 3), (2, 1))
LTE = Union((Window(4), Learned(5, 2, CNN)))
G, D, E, SIZE, POSITION, SCORE = 3, 6, 5, 8, 8, 8
"""KV heads, channels of k and v, and bytes: of a float64, a position, a score."""
TOKEN = G * (D + E) * SIZE
INPUTS = G * ((D + E) * 4 + D * 2) * SIZE
"""The scorer's: 2 * reach of each layer's input channels."""


@pytest.mark.parametrize(
    ("keep", "slots", "per_slot", "beside"),
    [
        (Window(7), 7, TOKEN + POSITION, 0),
        (Window(999), 40, TOKEN + POSITION, 0),
        (Full(), 40, TOKEN + POSITION, 0),
        (Strided(5), 40, TOKEN + POSITION, 0),
        (Dilated(3, 4), 12, TOKEN + POSITION, 0),
        (Union((Window(4), Sinks(2))), 6, TOKEN + POSITION, 0),
        (Intersection((Window(9), Strided(3))), 9, TOKEN + POSITION, 0),
        (LTE, 9, TOKEN + G * (POSITION + SCORE), INPUTS),
        (Union((Window(4), Evict("h2o", 3))), 7, TOKEN + G * (POSITION + SCORE), 0),
        (Evict("tova", 6), 6, TOKEN + G * (POSITION + SCORE), 0),
        (Compressed(8), 8, TOKEN + POSITION, 5 * (TOKEN + POSITION)),
        (Blocks(8, 3), 40, TOKEN + POSITION, 5 * (G * D * SIZE + POSITION)),
        (GatedKeep((Compressed(8), Window(10))), 10, TOKEN + POSITION, 5 * (TOKEN + POSITION)),
    ],
)
@torch.no_grad()
def test_bytes(Layer, keep, slots, per_slot, beside):
    """A cache made for a length has its size from the start and keeps it."""
    layer = Layer(keep)
    cache = layer.cache(2, max_length=40)
    assert cache.nbytes == 2 * (slots * per_slot + beside)
    for size in (1, 30, 9):
        layer(layer.x(2, size), cache)
        assert cache.nbytes == 2 * (slots * per_slot + beside)


@torch.no_grad()
def test_heads_with_equal_keeps_share_a_store(Layer):
    layer = Layer(ByHead((Window(3), Full(), Window(3))))
    cache = layer.cache(1, max_length=10)
    head = (D + E) * SIZE
    assert cache.nbytes == 3 * (2 * head + POSITION) + 10 * (head + POSITION)


@pytest.mark.parametrize("keep", [Full(), GatedKeep((Compressed(4), Blocks(4, 3), Window(5)))])
@torch.no_grad()
def test_grows_with_the_longest(Layer, keep):
    layer = Layer(keep)
    cache = layer.cache(2)
    assert cache.nbytes == 0
    layer(layer.x(1, 12), cache, lengths=[9, 3])
    assert cache.states["layer"]["groups.0.tokens.k"].shape[2] == 9
    layer(layer.x(2, 1), cache)
    assert cache.states["layer"]["groups.0.tokens.k"].shape[2] == 10


@pytest.mark.parametrize("keep", [Full(), Window(50), Compressed(4), Blocks(4, 3)])
@torch.no_grad()
def test_a_length_is_not_outgrown(Layer, keep):
    layer = Layer(keep)
    cache = layer.cache(2, max_length=10)
    layer(layer.x(1, 10), cache, lengths=[8, 2])
    layer(layer.x(2, 2), cache)
    with pytest.raises(ValueError, match=r"made for 10 tokens a sequence.*reaches 11"):
        layer(layer.x(2, 1), cache)


@pytest.mark.parametrize("keep", [Window(5), LTE, Union((Sinks(2), Window(4))), Evict("tova", 6)])
@torch.no_grad()
def test_what_is_bounded_runs_on(Layer, keep):
    layer = Layer(keep)
    x = layer.x(1, 40)
    got = layer.in_parts(x, [7, 20, 13], layer.cache(1, max_length=9))
    torch.testing.assert_close(got, layer(x))


@pytest.mark.parametrize("keep", [LTE, GatedKeep((Compressed(4), Blocks(4, 3), Window(5)))])
@torch.no_grad()
def test_rows_can_be_reordered(Layer, keep):
    layer = Layer(keep)
    x, rows = layer.x(3, 20), torch.tensor([2, 0, 2])
    cache = layer.cache(3)
    layer(x, cache)
    cache.reorder(rows)
    more = layer.x(3, 2, seed=5)
    torch.testing.assert_close(layer(more, cache), layer(torch.cat([x[rows], more], 1))[:, -2:])


@pytest.mark.parametrize("keep", [LTE, GatedKeep((Compressed(4), Blocks(4, 3), Window(5)))])
@torch.no_grad()
def test_a_cache_keeps_its_dtype(Layer, keep):
    layer = Layer(keep, dtype=torch.float32)
    cache = layer.cache(1, 30, torch.bfloat16)
    before = {name: (x.dtype, x.shape) for name, x in cache.states["layer"].items()}
    x = layer.x(1, 30)
    y = layer.in_parts(x, [10, 1, 19], cache)
    assert {name: (t.dtype, t.shape) for name, t in cache.states["layer"].items()} == before
    assert before["groups.0.tokens.k"][0] == torch.bfloat16
    assert y.dtype == torch.float32 and y.isfinite().all()


@pytest.mark.parametrize(
    "keep", [LTE, Full(), GatedKeep((Compressed(4), Blocks(4, 3), Window(5))), Evict("tova", 6)]
)
@torch.no_grad()
def test_a_wider_cache_than_the_model(Layer, keep):
    layer = Layer(keep, dtype=torch.bfloat16)
    x = layer.x(1, 30)
    wide = layer.in_parts(x, [10, 1, 19], layer.cache(1, 30, torch.float32))
    assert wide.dtype == torch.bfloat16
    assert torch.equal(wide, layer.in_parts(x, [10, 1, 19], layer.cache(1, 30)))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"keep": Learned(4)}, "exactly one window"),
        ({"keep": Union((Window(4), Window(5), Learned(4)))}, "exactly one window"),
        ({"keep": ByHead((Window(4), Full()))}, "2 keeps for 3 KV heads"),
        ({"kv_heads": 4, "keep": Full()}, "4 KV heads do not divide 6 heads"),
    ],
)
def test_what_cannot_be(Layer, options, says):
    with pytest.raises(ValueError, match=says):
        Layer(**options)
