"""The recurrence in chunks: tokens of a chunk in parallel, chunks one after the other.

With c_i the sum of g over a chunk's tokens up to i, and S the state before the chunk,

    o_i = (e^c_i q_i)^T S + sum over j <= i of P_ij u_j,    P_ij = q_i . (e^(c_i - c_j) k_j)
    S'  = e^c_L S + sum over j of (e^(c_L - c_j) k_j) u_j^T

where u_j = b_j v_j for the additive update. For the delta rule u solves the triangular system

    u_i + b_i sum over j < i of A_ij u_j = b_i (v_i - (e^c_i k_i)^T S)

with A_ij = k_i . (e^(c_i - c_j) k_j), which is linear in S: u = U - W S, with U and W the solutions
for b v and b e^c k (the WY form). No exponent is ever positive, and none is a difference of large
sums, so decay may be as strong as it likes.

Shapes: N sequences, H heads of q and k, G value heads for each, C chunks of L tokens; g ends in K
channels or in 1, where one decay serves all.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 64
EPSILON = 1e-10


def recurrence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    b: Tensor | None = None,
    state: Tensor | None = None,
    z: Tensor | None = None,
    *,
    delta: bool = False,
    normalize: bool = False,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """What reference.recurrence gives for the same arguments, and its gradients."""
    out_dtype = v.dtype
    dtype = torch.promote_types(v.dtype, torch.float32)
    tokens, heads = k.shape[1:3]
    size = min(CHUNK, 1 << max(0, tokens - 1).bit_length())
    if normalize:  # z is the column of the state that a value of 1 writes
        v = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)
    S = _initial(k, v, state, z).to(dtype)
    if b is None:
        b = torch.ones_like(v[..., 0])
    if g is None:
        g = k.new_zeros(1, tokens, heads)
    g = g[..., None] if g.dim() == 3 else g
    q, k, v, g, b = (_chunks(x.to(dtype), heads, size) for x in (q, k, v, g, b[..., None]))
    o, S = _outputs(q * scale, k, v, g, b, torch.unflatten(S, 1, (heads, -1)), delta)
    o = o.permute(0, 3, 4, 1, 2, 5).flatten(3, 4).flatten(1, 2)[:, :tokens]
    S = S.flatten(1, 2)
    if not normalize:
        return o.to(out_dtype), S, None
    o = o[..., :-1] / (o[..., -1:] + EPSILON)
    return o.to(out_dtype), S[..., :-1], S[..., -1]


def _initial(k: Tensor, v: Tensor, state: Tensor | None, z: Tensor | None) -> Tensor:
    """(N, A, K, V): the state, and z as its last column where v has one more."""
    batch, _, value_heads, value_dim = v.shape
    if state is None:
        return k.new_zeros(batch, value_heads, k.shape[-1], value_dim)
    if state.shape[-1] == value_dim:
        return state
    last = torch.zeros_like(state[..., 0]) if z is None else z
    return torch.cat([state, last[..., None]], dim=-1)


def _chunks(x: Tensor, heads: int, size: int) -> Tensor:
    """(N, T, H * G, D) to (N, H, G, C, L, D), zero after the last token."""
    tokens = x.shape[1]
    count = max(1, -(-tokens // size))
    x = F.pad(x, (0, 0, 0, 0, 0, count * size - tokens))
    x = torch.unflatten(torch.unflatten(x, 2, (heads, -1)), 1, (count, size))
    return x.permute(0, 3, 4, 1, 2, 5)


def _outputs(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, b: Tensor, S: Tensor, delta: bool
) -> tuple[Tensor, Tensor]:
    """o (N, H, G, C, L, V) and the last state (N, H, G, K, V)."""
    from_start, to_end = g.cumsum(-2).exp(), _sums_after(g).exp()
    scores = _decayed_scores(torch.stack([q, k]) if delta else q[None], k, g)
    u, w = b * v, None
    if delta:
        right = torch.cat([u, b * from_start * k], dim=-1)
        system = b * scores[1]
        solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
        u, w = solved.split([v.shape[-1], k.shape[-1]], dim=-1)
    states, written, S = _scan(u, w, to_end * k, g.sum(-2).exp(), S)
    return (from_start * q) @ states + scores[0] @ written, S


def _scan(
    u: Tensor, w: Tensor | None, keys: Tensor, decay: Tensor, S: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Chunk by chunk: the states before each, what each writes, and the state after the last."""
    states, written = [], []
    for i in range(u.shape[-3]):
        states.append(S)
        written.append(u[..., i, :, :] if w is None else u[..., i, :, :] - w[..., i, :, :] @ S)
        S = decay[..., i, :, None] * S + keys[..., i, :, :].mT @ written[-1]
    return torch.stack(states, dim=-3), torch.stack(written, dim=-3), S


def _decayed_scores(q: Tensor, k: Tensor, g: Tensor) -> Tensor:
    """(..., L, L): q_i . k_j under the decay of tokens j + 1 to i; zero where j > i.

    q may have a leading dimension more than k: several rows against the same columns.
    """
    if g.shape[-1] == 1:
        return q @ k.mT * _segment_sums(g).exp()
    return _scores_by_halves(q, k, g)


def _segment_sums(g: Tensor) -> Tensor:
    """(..., L, 1) to (..., L, L): the sum of g over j + 1 to i; -inf where j > i.

    Summed for each j apart: differences of one cumulative sum lose digits under strong decay.
    """
    size = g.shape[-2]
    lower = torch.ones(size, size, dtype=torch.bool, device=g.device).tril()
    terms = g.expand(*g.shape[:-1], size).masked_fill(~lower.tril(-1), 0)
    return terms.cumsum(-2).masked_fill(~lower, -torch.inf)


def _sums_after(g: Tensor) -> Tensor:
    """(..., L, K): the sum of g over the tokens after each, to the last."""
    return F.pad(g[..., 1:, :], (0, 0, 0, 1)).flip(-2).cumsum(-2).flip(-2)


def _scores_by_halves(q: Tensor, k: Tensor, g: Tensor) -> Tensor:
    """Scores with a decay per channel, for L a power of 2.

    Between a row of the second half and a column of the first, decay factors at the middle into
    two parts that are both at most 1; inside each half, the same again.
    """
    half = q.shape[-2] // 2
    if half == 0:
        return (q * k).sum(-1, keepdim=True)
    q, k, g = (torch.unflatten(x, -2, (2, half)) for x in (q, k, g))
    inside = _scores_by_halves(q, k, g)
    rows = q[..., 1, :, :] * g[..., 1, :, :].cumsum(-2).exp()
    columns = k[..., 0, :, :] * _sums_after(g[..., 0, :, :]).exp()
    first = F.pad(inside[..., 0, :, :], (0, half))
    second = torch.cat([rows @ columns.mT, inside[..., 1, :, :]], dim=-1)
    return torch.cat([first, second], dim=-2)
