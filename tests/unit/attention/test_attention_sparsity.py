"""The control of sparsity: its price, its pace, and where it leads."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mixerlang.nn.attention import Attention
from mixerlang.nn.keeps import ByHead, Cnn, Learned, Union, Window
from mixerlang.nn.mixer import Context
from mixerlang.nn.sequences import Sequences
from mixerlang.nn.sparsity import Schedule, SparsityControl, kept_tokens

CNN = Cnn((3,), (1,), dropout=0.0)


def report(score, edge=1):
    final = torch.ones(score.shape[0], score.shape[-1], dtype=torch.bool)
    final[:, -edge:] = False
    return {"a": {"score": score, "final": final}}


def test_loss():
    """mean(price * relu(score)) over heads and the positions that are no edge."""
    control = SparsityControl({"a": 5, "b": 5})
    score = torch.randn(2, 3, 10).requires_grad_()
    assert control.loss(report(score)).item() == 0, "prices start at 0"
    control.prices = {"a": torch.tensor([0.5, 0.0, 1.0]), "b": torch.tensor([0.25])}
    other = torch.randn(1, 1, 4)
    aux = report(score) | {"b": report(other)["a"], "other": {"z": other}}
    loss = control.loss(aux)
    priced = score.relu()[..., :-1] * control.prices["a"][:, None]
    total = priced.sum() + 0.25 * other.relu()[..., :-1].sum()
    torch.testing.assert_close(loss, total / (2 * 3 * 9 + 3))
    loss.backward()
    assert (score.grad[:, 1] == 0).all() and (score.grad[..., -1] == 0).all()
    assert control.loss({}).item() == 0


def test_prices():
    """Every few steps: up above the budget, down below 0.95 of it, held between."""
    control = SparsityControl({"a": 40}, Schedule(every=1, memory=1))
    heads = {"above": 41, "at": 40, "low": 38, "below": 37, "silent": 37, "cheap": 30}
    score = torch.full((1, len(heads), 100), -1.0)
    for head, kept in enumerate(heads.values()):
        score[0, head, :kept] = 1.0
    control.prices["a"] = torch.tensor([0.2, 0.2, 0.2, 0.2, 0.0, 1.5e-9])
    control.update(report(score))
    assert control.prices["a"].tolist() == pytest.approx([0.3, 0.2, 0.2, 0.1, 0.0, 0.0])
    control.prices["a"] = torch.tensor([0.9, 0.0, 0.0, 0.0, 0.0, 0.0])
    control.update(report(score))
    assert control.prices["a"].tolist() == pytest.approx([1.0, 1e-9, 0.0, 0.0, 0.0, 0.0])


def test_average_and_pace():
    """The average starts at the length, moves by 2 / 17 a step, and acts every 32 steps."""
    control = SparsityControl({"a": 5})
    score = torch.ones(2, 1, 100)
    score[0, :, 30:] = score[1, :, 10:] = -1.0
    average = 100.0
    for step in range(1, 65):
        control.update(report(score))
        average += 2 / 17 * (20 - average)
        assert control.kept["a"].item() == pytest.approx(average)
        price = control.prices.get("a", torch.zeros(1)).item()
        assert price == pytest.approx({0: 0.0, 1: 1e-9, 2: 1.5e-9}[step // 32])
    edge = SparsityControl({"a": 5}, Schedule(memory=1))
    edge.update(report(torch.ones(1, 1, 10), edge=6))
    assert edge.kept["a"].item() == 4, "the last positions are not counted"


def lte(heads=3, budget=4):
    keep = Union((Window(3), Learned(budget, 1, CNN)))
    return Attention(8, heads=heads, keep=ByHead((keep, keep, Window(2))))


def test_finds_the_layers():
    shared = lte()
    model = nn.ModuleDict({"x": shared, "y": shared, "z": Attention(8, heads=2)})
    control = SparsityControl.of(model)
    assert control.budgets == {"x.branches.0": 4, "y.branches.0": 4}
    aux = {}
    x = torch.randn(2, 9, 8)
    for name in ("x", "y"):
        model[name](x, Context(Sequences.of(x), None, aux, name))
    assert aux.keys() == control.budgets.keys()
    assert aux["x.branches.0"]["score"].shape == (2, 2, 9)


def test_drives_heads_to_their_budget():
    """Against a task that wants every token, the price alone ends each head at its budget."""
    torch.manual_seed(0)
    length, budget = 48, 16
    layer = Attention(8, heads=2, keep=Union((Window(4), Learned(budget, 0, CNN)))).train()
    schedule = Schedule(every=4, grow=1.2, shrink=1.2, start=0.01)
    control = SparsityControl.of(layer, schedule)
    optimizer = torch.optim.Adam(layer.branches[0].scorer.parameters(), lr=0.01)
    kept = []
    for _ in range(400):
        x = torch.randn(8, length, 8)
        aux = {}
        layer(x, Context(Sequences.of(x), None, aux))
        score, final = aux["branches.0"].values()
        worth = (x[..., :1].transpose(1, 2) + 0.5).relu()
        loss = control.loss(aux) - 0.1 * (worth * score).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        control.update(aux)
        kept.append(kept_tokens(score, final))
    assert (kept[0] > 1.5 * budget).all()
    last = torch.stack(kept[-100:]).mean(0)
    assert ((last > 0.8 * budget) & (last < 1.1 * budget)).all(), last


def test_state_round_trip():
    """A restored control goes on to the same digits."""
    scores = [torch.randn(2, 3, 20) + 0.3 for _ in range(40)]
    schedule = Schedule(every=3, start=0.01)
    whole, first = SparsityControl({"a": 8}, schedule), SparsityControl({"a": 8}, schedule)
    for score in scores[:20]:
        whole.update(report(score))
        first.update(report(score))
    second = SparsityControl({"a": 8}, schedule)
    second.load_state_dict(first.state_dict())
    first.update(report(scores[0]))  # what was saved is not what goes on
    for score in scores[20:]:
        whole.update(report(score))
        second.update(report(score))
    assert second.steps == whole.steps == 40
    assert torch.equal(second.prices["a"], whole.prices["a"]) and whole.prices["a"].any()
    assert torch.equal(second.kept["a"], whole.kept["a"])
    with pytest.raises(ValueError, match="no layer a to control"):
        SparsityControl({"b": 1}).load_state_dict(first.state_dict())
