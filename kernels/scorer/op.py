"""The scorer of learned eviction as an op: one logit per token and KV head from keys and values.

Shapes: B sequences (1 if packed), T tokens, G KV heads, D and E channels of k (before rotation)
and v. On CUDA the kernels of this folder run; elsewhere, and in float64, dense.py.

The weights are those of grouped Conv1d's: (G * outputs, inputs, taps) with biases (G * outputs,),
first to last, and those of the projection to one channel, (G, inputs, 1) and (G,), at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..loader import namespace
from . import dense
from .network import Network
from .packing import Packed, network_of, pack, unflatten
from .reference import DROPOUT_STEPS

NAMESPACE = namespace(__name__)
SERVED = (torch.bfloat16, torch.float16, torch.float32)


def logits(k: Tensor, v: Tensor, *rest: Any, **options: Any) -> Tensor:
    """z of `logits_and_inputs`."""
    return logits_and_inputs(k, v, *rest, **options)[0]


def logits_and_inputs(
    k: Tensor,
    v: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    *,
    dilations: tuple[int, ...],
    dropout: float = 0.0,
    seed: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """z (B, G, T) float32, from k (B, T, G, D) and v (B, T, G, E); gradients to all but seed.

    Then k and v again, for whoever else reads them: what gradients come back that way, the
    scorer's backward pass adds to its own while it writes them, which saves a pass for each sum.

    dropout: the probability, to 1 / 65,536, with which each input of a convolution is dropped, by
    the int64 `seed` (one element, on k's device): the same seed drops the same inputs.
    """
    dropped = round(dropout * DROPOUT_STEPS)
    _check(k, v, dropped, seed, cu_seqlens)
    rest = (seed if dropped else None, cu_seqlens, list(dilations), dropped)
    tensors = (k, v, *weights, *biases)
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        found: tuple[Tensor, Tensor, Tensor] = _shared(k, v, list(weights), list(biases), *rest)
        return found
    return _scorer(k, v, list(weights), list(biases), *rest, False)[0], k, v


def rows(
    k: Tensor,
    v: Tensor,
    z: Tensor,
    packed: Packed,
    network: Network,
    *,
    begin: Tensor,
    count: int,
) -> None:
    """Write logits into a ring, for decoding: bit for bit those of `logits` for the same tokens.

    k (N, G, RK, D), v (N, G, RV, E) and z (N, G, RZ) float32 are rings over positions: the entry is
    the position modulo the ring's size; any strides with adjacent channels. For each sequence n
    with begin[n] >= 0 (N, int32, on the device), z of positions begin[n] to begin[n] + count - 1 is
    written; with a negative one its programs leave at once. The rings hold the rows from
    begin[n] - lookahead to begin[n] + count - 1 + lookahead (network.lookahead); those before
    position 0 count as zero. One launch, no wait for the device, the same kernel as `logits`.

    packed: what packing.pack made of the weights, once, in k's dtype.
    """
    if min(k.shape[2], v.shape[2]) < count + 2 * network.lookahead:
        raise ValueError(
            f"{count} logits are read off {count + 2 * network.lookahead} rows: rings of "
            f"{k.shape[2]} and {v.shape[2]} do not hold them"
        )
    if not _served(k):
        dense.rows(k, v, z, packed, network, begin, count)
        return
    from . import launch  # needs triton, which a machine without CUDA may lack

    launch.rows(k, v, z, packed, network, begin, count)


def _served(x: Tensor) -> bool:
    """Whether kernels take x."""
    return x.is_cuda and x.dtype in SERVED


def _check(
    k: Tensor, v: Tensor, dropped: int, seed: Tensor | None, cu_seqlens: Tensor | None
) -> None:
    """Refuse what the kernels would misread."""
    if not k.dim() == v.dim() == 4 or k.shape[:3] != v.shape[:3] or k.numel() == 0:
        raise ValueError(
            f"k (B, T, G, D) and v (B, T, G, E) share B, T and G, 1 or more each: "
            f"{tuple(k.shape)} and {tuple(v.shape)} do not"
        )
    if k.dtype != v.dtype or k.device != v.device:
        raise ValueError(
            f"k and v share dtype and device, not {k.dtype} on {k.device}, {v.dtype} on {v.device}"
        )
    if not 0 <= dropped < DROPOUT_STEPS:
        raise ValueError(f"dropout is a probability below 1, not {dropped / DROPOUT_STEPS}")
    if dropped and (seed is None or seed.dtype != torch.int64 or seed.numel() != 1):
        raise ValueError("dropout takes a seed: an int64 tensor of one element")
    if cu_seqlens is None:
        return
    if k.shape[0] != 1:
        raise ValueError(f"packed sequences lie in one batch row, not in {k.shape[0]}")
    if cu_seqlens.device != k.device:
        raise ValueError(
            f"cu_seqlens lies on {cu_seqlens.device}, k on {k.device}: move it, once for all layers"
        )


def _network(k: Tensor, v: Tensor, weights: list[Tensor], dilations: list[int]) -> Network:
    return network_of(k.shape[-1], v.shape[-1], weights, k.shape[2], tuple(dilations))


def _forward(
    k: Tensor,
    v: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    seed: Tensor | None,
    cu_seqlens: Tensor | None,
    dilations: list[int],
    dropped: int,
    save: bool,
) -> tuple[Tensor, list[Tensor]]:
    """z, and if it will be differentiated: packed weights, vectors, and each layer's sums."""
    network = _network(k, v, weights, dilations)
    if _served(k):
        from . import launch

        packed = launch.pack(weights, biases, network, k.dtype)
        call = launch.Call.of(network, k.shape[1], dropped, seed, cu_seqlens)
        z, saved = launch.forward(k, v, packed, call, save)
    else:
        packed = pack(weights, biases, network, k.dtype)
        z, saved = dense.forward(k, v, packed, network, dropped, seed, cu_seqlens)
    return z, [*packed, *saved] if save else []


def _fake_forward(k: Tensor, v: Tensor, weights: list[Tensor], *rest: Any) -> Any:
    batch, tokens, heads, _ = k.shape
    precise = torch.promote_types(k.dtype, torch.float32)
    z = k.new_empty(batch, heads, tokens, dtype=precise)
    network = _network(k, v, weights, rest[3])
    if not rest[-1]:
        return z, []
    packed = k.new_empty(heads, network.weights)
    vectors = k.new_empty(heads, network.vectors, dtype=precise)
    return z, [
        *(packed, vectors),
        *(k.new_empty(batch, heads, tokens, outputs) for outputs in network.channels),
    ]


def _backward(
    dz: Tensor,
    dk: Tensor | None,
    dv: Tensor | None,
    saved: list[Tensor],
    k: Tensor,
    v: Tensor,
    weights: list[Tensor],
    seed: Tensor | None,
    cu_seqlens: Tensor | None,
    dilations: list[int],
    dropped: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of k and v, with dk and dv added, and the flat one of weights and biases."""
    network = _network(k, v, weights, dilations)
    packed, sums, others = Packed(*saved[:2]), saved[2:], (dk, dv)
    if not _served(k):
        return dense.backward(dz, others, k, v, packed, network, sums, dropped, seed, cu_seqlens)
    from . import launch

    call = launch.Call.of(network, k.shape[1], dropped, seed, cu_seqlens)
    return launch.backward(dz, others, k, v, packed, sums, call)


def _fake_backward(
    dz: Tensor,
    dk: Tensor | None,
    dv: Tensor | None,
    saved: list[Tensor],
    k: Tensor,
    v: Tensor,
    weights: list[Tensor],
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    numbers = _network(k, v, weights, rest[2]).places[-1]
    return k.new_empty(k.shape), v.new_empty(v.shape), dz.new_empty(numbers)


# ----------------------------------------------------------------------------------------- cost


def _products(k: tuple[int, ...], weights: list[tuple[int, ...]]) -> int:
    """FLOPs of all products: each weight takes part once per token."""
    numbers = sum(outputs * inputs * taps for outputs, inputs, taps in weights)
    return 2 * k[0] * k[1] * numbers


def _forward_flops(
    k: tuple[int, ...], v: tuple[int, ...], weights: list[tuple[int, ...]], *_: Any, **__: Any
) -> int:
    return _products(k, weights)


def _backward_flops(*shapes: Any, **_: Any) -> int:
    """As much for the inputs' gradients as for the weights'."""
    k, _v, weights = shapes[4:7]
    return 2 * _products(k, weights)


# --------------------------------------------------------------------------------- registration

_INPUTS = "Tensor k, Tensor v, Tensor[] weights"
_REST = "Tensor? seed, Tensor? cu_seqlens, int[] dilations, int dropped"
_scorer = ops.define(
    f"{NAMESPACE}::scorer",
    f"({_INPUTS}, Tensor[] biases, {_REST}, bool save) -> (Tensor, Tensor[])",
    _forward,
    _fake_forward,
    flops=_forward_flops,
)
_scorer_backward = ops.define(
    f"{NAMESPACE}::scorer_backward",
    f"(Tensor dz, Tensor? dk, Tensor? dv, Tensor[] saved, {_INPUTS}, {_REST}) "
    "-> (Tensor, Tensor, Tensor)",
    _backward,
    _fake_backward,
    flops=_backward_flops,
)


class _Shared(torch.autograd.Function):
    """z, and k and v handed through, so that their other gradients come back here."""

    @staticmethod
    def forward(
        ctx: Any,
        k: Tensor,
        v: Tensor,
        seed: Tensor | None,
        cu_seqlens: Tensor | None,
        dilations: list[int],
        dropped: int,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        n = len(parameters) // 2
        weights, biases = list(parameters[:n]), list(parameters[n:])
        rest = (seed, cu_seqlens, dilations, dropped)
        z, saved = _scorer(k, v, weights, biases, *rest, True)
        ctx.rest, ctx.dtypes = (dilations, dropped), [x.dtype for x in parameters]
        ctx.save_for_backward(*saved, k, v, *weights, seed, cu_seqlens)
        ctx.set_materialize_grads(False)
        return z, k, v

    @staticmethod
    def backward(
        ctx: Any, dz: Tensor | None, dk: Tensor | None, dv: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        nothing = (None,) * 4
        if dz is None:
            return dk, dv, *nothing, *(None for _ in ctx.dtypes)
        n = len(ctx.dtypes) // 2
        *tensors, seed, cu_seqlens = ctx.saved_tensors
        *saved, k, v = tensors[:-n]
        weights = tensors[-n:]
        rest = (seed, cu_seqlens, *ctx.rest)
        dk, dv, flat = _scorer_backward(dz, dk, dv, saved, k, v, weights, *rest)
        views = unflatten(flat, _network(k, v, weights, ctx.rest[0]))
        grads = (x.to(dtype) for x, dtype in zip(views, ctx.dtypes, strict=True))
        return dk, dv, *nothing, *grads


def _share(
    k: Tensor, v: Tensor, weights: list[Tensor], biases: list[Tensor], *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    apply: Any = _Shared.apply
    found: tuple[Tensor, Tensor, Tensor] = apply(k, v, *rest, *weights, *biases)
    return found


_shared = ops.compose(
    f"{NAMESPACE}::scorer_shared",
    "(Tensor(a) k, Tensor(b) v, Tensor[] weights, Tensor[] biases, "
    f"{_REST}) -> (Tensor, Tensor(a), Tensor(b))",
    _share,
)
