"""The recurrence through kernels: on the call's own layout, without padding.

A call of many tokens takes one matmul for q, k and v, one launch for their convolution and maps,
the chunked recurrence, and one launch for norm and gate. A step of a few tokens takes one launch
between its projections. State: as in kernels/recurrence/step_state.py.

Shapes: B sequences of T tokens, or packed (1, total); N sequences; A value heads.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..kernels.convolution.cut import Part
from ..kernels.convolution.op import convolve
from ..kernels.norm.gated_op import gated_norm
from ..kernels.recurrence import step_op
from ..kernels.recurrence.op import DTYPES, recurrence
from ..kernels.recurrence.step_rule import SPAN, StepRule, chain, unserved
from ..kernels.recurrence.step_state import Weights
from ..kernels.recurrence.variant import unserved as chunks_unserved
from . import backend
from .decay import Additive, Decay, Delta, Fixed, FixedDecay, Scalar, Update, Vector
from .features import Compose, Elu1, Feature, Identity, L2Norm, Relu, Silu, Softmax
from .mixer import Context, State
from .position import Rope, rotated
from .projection import projected
from .weights import version

if TYPE_CHECKING:
    from .recurrence import Recurrence

WORDS: dict[type[Feature], str] = {
    Identity: "identity",
    Silu: "silu",
    Relu: "relu",
    Elu1: "elu1",
    L2Norm: "l2norm",
    Softmax: "softmax",
}
"""Of the maps that a step knows."""


# ------------------------------------------------------------------------------------- planning


class Plan(NamedTuple):
    """rule: of a step; None where kernels do not serve the layer. reason: why they do not, or why
    only steps are theirs. prepared: whether q and k are mapped before a step, as it cannot."""

    rule: StepRule | None
    reason: str | None = None
    prepared: bool = False


def plan(
    *,
    features: Feature,
    values: Feature,
    decay: Decay,
    update: Update,
    position: Rope | None,
    key_dim: int,
    conv: int,
    **fixed: Any,
) -> Plan:
    """For the arguments of a layer; `fixed` are those that a rule takes as they are."""
    words, width = words_of(features), features.width(key_dim)
    reason = unserved(words, words_of(values), rope=position is not None, conv=conv, key_dim=width)
    if reason is not None:
        return Plan(None, reason)
    maps, value_maps = chain(words), chain(words_of(values))
    assert value_maps is not None
    prepared = maps is None or position is not None
    activation, norm = ("none", "none") if maps is None or prepared else maps
    rule = StepRule(
        key_dim=width,
        conv=conv,
        activation=activation,
        norm=norm,
        value_activation=value_maps[0],
        delta=isinstance(update, Delta),
        **decay_of(decay),
        **step_of(update),
        **fixed,
    )
    kind = "vector" if isinstance(decay, Vector) else "scalar"
    reason = chunks_unserved(width, rule.value_dim, rule.normalize, kind)
    return Plan(rule, reason, prepared)


def words_of(feature: Feature) -> list[str]:
    """The maps that it is, one after another; "" for one that no step knows."""
    parts = feature.parts if isinstance(feature, Compose) else (feature,)
    return [WORDS.get(type(part), "") for part in parts]


def decay_of(decay: Decay) -> dict[str, Any]:
    match decay:
        case Fixed():
            return {"decay": "fixed"}
        case Scalar():
            return {"decay": "scalar"}
        case Vector():
            return {"decay": decay.form, "temperature": decay.temperature}
        case _:
            return {"decay": "none"}


def step_of(update: Update) -> dict[str, Any]:
    if update.gated:
        scale = update.scale if isinstance(update, Delta) else 1.0
        return {"step": "sigmoid", "step_scale": scale}
    takes = isinstance(update, Additive) and update.step
    return {"step": "decay" if takes else "none"}


# ----------------------------------------------------------------------------------------- calls


def new_state(rule: StepRule, batch: int, dtype: torch.dtype, device: torch.device) -> State:
    return step_op.new_state(rule, batch, dtype, device)


def holds(state: State | None) -> bool:
    """Whether a state is one of the kernels."""
    return state is not None and "committed" in state


def mix(layer: Recurrence, x: Tensor, context: Context) -> Tensor:
    """(B, T, A, V) of x (B, T, dim), normed and gated."""
    rule = layer.plan.rule
    assert rule is not None, layer.plan.reason
    sequences, state = context.sequences, context.state
    if state is None or sequences.packed or sequences.length > SPAN or torch.is_grad_enabled():
        return _sequence(layer, rule, x, context)
    inputs = projected(x, layer.projections())
    if layer.plan.prepared:
        inputs |= _prepared(layer, inputs, context)
    o = step_op.step(rule, state, inputs, weights(layer, rule), seen=sequences.offsets)
    context.store(state, revocable=x.shape[1] > 1)
    return o


def _sequence(layer: Recurrence, rule: StepRule, x: Tensor, context: Context) -> Tensor:
    """A call of many tokens, or one that is differentiated."""
    sequences, state, cache = context.sequences, context.state, context.cache
    starts, tail = sequences.cu_seqlens, None
    before: State = {}
    if state is not None and cache is not None and cache.longest > 0:
        step_op.catch_up(rule, state, weights(layer, rule), seen=sequences.offsets)
        before, tail = state, step_op.tail(rule, state, sequences.offsets)
    inputs = projected(x, layer.projections(), joined=("q", "k", "v"))
    if layer.plan.prepared:
        inputs |= _prepared(layer, inputs, context)
    q, k, v = _mapped(layer, rule, inputs, tail, starts)
    g, b = layer.gates(x, inputs.get("a"), inputs.get("b"))
    if k is None:
        assert g is not None
        k = -torch.expm1(g).to(v.dtype)
    if v.is_cuda and v.dtype not in DTYPES:
        backend.explain(f"a recurrence's chunks in plain PyTorch: kernels serve no {v.dtype}")
    with without_autocast(v):
        o, S, z = recurrence(
            q, k, v, g, b, _wide(before.get("S")), _wide(before.get("z")),
            delta=rule.delta, normalize=rule.normalize, scale=rule.scale, cu_seqlens=starts,
        )  # fmt: skip
    if state is not None:
        with torch.no_grad():
            reached = sequences.offsets + sequences.counts
            step_op.fill(rule, state, inputs, S, z, seen=reached, cu_seqlens=starts)
        context.store(state)
    return _finished(layer, rule, o, v, inputs.get("gate"))


def _prepared(layer: Recurrence, inputs: dict[str, Tensor], context: Context) -> dict[str, Tensor]:
    """q and k (B, T, width), mapped and turned."""
    found = {}
    for name, feature in (("q", layer.q_map), ("k", layer.k_map)):
        if name not in inputs or feature is None:
            continue
        y = feature(torch.unflatten(inputs[name], -1, (layer.heads, -1)))
        if layer.position is not None:
            y = rotated(y, context.sequences.places, layer.position)
        found[name] = y.flatten(-2)
    return found


def _mapped(
    layer: Recurrence,
    rule: StepRule,
    inputs: dict[str, Tensor],
    tail: Tensor | None,
    starts: Tensor | None,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """q, k and v (B, T, heads, channels), as the recurrence takes them."""
    names = [name for name in "qkv" if name in inputs]
    rows = [inputs[name] for name in names]
    if rule.conv:
        parts = [Part(*rule.part(name)) for name in names]
        rows, _ = convolve(inputs["joined"], _taps(layer), parts, initial=tail, cu_seqlens=starts)
    heads = {"q": layer.heads, "k": layer.heads, "v": layer.value_heads}
    found = {
        name: torch.unflatten(row, -1, (heads[name], -1))
        for name, row in zip(names, rows, strict=True)
    }
    if not rule.in_conv:
        maps = {"q": layer.q_map, "k": layer.k_map, "v": layer.v_map}
        for name in ("v",) if layer.plan.prepared else names:
            feature = maps[name]
            assert feature is not None
            found[name] = feature(found[name])
    return found["q"], found.get("k"), found["v"]


def _finished(
    layer: Recurrence, rule: StepRule, o: Tensor, v: Tensor, gate: Tensor | None
) -> Tensor:
    if layer.D is not None:
        o = (o + layer.D[:, None] * v).to(v.dtype)
    if layer.o_norm is None:
        return o
    activation = rule.output if gate is not None else "silu"
    gate = None if gate is None else torch.unflatten(gate, -1, o.shape[2:])
    return gated_norm(o, layer.o_norm.weight, gate, activation=activation, eps=rule.eps)


def weights(layer: Recurrence, rule: StepRule) -> Weights:
    """For steps: the parameters as the kernel reads them, made anew when one has changed."""
    own = [parameter for name, parameter in layer.named_parameters() if "proj" not in name]
    key = tuple(map(version, own))
    if layer.packed is None or layer.packed[0] != key:
        layer.packed = key, _packed(layer, rule)
    return layer.packed[1]


@torch.no_grad()
def _packed(layer: Recurrence, rule: StepRule) -> Weights:
    decay, norm = layer.decay, layer.o_norm
    log_decay = decay.log_decay(layer.o_proj.weight) if isinstance(decay, FixedDecay) else None
    return Weights(
        conv=_taps(layer) if rule.conv else None,
        decay=log_decay if log_decay is not None else getattr(decay, "A_log", None),
        bias=getattr(decay, "dt_bias", None),
        skip=layer.D,
        norm=None if norm is None else norm.weight,
    )


def _taps(layer: Recurrence) -> Tensor:
    """(channels of q, k and v, taps)."""
    convs = (layer.q_conv, layer.k_conv, layer.v_conv)
    return torch.cat([conv.weight for conv in convs if conv is not None])


def _wide(x: Tensor | None) -> Tensor | None:
    """A state as the recurrence takes it; a copy where it is kept for a backward pass, as the
    state itself moves on."""
    if x is None:
        return None
    return x.to(torch.promote_types(x.dtype, torch.float32), copy=torch.is_grad_enabled())


def without_autocast(x: Tensor) -> AbstractContextManager[None]:
    """Autocast would round the matrix products of the float32 state."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)
