"""The cache of fixed size, step by step, against the rule replayed token by token."""

from __future__ import annotations

from typing import Any

import decoding
import pytest
import torch
from decoding import Case
from torch import Tensor

from mixerlang.kernels.attention.intervals import NEVER
from mixerlang.kernels.decode import op
from mixerlang.kernels.decode.layout import Layout
from mixerlang.kernels.eviction import op as eviction

LEARNED = {"kind": "learned", "lookahead": 2}
CASES: dict[str, dict[str, Any]] = {
    "full": {"layout": Layout()},
    "full, strided": {"layout": Layout(3, strided=4, sinks=2, rate=2)},
    "window": {"layout": Layout(7)},
    "window of one": {"layout": Layout(1)},
    "dilated": {"layout": Layout(12, rate=3)},
    "window and sinks": {"layout": Layout(5, sinks=3)},
    "longer than the sequence": {"layout": Layout(100, sinks=3)},
    "random": {"layout": Layout(4, budget=5, kind="random")},
    "random, window of one": {"layout": Layout(1, budget=3, kind="random")},
    "norm": {"layout": Layout(9, budget=4, kind="norm"), "kv_heads": 2},
    "learned": {"layout": Layout(10, budget=6, sinks=2, span=3, **LEARNED), "kv_heads": 2},
    "learned, ties": {"layout": Layout(10, budget=6, span=3, **LEARNED), "ties": True},
    "learned, one slot": {"layout": Layout(25, budget=1, span=8, **LEARNED), "ties": True},
    "learned, sinks alone": {"layout": Layout(25, budget=4, sinks=4, **LEARNED)},
    "learned, one at a time": {"layout": Layout(4, budget=4, sinks=1, span=1, **LEARNED)},
    "groups, other values": {
        "layout": Layout(6, sinks=1), "heads": 6, "kv_heads": 2, "value_dim": 8,
    },
    "every rule": {
        "layout": Layout(10, budget=6, sinks=2, span=3, **LEARNED),
        "heads": 4, "kv_heads": 2, "softcap": 2.0, "sink_logits": True, "slopes": True,
    },
}  # fmt: skip


