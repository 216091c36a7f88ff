"""A decoding step in plain PyTorch: what runs where Triton does not. Shapes as in step_state.py."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import reference
from .step_rule import SPAN, StepRule
from .step_state import Inputs, State, Weights


def step(rule: StepRule, state: State, inputs: Inputs, weights: Weights, seen: Tensor) -> Tensor:
    """(N, T, A, V)."""
    catch_up(rule, state, weights, seen)
    tokens = inputs["v"].shape[1]
    before = seen[:, None] + torch.arange(-max(0, rule.conv - 1), 0, device=seen.device)
    window = {name: rows for name, rows in inputs.items() if name != "gate"}
    for name in rule.kept:
        old = _rows(state, name, before)
        window[name] = torch.cat([old, inputs[name].to(old.dtype)], dim=1)
    S, z, o = _moved(rule, state, window, weights, tokens)
    if tokens == 1:
        state["S"].copy_(S)
        if z is not None:
            state["z"].copy_(z)
        state["committed"].add_(1)
    entries = (seen[:, None] + torch.arange(tokens, device=seen.device)) % rule.ring
    for name in rule.kept:
        places = entries[..., None].expand(-1, -1, state[name].shape[2])
        state[name].scatter_(1, places, inputs[name].to(state[name].dtype))
    return _finished(rule, o, inputs, weights).to(inputs["v"].dtype)


def catch_up(rule: StepRule, state: State, weights: Weights, seen: Tensor) -> None:
    """S and z after all tokens before `seen`, of which at most SPAN are not yet in them."""
    before = SPAN + max(0, rule.conv - 1)
    position = seen[:, None] + torch.arange(-before, 0, device=seen.device)
    window = {name: _rows(state, name, position) for name in rule.kept}
    late = position[:, before - SPAN :, None] >= state["committed"][:, None]
    S, z, _ = _moved(rule, state, window, weights, SPAN, late)
    state["S"].copy_(S)
    if z is not None:
        state["z"].copy_(z)
    state["committed"].copy_(seen[:, None].expand_as(state["committed"]))


def _rows(state: State, name: str, position: Tensor) -> Tensor:
    """(N, tokens, width): what the tokens at these positions brought, zero before the first."""
    ring = state[name]
    rows = torch.arange(len(ring), device=ring.device)[:, None]
    return ring[rows, position % ring.shape[1]].masked_fill((position < 0)[..., None], 0)


def _moved(
    rule: StepRule,
    state: State,
    window: Inputs,
    weights: Weights,
    tokens: int,
    counted: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """S, z and outputs of the last `tokens` tokens of a window; of those that are not `counted`
    (N, tokens, A) nothing enters the state."""
    wide = torch.promote_types(state["S"].dtype, torch.float32)
    x = {name: rows.to(wide) for name, rows in window.items()}
    q, k, v = _convolved(rule, x, weights, tokens)
    a, b = (x[name][:, -tokens:] if name in x else None for name in "ab")
    g, step = _decay(rule, a, weights, v)
    if rule.step == "sigmoid":
        assert b is not None
        step = rule.step_scale * b.sigmoid()
    v = _activated(torch.unflatten(v, -1, (rule.value_heads, -1)), rule.value_activation)
    if k is None:
        assert g is not None
        k = -torch.expm1(g)
    else:
        k = _mapped(rule, k)
    q = torch.zeros_like(k) if q is None else _mapped(rule, q)
    if counted is not None:
        step = torch.ones_like(v[..., 0]) if step is None else step
        step = step * counted
        if g is not None:
            per_key = g.dim() == 4
            mask = counted[:, :, :: rule.group, None] if per_key else counted
            g = g.masked_fill(~mask, 0)
    o, S, z = reference.recurrence(
        q, k, v, g, step, state["S"], state.get("z"),
        delta=rule.delta, normalize=rule.normalize, scale=rule.scale,
    )  # fmt: skip
    if weights.skip is not None:
        o = o + weights.skip.to(wide)[:, None] * v
    return S, z, o


def _convolved(
    rule: StepRule, x: Inputs, weights: Weights, tokens: int
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """q, k, v of the last `tokens` tokens, through the convolution if there is one."""
    found: list[Tensor | None] = []
    first = 0
    for name in "qkv":
        rows, width = x.get(name), rule.widths.get(name, 0)
        if rows is not None and weights.conv is not None:
            taps = weights.conv[first : first + width].to(rows.dtype)
            seen = F.pad(rows, (0, 0, rule.conv - 1, 0))[:, -(tokens + rule.conv - 1) :]
            rows = F.conv1d(seen.mT, taps[:, None], groups=width).mT
        found.append(None if rows is None else rows[:, -tokens:])
        first += width
    q, k, v = found
    assert v is not None
    return q, k, v


def _mapped(rule: StepRule, x: Tensor) -> Tensor:
    x = _activated(torch.unflatten(x, -1, (rule.heads, -1)), rule.activation)
    if rule.norm == "l2norm":
        return x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt()
    return x.softmax(-1) if rule.norm == "softmax" else x


def _activated(x: Tensor, name: str) -> Tensor:
    if name == "silu":
        return F.silu(x)
    if name == "relu":
        return F.relu(x)
    return F.elu(x) + 1 if name == "elu1" else x


def _decay(
    rule: StepRule, a: Tensor | None, weights: Weights, v: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """The log of the decay, and the step where it gives one."""
    if rule.decay == "none":
        return None, None
    if rule.decay == "fixed":
        assert weights.decay is not None
        return weights.decay.expand(*v.shape[:2], -1), None
    assert a is not None
    if rule.decay == "sigmoid":
        g = torch.unflatten(F.logsigmoid(a), -1, (rule.heads, -1))
        return g / rule.temperature, None
    assert weights.decay is not None and weights.bias is not None
    softplus = F.softplus(a + weights.bias.to(a.dtype))
    rate = -weights.decay.to(a.dtype).exp()
    if rule.decay == "softplus":
        return rate[:, None] * torch.unflatten(softplus, -1, (rule.heads, -1)), None
    return rate * softplus, softplus if rule.step == "decay" else None


def _finished(rule: StepRule, o: Tensor, inputs: Inputs, weights: Weights) -> Tensor:
    if rule.output == "none":
        return o
    assert weights.norm is not None
    o = o * (o.square().mean(-1, keepdim=True) + rule.eps).rsqrt() * weights.norm.to(o.dtype)
    if rule.output == "rmsnorm":
        return o
    gate = torch.unflatten(inputs["gate"].to(o.dtype), -1, (rule.value_heads, -1))
    return o * (F.silu(gate) if rule.output == "silu" else gate.sigmoid())
