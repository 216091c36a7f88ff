"""Several linear maps of one input at once give what each gives by itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mixerlang.nn import backend
from mixerlang.nn.projection import projected, projection

WIDTHS = {"q": 6, "k": 6, "v": 10, "b": 2, "gate": 10}


def modules(dtype: torch.dtype = torch.float64) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    made: dict[str, nn.Module] = {
        name: nn.Linear(8, width, bias=False, dtype=dtype) for name, width in WIDTHS.items()
    }
    made["a"] = projection(8, 5, 3, bias=True).to(dtype)
    return made


def parameters(made: dict[str, nn.Module]) -> list[Tensor]:
    return [parameter for module in made.values() for parameter in module.parameters()]


@pytest.mark.parametrize("joined", [(), ("q", "k", "v")])
def test_outputs_and_gradients(joined: tuple[str, ...]) -> None:
    made = modules()
    x = torch.randn(2, 7, 8, dtype=torch.float64, requires_grad=True)
    found = projected(x, made, joined)
    whole = found.pop("joined", None)
    wanted = {name: module(x) for name, module in made.items()}
    assert found.keys() == wanted.keys()
    for name, y in wanted.items():
        torch.testing.assert_close(found[name], y)
    if joined:
        assert whole is not None
        torch.testing.assert_close(whole, torch.cat([wanted[name] for name in joined], dim=-1))
    up = {name: torch.randn_like(y) for name, y in wanted.items()}
    leaves = [x, *parameters(made)]
    gradients = [
        torch.autograd.grad(sum((ys[name] * up[name]).sum() for name in up), leaves)
        for ys in (found, wanted)
    ]
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_under_autocast() -> None:
    made = modules(torch.float32)
    x = torch.randn(2, 7, 8, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = projected(x, made, ("q", "k", "v"))
    assert found["joined"].dtype == torch.bfloat16
    gradients = torch.autograd.grad(found["joined"].sum() + found["b"].sum(), [x, made["q"].weight])
    assert [gradient.dtype for gradient in gradients] == [torch.float32] * 2
    exact = sum(made[name](x).sum() for name in ("q", "k", "v", "b"))
    (wanted,) = torch.autograd.grad(exact, x)
    torch.testing.assert_close(gradients[0], wanted, atol=2e-2, rtol=2e-2)


def test_frozen_weights_get_no_gradient() -> None:
    made = modules()
    for parameter in parameters(made):
        parameter.requires_grad_(False)
    x = torch.randn(1, 3, 8, dtype=torch.float64, requires_grad=True)
    projected(x, made, ("q", "k", "v"))["joined"].sum().backward()
    assert x.grad is not None and made["q"].weight.grad is None


def test_hooks_and_other_modules_have_their_say() -> None:
    made = modules()
    made["k"] = nn.Sequential(made["k"], nn.Tanh())
    calls = []
    made["gate"].register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(1, 3, 8, dtype=torch.float64)
    found = projected(x, made, ("q", "k", "v"))
    torch.testing.assert_close(found["k"], made["k"](x))
    torch.testing.assert_close(found["v"], made["v"](x))
    assert calls


@torch.no_grad()
def test_few_rows() -> None:
    made = modules()
    x = torch.randn(2, 1, 8, dtype=torch.float64)
    with backend.forced("kernels"):
        found = projected(x, made)
    for name, module in made.items():
        torch.testing.assert_close(found[name], module(x))
