"""A decoding step of a recurrence layer, between its projections: up to SPAN tokens in one launch.

Shapes: N sequences, T new tokens of each, H heads of q and k, A value heads, K and V channels of a
head of the state, which step_state.py describes.

    rule = StepRule(heads=H, value_heads=A, key_dim=K, value_dim=V, conv=4, decay="scalar", ...)
    state = new_state(rule, N, dtype, device)
    fill(rule, state, inputs, S, z, seen=lengths)            after a prefill
    out = step(rule, state, inputs, weights, seen=lengths)   then lengths += T

`step` changes the state in place, never waits for the device, and may be captured in a CUDA graph.
Tokens of a step of several can be taken back: call the next one with a smaller `seen`. On CUDA the
kernel of step_kernel.py runs, elsewhere, and in float64, step_dense.py.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..loader import namespace
from . import step_dense
from .step_rule import SPAN, StepRule
from .step_state import Inputs, State, Weights, fill, new_state, tail

NAMESPACE = namespace(__name__)
INPUTS = ("q", "k", "v", "a", "b")
MOST_SEQUENCES = 2**16 - 1
"""The second axis of a grid."""


def step(rule: StepRule, state: State, inputs: Inputs, weights: Weights, *, seen: Tensor) -> Tensor:
    """Show new tokens to the state: (N, T, A, V), normed and gated as the rule says.

    inputs: rows (N, T, width) by name, as in rule.widths, and `gate`; seen (N,) int64, the tokens
    before these.
    """
    _check(rule, state, inputs, weights, seen)
    out: Tensor = _step(
        *(inputs.get(name) for name in (*INPUTS, "gate")),
        *(state.get(name) for name in (*INPUTS, "S", "z", "committed")),
        *(seen, *weights),
        _coded(rule),
    )
    return out


def catch_up(rule: StepRule, state: State, weights: Weights, *, seen: Tensor) -> None:
    """Bring S and z up to the tokens before `seen`, for who reads them: a step of several tokens
    leaves them before its own."""
    _check(rule, state, {}, weights, seen)
    with torch.no_grad():
        _module(state["S"], seen).catch_up(rule, state, weights, seen)


def _check(rule: StepRule, state: State, inputs: Inputs, weights: Weights, seen: Tensor) -> None:
    """Refuse shapes that the kernel would read beyond."""
    batch, heads, keys = len(seen), rule.heads, rule.key_dim
    values, value_heads = rule.value_dim, rule.value_heads
    wanted: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "S": (state["S"], (batch, value_heads, keys, values)),
        "committed": (state["committed"], (batch, value_heads)),
        "seen": (seen, (batch,)),
    }
    if rule.normalize:
        wanted["z"] = state["z"], (batch, value_heads, keys)
    for name, width in rule.kept.items():
        wanted[f"ring of {name}"] = state[name], (batch, rule.ring, width)
    tokens = 0
    if inputs:
        tokens = inputs["v"].shape[1]
        if not 1 <= tokens <= SPAN:
            raise ValueError(f"{tokens} new tokens a step: it takes 1 to {SPAN}")
        for name, width in rule.widths.items():
            wanted[name] = inputs.get(name), (batch, tokens, width)
        if rule.output in ("silu", "sigmoid"):
            wanted["gate"] = inputs.get("gate"), (batch, tokens, value_heads * values)
    if rule.conv:
        wanted["conv"] = weights.conv, (rule.channels, rule.conv)
    if rule.decay in ("fixed", "scalar", "softplus"):
        wanted["decay"] = weights.decay, (heads if rule.decay == "softplus" else value_heads,)
    if rule.decay in ("scalar", "softplus"):
        wanted["bias"] = weights.bias, (rule.widths["a"],)
    if rule.skip:
        wanted["skip"] = weights.skip, (value_heads,)
    if rule.output != "none":
        wanted["norm"] = weights.norm, (values,)
    for name, (tensor, shape) in wanted.items():
        if tensor is None or tuple(tensor.shape) != shape:
            found = None if tensor is None else tuple(tensor.shape)
            raise ValueError(f"{name} is of shape {found}, where {shape} is due")
        if not tensor.is_contiguous() and name not in inputs:
            raise ValueError(f"{name} lies contiguously, not with strides {tensor.stride()}")
    if batch > MOST_SEQUENCES:
        raise ValueError(f"{batch} sequences: a step takes {MOST_SEQUENCES}")


def _module(S: Tensor, seen: Tensor) -> Any:
    """What serves a state: both have a `step` and a `catch_up`."""
    if not seen.is_cuda or S.dtype == torch.float64:
        return step_dense
    from . import step_launch  # needs triton, which a machine without CUDA may lack

    return step_launch


@cache
def _coded(rule: StepRule) -> str:
    """As an op takes it."""
    return json.dumps(asdict(rule))


@cache
def _decoded(rule: str) -> StepRule:
    return StepRule(**json.loads(rule))


def _run(*arguments: Any) -> Tensor:
    *tensors, coded = arguments
    rule = _decoded(coded)
    inputs = dict(zip((*INPUTS, "gate"), tensors[:6], strict=True))
    state = dict(zip((*INPUTS, "S", "z", "committed"), tensors[6:14], strict=True))
    seen, weights = tensors[14], Weights(*tensors[15:])
    inputs, state = (
        {name: x for name, x in each.items() if x is not None} for each in (inputs, state)
    )
    out: Tensor = _module(state["S"], seen).step(rule, state, inputs, weights, seen)
    return out


def _fake(*arguments: Any) -> Tensor:
    v, rule = arguments[2], _decoded(arguments[-1])
    out: Tensor = v.new_empty(*v.shape[:2], rule.value_heads, rule.value_dim)
    return out


def _flops(*arguments: Any, **_: Any) -> int:
    sequences, tokens, _width = arguments[2]
    return _decoded(arguments[-1]).flops(sequences, tokens)


_GIVEN = ", ".join(f"Tensor{'' if name == 'v' else '?'} {name}" for name in (*INPUTS, "gate"))
_RINGS = ", ".join(
    f"Tensor({letter}!)? {name}_ring" for letter, name in zip("abcde", INPUTS, strict=True)
)
_STATE = f"{_RINGS}, Tensor(f!) S, Tensor(g!)? z, Tensor(h!) committed"
_WEIGHTS = ", ".join(f"Tensor? {name}" for name in Weights._fields)

_step = ops.define(
    f"{NAMESPACE}::recurrence_step",
    f"({_GIVEN}, {_STATE}, Tensor seen, {_WEIGHTS}, str rule) -> Tensor",
    _run,
    _fake,
    flops=_flops,
)

__all__ = ["Inputs", "State", "StepRule", "Weights", "catch_up", "fill", "new_state", "step",
           "tail"]  # fmt: skip
