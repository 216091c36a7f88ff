"""Rules for the scan's kernels, as a layer has them, and their plain evaluation."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from mixerlang.kernels.scan import op
from mixerlang.kernels.scan.rule import Equations
from mixerlang.nn.equation import Equations as Lines
from mixerlang.nn.equation import Value

S = ("S", ("key", "value"))
OPERANDS = {
    "q": ("key",), "k": ("key",), "e": ("key",), "g": ("key",), "v": ("value",), "u": ("value",),
    "w": ("value",), "a": (), "b": (), "c": (),
}  # fmt: skip

RULES = {
    "gated delta": ((S,), ("S = a * S", "S = S + b * outer(k, v - S.T @ k)", "o = S.T @ q")),
    "two-sided": ((S,), ("S = g * S * w + outer(k, v)", "o = S.T @ q")),
    "momentum": ((S, ("M", ("key", "value"))),
                 ("M = a * M + b * outer(k, v - S.T @ k)", "S = c * S + M", "o = S.T @ q")),
    "values first": ((("S", ("value", "key")),),
                     ("S = S @ (a * (I.key - b * outer(k, e))) + outer(v, k)", "o = S @ q")),
    "both sides": ((S,), ("S = a * S - b * outer(S @ u, u) + outer(k, v)",
                          "o = S.T @ q + w * v")),
    "sum of keys": ((S, ("z", ("key",))),
                    ("S = a * S + outer(k, v)", "z = g * z + b * k",
                     "o = S.T @ q / (1 + (z @ q) * (z @ q))")),
    "errors": ((S, ("z", ("key",))),
               ("S = a * S + outer(k, v)", "z = a * z + k - 0.1 * S @ u", "o = S.T @ (q + z)")),
    "functions": ((S,), ("S = tanh(a) * S + outer(silu(k), gelu(v)) / (2 + k @ k)",
                         "o = relu2(S.T @ q) + exp(-b) * sigmoid(u) * relu(S.T @ e)")),
    "operators": ((S,), ("S = 0.3 * ((diag(g) @ (I.key - outer(k, e).T) + outer(e, e) / 4) @ S "
                         "@ diag(w)) + outer(k, v)", "o = q @ S")),
    "vectors": ((("z", ("value",)), ("y", ("key",))),
                ("z = b * z + (1 - b) * v", "y = g * y + k", "o = z * (y @ q) + 1")),
}  # fmt: skip


def equations(name: str) -> Equations:
    states, lines = RULES[name]
    read = {word for line in lines for word in re.findall(r"\w+", line)}
    return Equations(states, tuple(x for x in OPERANDS.items() if x[0] in read), lines)


def problem(
    name: str, key: int, value: int, batch: int = 2, tokens: int = 9, heads: int = 2,
    device: str = "cpu", dtype: torch.dtype = torch.float32,
) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
    """Operands and states of moderate size, all of which ask for a gradient."""
    torch.manual_seed(0)
    said, sizes = equations(name), {"key": key, "value": value}

    def made(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64)

    operands = [made(batch, tokens, heads, *(sizes[a] for a in axes))
                for _, axes in said.operands]  # fmt: skip
    for x, (each, _) in zip(operands, said.operands, strict=True):
        if each in "abcgw":
            x.sigmoid_()
        elif each in "keu":
            x /= x.norm(dim=-1, keepdim=True)
    states = [0.5 * made(batch, heads, *(sizes[a] for a in axes)) for _, axes in said.states]
    ready = [x.to(device, dtype).requires_grad_() for x in (*operands, *states)]
    return ready[: len(operands)], ready[len(operands) :]


def plain(
    name: str, operands: list[Tensor], states: list[Tensor], counts: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """What op.scan gives, by the layer's own reading of the equations."""
    said = equations(name)
    lines, held, outputs = Lines(said.lines), list(states), []
    size = next(x.shape[-1] for x, (_, axes) in zip(operands, said.operands, strict=True)
                if axes == ("key",))  # fmt: skip
    eye = torch.eye(size, dtype=operands[0].dtype, device=operands[0].device)[None, None]
    for t in range(operands[0].shape[1]):
        known = {"I.key": Value(eye, ("key", "key"))}
        known |= {each: Value(x[:, t], axes)
                  for (each, axes), x in zip(said.operands, operands, strict=True)}  # fmt: skip
        known |= {each: Value(x, axes) for (each, axes), x in zip(said.states, held, strict=True)}
        after = lines(known)
        valid = t < counts
        outputs.append(torch.where(valid[:, None, None], after["o"].tensor, 0))
        held = [torch.where(valid.view(-1, *[1] * (x.dim() - 1)), after[each].tensor, x)
                for (each, _), x in zip(said.states, held, strict=True)]  # fmt: skip
    return torch.stack(outputs, 1), held


def errors(
    name: str, key: int, value: int, counts: list[int], device: str = "cpu", heads: int = 2
) -> list[float]:
    """Relative errors of o, the states and every gradient, against float64."""
    batch, tokens = len(counts), max(counts)
    found = []
    for dtype in (torch.float32, torch.float64):
        operands, states = problem(name, key, value, batch, tokens, heads, device, dtype)
        lengths = torch.tensor(counts, device=device)
        if dtype == torch.float32:
            o, after = op.scan(equations(name), operands, states, lengths)
        else:
            o, after = plain(name, operands, states, lengths)
        generator = torch.Generator().manual_seed(1)
        seeds = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
                 for x in (o, *after)]  # fmt: skip
        gradients = torch.autograd.grad((o, *after), [*operands, *states], seeds)
        found.append([o, *after, *gradients])
    return [((a.double() - b).norm() / b.norm().clamp(min=1e-6)).item()
            for a, b in zip(*found, strict=True)]  # fmt: skip
