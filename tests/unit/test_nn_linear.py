"""Which linear layers go together in one launch, and that they say the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from mixerlang.nn.backend import forced
from mixerlang.nn.linear import few, gated, linear, together


@pytest.fixture(autouse=True)
def through_kernels() -> Iterator[None]:
    with forced("kernels"):
        yield


def layers(*outputs: int, bias: bool = False) -> list[nn.Linear]:
    torch.manual_seed(0)
    return [nn.Linear(8, width, bias=bias) for width in outputs]


@pytest.mark.parametrize("bias", [False, True])
def test_side_by_side(bias: bool) -> None:
    own, x = layers(3, 5, 4, bias=bias), torch.randn(2, 1, 8)
    with torch.no_grad():
        found = together(x, *own)
        assert found is not None
        torch.testing.assert_close(found, torch.cat([layer(x) for layer in own], -1))
        torch.testing.assert_close(linear(x, own[1]), own[1](x))


def test_gated() -> None:
    gate, up = layers(6, 6)
    x = torch.randn(4, 1, 8)
    with torch.no_grad():
        found = gated(x, gate, up)
        assert found is not None
        torch.testing.assert_close(found, nn.functional.silu(gate(x)) * up(x))


def test_only_few_rows_without_gradients() -> None:
    x = torch.randn(4, 1, 8)
    assert not few(x)
    with torch.no_grad():
        assert few(x) and few(x[:2, :, :4])
        assert not few(torch.randn(5, 1, 8)) and not few(torch.randn(1, 5, 8))
        assert not few(torch.randn(0, 1, 8))
        with torch.autocast("cpu", torch.bfloat16):
            assert not few(x)
        with forced("eager"):
            assert not few(x)


class Doubled(nn.Linear):
    """A layer that some library puts in the place of another."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def _hooked() -> nn.Module:
    layer = layers(3)[0]
    layer.register_forward_hook(lambda module, inputs, output: 2 * output)
    return layer


def _watched_on_the_way_back() -> nn.Module:
    layer = layers(3)[0]
    layer.register_full_backward_pre_hook(lambda module, gradients: None)
    return layer


def _patched() -> nn.Module:
    layer = layers(3)[0]
    layer.forward = lambda x: 2 * nn.functional.linear(x, layer.weight)  # type: ignore[method-assign]
    return layer


class Quantized(Tensor):
    """Numbers whose bytes are not what their dtype says."""


def _quantized() -> nn.Module:
    layer = layers(3)[0]
    layer.weight = nn.Parameter(layer.weight.detach().as_subclass(Quantized))
    return layer


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "another class": lambda: Doubled(8, 3, bias=False),
    "hooks": _hooked,
    "hooks of gradients": _watched_on_the_way_back,
    "a forward of its own": _patched,
    "weights of another kind": _quantized,
    "another dtype": lambda: layers(3)[0].double(),
    "no layer": nn.Identity,
}


@pytest.mark.parametrize("other", OTHERS)
def test_other_layers_go_by_themselves(other: str) -> None:
    layer, x = OTHERS[other](), torch.randn(1, 8)
    with torch.no_grad():
        assert together(x, layer) is None and gated(x, layer, layers(3)[0]) is None
        if other == "another dtype":
            return
        assert torch.equal(linear(x, layer), layer(x))
