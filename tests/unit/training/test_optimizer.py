"""AdamW without torch._dynamo: torch's own steps, and no import of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mixerlang.training.optimizer import AdamW

ROOT = Path(__file__).parents[3]


def steps(kind: type[torch.optim.Optimizer]) -> list[torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = nn.Linear(4, 3), torch.randn(5, 4)
    groups = [{"params": [model.weight], "weight_decay": 0.1}, {"params": [model.bias]}]
    optimizer = kind(groups, lr=0.1, fused=True)  # type: ignore[call-arg]
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    state = optimizer.state_dict()["state"]
    return [*model.parameters(), *(x for each in state.values() for x in each.values())]


def test_steps_are_torchs_own() -> None:
    found, expected = steps(AdamW), steps(torch.optim.AdamW)
    assert len(found) == 8
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_a_closure_has_gradients_and_hooks_run_once() -> None:
    weight, called = nn.Parameter(torch.ones(3)), list[str]()
    optimizer = AdamW([weight], lr=0.1)
    optimizer.register_step_pre_hook(lambda *_: called.append("before"))
    optimizer.register_step_post_hook(lambda *_: called.append("after"))

    def closure() -> float:
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 3.0
    assert called == ["before", "after"]
    assert weight.grad is not None and not weight.equal(torch.ones(3))


def test_states_go_to_torchs_own_and_back() -> None:
    weight = nn.Parameter(torch.ones(3))
    mine, theirs = AdamW([weight], lr=0.1), torch.optim.AdamW([weight], lr=0.2)
    weight.grad = torch.ones(3)
    mine.step()
    theirs.load_state_dict(mine.state_dict())
    mine.load_state_dict(theirs.state_dict())
    assert mine.state_dict()["param_groups"] == theirs.state_dict()["param_groups"]
    with pytest.raises(ValueError, match="appear in more than one"):
        mine.add_param_group({"params": [weight]})


def test_a_run_does_without_the_compiler() -> None:
    """A fresh process that trains never imports torch._dynamo."""
    script = """
import sys
import mixerlang
from mixerlang.training import TrainConfig, open_corpus, train
config = TrainConfig(steps=2, batch=1, length=8, eval_every=2, eval_batches=1, dtype="float32")
model = mixerlang.load("specs/tiny/transformer.mix")
print(train(model, open_corpus("README.md"), config).reason, "torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "finished False\n", done.stderr[-2000:]
