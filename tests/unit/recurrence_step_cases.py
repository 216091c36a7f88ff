"""Cases of a decoding step, and sequences of steps against the definition in float64."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mixerlang.kernels.recurrence import reference
from mixerlang.kernels.recurrence.step_op import (
    Inputs,
    State,
    StepRule,
    Weights,
    catch_up,
    new_state,
    step,
)

Errors = dict[str, list[float]]

UNIT: dict[str, Any] = {
    "activation": "silu",
    "norm": "l2norm",
    "value_activation": "silu",
    "conv": 4,
}
DELTA: dict[str, Any] = UNIT | {"delta": True, "step": "sigmoid"}
RULES = {
    "gated deltanet": StepRule(2, 4, 16, 24, **DELTA, decay="scalar", output="silu", scale=0.25),
    "deltanet": StepRule(3, 3, 20, 12, **DELTA | {"step_scale": 2.0}, output="rmsnorm"),
    "kda": StepRule(2, 2, 12, 16, **DELTA, decay="softplus", output="sigmoid"),
    "grouped kda": StepRule(2, 6, 5, 7, **DELTA | {"conv": 3}, decay="softplus"),
    "gla": StepRule(2, 2, 8, 16, decay="sigmoid", temperature=16.0, output="silu"),
    "hgrn2": StepRule(3, 3, 16, 16, activation="silu", decay="sigmoid", complement=True,
                      output="rmsnorm", scale=0.25),
    "mamba2": StepRule(1, 6, 16, 8, conv=4, activation="silu", value_activation="silu",
                       decay="scalar", step="decay", skip=True, output="silu"),
    "retnet": StepRule(2, 2, 16, 32, decay="fixed", output="silu"),
    "linear": StepRule(3, 3, 8, 8, activation="elu1", normalize=True),
    "softmax features": StepRule(2, 2, 10, 6, conv=2, norm="softmax", activation="relu",
                                 normalize=True, decay="scalar"),
    "heads of 100": StepRule(1, 2, 100, 100, **DELTA | {"conv": 8}, decay="scalar",
                             output="silu"),
}  # fmt: skip


def draw(
    rule: StepRule, batch: int, tokens: int, dtype: torch.dtype, device: str = "cpu"
) -> tuple[Inputs, Weights]:
    """Rows of one projection, as a layer has them, and parameters in float32 (64 for float64)."""
    torch.manual_seed(0)
    widths = rule.widths
    if rule.output in ("silu", "sigmoid"):
        widths |= {"gate": rule.value_heads * rule.value_dim}
    rows = torch.randn(batch, tokens, sum(widths.values()), device=device).to(dtype)
    inputs = dict(zip(widths, rows.split(list(widths.values()), dim=-1), strict=True))
    wide = torch.promote_types(dtype, torch.float32)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, dtype=wide)

    heads = rule.heads if rule.decay == "softplus" else rule.value_heads
    decay = -randn(heads).abs() if rule.decay == "fixed" else randn(heads)
    return inputs, Weights(
        conv=randn(rule.channels, rule.conv) if rule.conv else None,
        decay=decay if rule.decay in ("fixed", "scalar", "softplus") else None,
        bias=randn(widths["a"]) - 3 if rule.decay in ("scalar", "softplus") else None,
        skip=randn(rule.value_heads) if rule.skip else None,
        norm=randn(rule.value_dim) if rule.output != "none" else None,
    )


def expected(rule: StepRule, inputs: Inputs, weights: Weights) -> tuple[Tensor, Tensor]:
    """Outputs (N, T, A, V) of all tokens from the first, and the state after them, in float64."""
    x = {name: rows.double() for name, rows in inputs.items()}
    w = Weights(*(None if each is None else each.double() for each in weights))
    q, k, v = (conv(rule, w, x, name) for name in "qkv")
    g, b = decay_of(rule, w, x)
    k = -torch.expm1(g) if k is None else mapped(rule, k)
    v = activated(v.unflatten(-1, (rule.value_heads, -1)), rule.value_activation)
    o, S, _ = reference.recurrence(
        mapped(rule, q), k, v, g, b, delta=rule.delta, normalize=rule.normalize, scale=rule.scale
    )
    if w.skip is not None:
        o = o + w.skip[:, None] * v
    if w.norm is not None:
        o = F.rms_norm(o, o.shape[-1:], w.norm, rule.eps)
    if "gate" in x:
        gate = x["gate"].unflatten(-1, o.shape[2:])
        o = o * (F.silu(gate) if rule.output == "silu" else gate.sigmoid())
    return o, S


def conv(rule: StepRule, w: Weights, x: Inputs, name: str) -> Any:
    """Tap by tap."""
    if name not in x or w.conv is None:
        return x.get(name)
    first = sum(rule.widths.get(each, 0) for each in "qkv"[: "qkv".index(name)])
    taps = w.conv[first : first + x[name].shape[-1]]
    padded = F.pad(x[name], (0, 0, rule.conv - 1, 0))
    tokens = x[name].shape[1]
    return sum(taps[:, i] * padded[:, i : i + tokens] for i in range(rule.conv))


def activated(x: Tensor, name: str) -> Tensor:
    functions: dict[str, Any] = {"silu": F.silu, "relu": F.relu, "elu1": lambda y: F.elu(y) + 1}
    return functions[name](x) if name in functions else x


def mapped(rule: StepRule, x: Tensor) -> Tensor:
    x = activated(x.unflatten(-1, (rule.heads, -1)), rule.activation)
    if rule.norm == "l2norm":
        return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()
    return x.softmax(-1) if rule.norm == "softmax" else x


def decay_of(rule: StepRule, w: Weights, x: Inputs) -> tuple[Any, Any]:
    """g, the log of the decay, and b."""
    b = rule.step_scale * x["b"].sigmoid() if "b" in x else None
    if rule.decay == "none":
        return None, b
    if rule.decay == "fixed":
        return w.decay.expand(*x["v"].shape[:2], -1), b  # type: ignore[union-attr]
    if rule.decay == "sigmoid":
        return F.logsigmoid(x["a"]).unflatten(-1, (rule.heads, -1)) / rule.temperature, b
    softplus = F.softplus(x["a"] + w.bias)
    if rule.decay == "softplus":
        return -w.decay.exp()[:, None] * softplus.unflatten(-1, (rule.heads, -1)), b  # type: ignore[union-attr]
    return -w.decay.exp() * softplus, softplus if rule.step == "decay" else b  # type: ignore[union-attr]


def part(inputs: Inputs, start: int, end: int) -> Inputs:
    return {name: rows[:, start:end] for name, rows in inputs.items()}


def walk(
    rule: StepRule, state: State, inputs: Inputs, weights: Weights, sizes: list[tuple[int, int]]
) -> tuple[Tensor, Tensor]:
    """Steps of so many tokens, of which so many are then taken back; the outputs of those that
    stay, and S after them."""
    batch, start, outs = len(state["S"]), 0, []
    seen = torch.zeros(batch, dtype=torch.int64, device=state["S"].device)
    for tokens, back in sizes:
        out = step(rule, state, part(inputs, start, start + tokens), weights, seen=seen + start)
        outs.append(out[:, : tokens - back])
        start += tokens - back
    catch_up(rule, state, weights, seen=seen + start)
    return torch.cat(outs, dim=1), state["S"]


SIZES = [(1, 0), (1, 0), (3, 1), (1, 0), (8, 8), (8, 3), (2, 0), (1, 0), (8, 0), (1, 0)]
SHORT = [(1, 0), (3, 1), (1, 0), (2, 2), (1, 0)]


def errors(
    rule: StepRule,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    batch: int = 2,
    state_dtype: torch.dtype = torch.float32,
    sizes: list[tuple[int, int]] = SIZES,
) -> list[float]:
    """Relative errors of outputs and the last state of a walk."""
    inputs, weights = draw(rule, batch, 32, dtype, device)
    state = new_state(rule, batch, dtype, torch.device(device), state_dtype)
    found = walk(rule, state, inputs, weights, sizes)
    staying = sum(tokens - back for tokens, back in sizes)
    wanted = expected(rule, part(inputs, 0, staying), weights)
    return [((a.double() - b).norm() / b.norm()).item() for a, b in zip(found, wanted, strict=True)]
