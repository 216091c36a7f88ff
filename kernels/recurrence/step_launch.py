"""Launch the kernel of a decoding step on CUDA tensors; shapes as in step_op.py."""

from __future__ import annotations

from functools import cache

from torch import Tensor

from ..launcher import Launcher
from . import step_kernel
from .step_cut import Plan, choose, constants
from .step_rule import StepRule
from .step_state import Inputs, State, Weights


def step(
    rule: StepRule,
    state: State,
    inputs: Inputs,
    weights: Weights,
    seen: Tensor,
    plan: Plan | None = None,
) -> Tensor:
    """(N, T, A, V)."""
    v = inputs["v"]
    out = v.new_empty(*v.shape[:2], rule.value_heads, rule.value_dim)
    _launch(rule, state, inputs, weights, seen, out, plan)
    return out


def catch_up(rule: StepRule, state: State, weights: Weights, seen: Tensor) -> None:
    """S and z after all tokens before `seen`."""
    _launch(rule, state, {}, weights, seen, None, None)


def _launch(
    rule: StepRule,
    state: State,
    inputs: Inputs,
    weights: Weights,
    seen: Tensor,
    out: Tensor | None,
    plan: Plan | None,
) -> None:
    given = {name: _adjacent(x) for name, x in inputs.items()}
    strides = []
    for name in ("q", "k", "v", "a", "b", "gate"):
        x = given.get(name)
        strides += [0, 0] if x is None else [x.stride(0), x.stride(1)]
    rings = {name: state[name] for name in rule.kept}
    given = dict.fromkeys(("q", "k", "v"), state["S"]) | given  # stand-ins where nothing is read
    if plan is None:
        plan = choose(rule, len(seen) * rule.value_heads, state["S"].element_size())
    _launcher(rule, 0 if out is None else out.shape[1], plan)(
        (rule.value_heads, len(seen)),
        *(given.get(name, rings.get(name)) for name in ("q", "k", "v", "a", "b")),
        given.get("gate"),
        *(rings.get(name) for name in ("q", "k", "v", "a", "b")),
        *(state["S"], state.get("z"), state["committed"], seen),
        *(weights.conv, weights.decay, weights.bias, weights.skip, weights.norm),
        state["S"] if out is None else out,
        *strides,
    )


@cache
def _launcher(rule: StepRule, tokens: int, plan: Plan) -> Launcher:
    return Launcher(step_kernel.recurrence_step, constants(rule, tokens, plan, False))


def _adjacent(x: Tensor) -> Tensor:
    """x, copied only if its channels do not lie side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()
