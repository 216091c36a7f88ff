"""What tests of the decode cache share: sequences, what each query must see, and a walk over them.

The oracle knows nothing of rings and slots: it replays the rule token by token in plain Python.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import torch
from torch import Tensor

from mixerlang.kernels.attention import reference
from mixerlang.kernels.decode import op
from mixerlang.kernels.decode.layout import Layout


@dataclass
class Case:
    """`length` tokens of each of `batch` sequences, and the softmax rule."""

    layout: Layout
    batch: int = 2
    heads: int = 2
    kv_heads: int = 1
    dim: int = 16
    value_dim: int = 16
    length: int = 60
    softcap: float | None = None
    sink_logits: bool = False
    slopes: bool = False
    ties: bool = False
    dtype: torch.dtype = torch.float64
    device: str = "cpu"
    rule: dict[str, Tensor | float | None] = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(0)

        def make(*shape: int) -> Tensor:
            return torch.randn(self.batch, self.length, *shape, dtype=torch.float64)

        tensors = make(self.heads, self.dim), make(self.kv_heads, self.dim)
        tensors += make(self.kv_heads, self.value_dim), make(self.kv_heads, self.dim)
        self.q, self.k, self.v, self.raw_k = (x.to(self.device, self.dtype) for x in tensors)
        z = torch.randn(self.batch, self.kv_heads, self.length, dtype=torch.float64)
        z = (z * 2).round() / 2 if self.ties else z
        if self.layout.kind != "learned" and self.layout.evicts:
            positions = torch.arange(self.length, device=self.device).expand(z.shape)
            z = op.scores(self.layout, self.raw_k, positions)
        self.z = z.to(self.device, torch.float32)
        slopes = reference.alibi_slopes(self.heads).to(self.device) if self.slopes else None
        logits = torch.randn(self.heads, device=self.device) if self.sink_logits else None
        self.rule = {
            "scale": 0.3, "softcap": self.softcap, "sink_logits": logits, "slopes": slopes,
        }  # fmt: skip

    def new_state(self, max_length: int | None = None) -> op.State:
        return op.new_state(
            *(self.layout, self.batch, self.kv_heads, self.dim, self.value_dim),
            *(max_length or self.length + self.layout.span, self.dtype, self.device),
        )

    def visible(self) -> Tensor:
        """(N, G, T, T) bool."""
        seen = torch.zeros(self.batch, self.kv_heads, self.length, self.length, dtype=torch.bool)
        for n in range(self.batch):
            for g in range(self.kv_heads):
                for t, held in enumerate(slots(self.layout, self.z[n, g].tolist())):
                    seen[n, g, t, sorted(held)] = True
                    for j in range(t + 1):
                        seen[n, g, t, j] |= near(self.layout, t, j)
        return seen

    def expected(self) -> Tensor:
        """(N, T, H, E) in float64, whatever the tensors' own dtype."""
        q, k, v = (x.transpose(1, 2).double().cpu() for x in (self.q, self.k, self.v))
        rule = {n: x.cpu().double() if isinstance(x, Tensor) else x for n, x in self.rule.items()}
        bias, slopes = None, rule.pop("slopes")
        if slopes is not None:
            t = torch.arange(self.length)
            bias = reference.alibi_bias(slopes, t.view(1, 1, -1, 1), t.view(1, 1, 1, -1))
        return reference.attention(q, k, v, self.visible(), bias=bias, **rule).transpose(1, 2)


def near(layout: Layout, t: int, j: int) -> bool:
    """What position alone decides."""
    inside = layout.window is None or t - j < layout.window
    strided = layout.strided and (t - j) % layout.strided == 0
    return bool((inside and (t - j) % layout.rate == 0) or j < layout.sinks or strided)


def slots(layout: Layout, z: list[float]) -> Iterator[set[int]]:
    """After each token: which of those that left the window are kept for their score."""
    held: set[int] = set()
    for t in range(len(z)):
        yield held
        if not layout.evicts or layout.window is None:
            continue
        leaver = t + 1 - layout.window
        floor = 0 if layout.kind == "learned" else -float("inf")
        if leaver < layout.sinks or not z[leaver] > floor:
            continue
        best = sorted({*held, leaver}, key=lambda j: (-z[j], j))
        held = set(best[: layout.budget - layout.sinks])


def scorer_of(case: Case) -> tuple[op.Scorer, SimpleNamespace]:
    """A scorer that looks scores up, and the module that stands in for kernels/scorer/op.py. It
    checks that it is asked for final scores alone, and that the raw keys they need are held."""

    def rows(*tensors: Tensor, begin: Tensor, count: int) -> None:
        k, v, z, _, network = tensors
        look = case.layout.lookahead
        for n in range(case.batch):
            start = int(begin[n])
            if start < 0:
                continue
            for j in range(start, start + count):
                assert j + look < int(network[n]), "a score that reads what may be taken back"
                z[n, :, j % z.shape[2]] = case.z[n, :, j]
            for j in range(max(0, start - look), start + count + look):
                torch.testing.assert_close(k[n, :, j % k.shape[2]], case.raw_k[n, j])
                torch.testing.assert_close(v[n, :, j % v.shape[2]], case.v[n, j])

    return op.Scorer(case.z, torch.zeros(case.batch)), SimpleNamespace(rows=rows)


def walk(case: Case, state: op.State, seen: Tensor, widths: Sequence[int], seed: int = 0) -> Tensor:
    """Steps of so many tokens, drawn from `widths`; each sequence takes some of them back.

    Tokens that will be taken back are other ones than the sequence's. seen: (N,) to begin with.
    Returns the outputs of the tokens that stayed, (N, T, H, E), NaN where `seen` was at first.
    """
    draw = random.Random(seed)
    shape = (case.batch, case.length, case.heads, case.value_dim)
    found = torch.full(shape, torch.nan, dtype=case.dtype, device=case.device)
    scorer = scorer_of(case)[0] if case.layout.kind == "learned" else None
    rows = torch.arange(case.batch, device=case.device)[:, None]
    while int(seen.min()) < case.length:
        tokens = draw.choice(widths)
        stay = torch.tensor([draw.randint(0, tokens) for _ in range(case.batch)])
        stay = stay.to(case.device).minimum(case.length - seen)
        index = seen[:, None] + torch.arange(tokens, device=case.device)
        wrong = index >= (seen + stay)[:, None]
        index, wrong = index.clamp(max=case.length - 1), wrong[..., None, None]
        new = [x[rows, index] for x in (case.q, case.k, case.v, case.raw_k)]
        q, k, v, raw_k = (torch.where(wrong, 9 * torch.rand_like(x), x) for x in new)
        if scorer is not None:
            scorer.network.copy_(seen)
        out = op.step(
            case.layout, state, q, k, v, seen=seen, raw_k=raw_k, scorer=scorer, **case.rule
        )
        for n in range(case.batch):
            first, many = int(seen[n]), int(stay[n])
            found[n, first : first + many] = out[n, :many]
        seen = seen + stay
    return found