@pytest.mark.parametrize("widest", [1, 8])
@pytest.mark.parametrize("name", CASES)
def test_steps_follow_the_rule(name: str, widest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(**CASES[name])
    if case.layout.kind == "learned":
        monkeypatch.setattr(op, "scoring", decoding.scorer_of(case)[1])
    seen = torch.zeros(case.batch, dtype=torch.int64)
    found = decoding.walk(case, case.new_state(), seen, range(1, min(widest, case.layout.span) + 1))
    torch.testing.assert_close(found, case.expected(), rtol=1e-9, atol=1e-9)


def prefill(case: Case, lengths: list[int]) -> op.State:
    """A state filled from one packed call; scores that later tokens may change are wrong in it."""
    layout = case.layout
    edges = torch.tensor([0, *lengths]).cumsum(0)

    def packed(x: Tensor) -> Tensor:
        return torch.cat([x[n, :length] for n, length in enumerate(lengths)])[None]

    z = death = None
    if layout.evicts:
        z = packed(case.z.transpose(1, 2)).transpose(1, 2).contiguous()
        z[..., (edges[1:, None] - 1 - torch.arange(layout.lookahead)).clamp(min=0)] = 7
        death = deaths(layout, z, edges, layout.sinks)
    state = case.new_state()
    op.fill(
        layout, state, packed(case.k), packed(case.v), next=torch.tensor(lengths),
        raw_k=packed(case.raw_k), z=z, death=death, cu_seqlens=edges,
    )  # fmt: skip
    return state


def deaths(layout: Layout, z: Tensor, edges: Tensor, sinks: int) -> Tensor:
    assert layout.window is not None
    floor = 0.0 if layout.kind == "learned" else -torch.inf
    return eviction.intervals(
        z, window=layout.window, budget=layout.budget, sinks=sinks, floor=floor, cu_seqlens=edges
    ).death  # fmt: skip


@pytest.mark.parametrize("lengths", [[1, 40], [22, 7]], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_steps_go_on_from_a_prefill(
    name: str, lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(**CASES[name])
    if case.layout.kind == "learned":
        monkeypatch.setattr(op, "scoring", decoding.scorer_of(case)[1])
    seen, widths = torch.tensor(lengths), (1, case.layout.span)
    found = decoding.walk(case, prefill(case, lengths), seen, widths)
    expected = case.expected()
    for n, length in enumerate(lengths):
        torch.testing.assert_close(found[n, length:], expected[n, length:], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_history_is_what_a_chunk_can_go_on_from(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case, chunk = Case(**CASES[name]), 9
    layout, start = case.layout, torch.tensor([31, 4])
    if layout.kind == "learned":
        monkeypatch.setattr(op, "scoring", decoding.scorer_of(case)[1])
    state = case.new_state()
    for t in range(31):  # the second sequence goes over its fourth token again and again
        seen = torch.minimum(torch.tensor([t, t]), start - 1)
        rows = torch.arange(2)[:, None], seen[:, None]
        scorer = decoding.scorer_of(case)[0] if layout.kind == "learned" else None
        if scorer is not None:
            scorer.network.copy_(seen)
        new = [x[rows] for x in (case.q, case.k, case.v)]
        op.step(layout, state, *new, seen=seen, raw_k=case.raw_k[rows], scorer=scorer, **case.rule)
    held = op.history(layout, state, start)
    new_positions = start[:, None] + torch.arange(chunk)
    rows = torch.arange(2)[:, None], new_positions
    width = held.k.shape[1] + chunk
    k = torch.cat([held.k, case.k[rows]], dim=1)
    v = torch.cat([held.v, case.v[rows]], dim=1)
    new_positions = new_positions[:, None].expand(-1, case.kv_heads, -1)
    positions = torch.cat([held.positions, new_positions], dim=-1)
    raw_k = z = death = None
    if layout.evicts:
        assert held.z is not None
        final = torch.isfinite(held.z)
        truth = case.z.gather(2, positions.clamp(min=0))
        torch.testing.assert_close(held.z[final], truth[..., :-chunk][final])
        z = truth.masked_fill(positions < 0, -torch.inf)
        pinned = (positions >= 0) & (positions < layout.sinks)
        death = deaths(
            layout,
            z.masked_fill(pinned, torch.inf).transpose(0, 1).flatten(1)[None],
            torch.arange(3) * width,
            sinks=0,  # the axis need not begin with them: an infinite score tells them
        )
        death = death.view(case.kv_heads, 2, width).transpose(0, 1)
        offset = (torch.arange(2) * width)[:, None, None]
        death = torch.where(death == NEVER, NEVER, death - offset)
    if held.raw_k is not None:
        raw_k = torch.cat([torch.zeros_like(held.k), case.raw_k[rows]], dim=1)
        raw_k[:, -chunk - held.raw_k.shape[1] : -chunk] = held.raw_k
    again = case.new_state()
    op.fill(
        layout, again, k, v, next=start + chunk, raw_k=raw_k, z=z, death=death, positions=positions
    )
    direct = prefill(case, (start + chunk).tolist())
    for name in direct.keys() - {"z", "k", "v", "raw_k"}:
        torch.testing.assert_close(again[name], direct[name], msg=name)
    scorer = decoding.scorer_of(case)[0] if layout.kind == "learned" else None
    outs = []
    for filled in (again, direct):
        seen = start + chunk
        rows = torch.arange(2)[:, None], seen[:, None]
        new = [x[rows] for x in (case.q, case.k, case.v)]
        outs.append(op.step(
            layout, filled, *new, seen=seen, raw_k=case.raw_k[rows], scorer=scorer and
            scorer._replace(network=seen), **case.rule,
        ))  # fmt: skip
    torch.testing.assert_close(outs[0], outs[1])


def test_bytes_are_those_of_the_tensors() -> None:
    for layout in (Layout(), Layout(10, sinks=3), CASES["learned"]["layout"]):
        for dtype, element in ((torch.bfloat16, 2), (torch.float64, 8)):
            state = op.new_state(layout, 3, 2, 8, 12, 50, dtype, "cpu")
            found = sum(tensor.nbytes for tensor in state.values())
            assert layout.nbytes(3, 2, 8, 12, 50, element) == found


@pytest.mark.parametrize(
    ("arguments", "way_out"),
    [
        ({"window": 0}, "nearest 1"),
        ({"window": 8, "budget": 4, "kind": "learned", "lookahead": 6}, "take span 1"),
        ({"window": 6, "budget": 4, "kind": "learned", "lookahead": 6}, "nearest window 8"),
        ({"window": 30, "budget": 3, "sinks": 4, "kind": "learned"}, "nearest 4"),
        ({"window": 8, "kind": "best"}, "plain, learned, norm, random"),
        ({"budget": 8, "kind": "norm"}, "a window alone"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, Any], way_out: str) -> None:
    with pytest.raises(ValueError, match=way_out):
        Layout(**arguments)


def test_a_step_refuses_what_it_would_misread() -> None:
    case = Case(Layout(10, budget=4, kind="norm"))
    state, seen = case.new_state(), torch.zeros(2, dtype=torch.int64)
    q, k, v, raw_k = (x[:, :1] for x in (case.q, case.k, case.v, case.raw_k))
    with pytest.raises(ValueError, match="raw_k"):
        op.step(case.layout, state, q, k, v, seen=seen)
    with pytest.raises(ValueError, match="k is of shape"):
        op.step(case.layout, state, q, k[..., :3], v, seen=seen, raw_k=raw_k)
    wide = [x[:, :9] for x in (case.q, case.k, case.v)]
    with pytest.raises(ValueError, match="takes 1 to 8"):
        op.step(case.layout, state, *wide, seen=seen, raw_k=case.raw_k[:, :9])
    with pytest.raises(ValueError, match="max_length"):
        Layout().ring(None)


def test_what_the_kernels_would_read_beyond() -> None:
    layout, (q, k) = Layout(4), (torch.ones(2, 1, 4, 8), torch.ones(2, 1, 2, 8))
    state = op.new_state(layout, 2, 2, 8, 8, None, torch.float32, "cpu")
    seen = torch.zeros(2, dtype=torch.int64)
    for wrong, message in (
        ({"seen": torch.zeros(1, dtype=torch.int64).expand(2)}, "seen holds numbers side by side"),
        ({"slopes": torch.ones(2)}, r"slopes is \(4,\)"),
        ({"sink_logits": torch.ones(8)[::2]}, r"sink_logits is \(4,\), one number beside"),
    ):
        with pytest.raises(ValueError, match=message):
            op.step(layout, state, q, k, k, **({"seen": seen} | wrong))


def test_more_rows_than_a_grid_has() -> None:
    state = op.new_state(Layout(1, span=1), 2**15, 2, 1, 1, None, torch.float32, "cpu")
    x, seen = torch.ones(2**15, 1, 2, 1), torch.zeros(2**15, dtype=torch.int64)
    with pytest.raises(ValueError, match="nearest 32767 sequences"):
        op.step(Layout(1, span=1), state, x, x, x, seen=seen)


def test_a_window_longer_than_its_sequences_holds_these() -> None:
    assert Layout(2**31 - 1).ring(64) == Layout(65).ring(64) == 64
    assert Layout(64).ring(64) == Layout(64).ring(None) == 72  # such a cache serves any length
    learned = Layout(500, budget=4, kind="learned", lookahead=6)
    assert learned.ring(40) == learned.raw_rows
