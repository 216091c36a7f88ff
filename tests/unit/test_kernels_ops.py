"""Registering ops: what torch asks of them, gradients, and a module that is loaded again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from mixerlang.kernels import ops


def define(name: str, factor: float = 1.0) -> Any:
    """x * y * factor, and 0 for what it counts."""

    def forward(x: Tensor, y: Tensor, power: int) -> tuple[Tensor, Tensor]:
        return x * y**power * factor, torch.zeros(2)

    def fake(x: Tensor, y: Tensor, power: int) -> tuple[Tensor, Tensor]:
        return torch.empty_like(x), torch.empty(2)

    def flops(x: tuple[int, ...], y: tuple[int, ...], power: int, **_: Any) -> int:
        return x[0] * power

    def setup(context: Any, arguments: tuple[Any, ...], results: tuple[Tensor, Tensor]) -> None:
        context.save_for_backward(arguments[0], arguments[1])
        context.power = arguments[2]

    def backward(context: Any, dz: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        x, y = context.saved_tensors
        power = context.power
        return dz * y**power * factor, dz * x * power * y ** (power - 1) * factor, None

    schema = "(Tensor x, Tensor y, int power) -> (Tensor, Tensor)"
    rest: dict[str, Any] = {"setup": setup, "backward": backward, "flops": flops}
    return ops.define(f"mixerlang_tests::{name}", schema, forward, fake, **rest)


@pytest.fixture(scope="module")
def op() -> Any:
    return define("product")


def make() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(5, requires_grad=True), torch.randn(5, requires_grad=True)


def test_torch_accepts_it(op: Any) -> None:
    torch.library.opcheck(op, (*make(), 2))
    torch.library.opcheck(op, (*(x.detach() for x in make()), 2))


def test_gradients(op: Any) -> None:
    x, y = (tensor.detach().double().requires_grad_() for tensor in make())
    assert torch.autograd.gradcheck(lambda x, y: op(x, y, 2)[0], (x, y))


def test_nothing_is_saved_where_nothing_wants_a_gradient(op: Any) -> None:
    x, y = make()
    with torch.no_grad():
        assert op(x, y, 2)[0].grad_fn is None
    assert op(x.detach(), y.detach(), 2)[0].grad_fn is None
    assert op(x.detach(), y, 2)[0].grad_fn is not None


def test_what_has_no_gradient_says_so() -> None:
    def double(x: Tensor) -> Tensor:
        return 2 * x

    op = ops.define("mixerlang_tests::double", "(Tensor x) -> Tensor", double, torch.empty_like)
    x, _ = make()
    assert torch.equal(op(x), 2 * x)
    with pytest.raises(RuntimeError, match="mixerlang_tests::double has no gradient"):
        op(x).sum().backward()


def test_tensors_in_lists_are_seen() -> None:
    def total(parts: list[Tensor]) -> list[Tensor]:
        return [2 * part for part in parts]

    def fake(parts: list[Tensor]) -> list[Tensor]:
        return [torch.empty_like(part) for part in parts]

    op = ops.define("mixerlang_tests::listed", "(Tensor[] parts) -> Tensor[]", total, fake)
    found = op(list(make()))
    assert isinstance(found, list) and torch.equal(found[0], 2 * make()[0])
    with pytest.raises(RuntimeError, match="mixerlang_tests::listed has no gradient"):
        found[1].sum().backward()
    assert not op([x.detach() for x in make()])[0].requires_grad


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # by torch itself
def test_forward_derivatives_are_refused_and_not_lost(op: Any) -> None:
    x, y = (tensor.detach() for tensor in make())
    with forward_ad.dual_level():
        assert torch.equal(op(x, y, 2)[0], x * y**2)
        with torch.no_grad(), pytest.raises(RuntimeError, match="has no forward derivative"):
            op(forward_ad.make_dual(x, y), y, 2)


def test_compiles_and_exports(op: Any) -> None:
    x, y = make()

    def run(x: Tensor, y: Tensor) -> Tensor:
        return op(x * 2, y, 3)[0].sum()

    expected = torch.autograd.grad(run(x, y), (x, y))
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(x, y), (x, y)), expected)

    class Module(torch.nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return run(x, y)

    tokens = torch.export.Dim("tokens", min=2, max=100)
    shapes = ({0: tokens}, {0: tokens})
    program = torch.export.export(Module(), (x.detach(), y.detach()), dynamic_shapes=shapes)
    longer = torch.randn(2, 9)
    torch.testing.assert_close(program.module()(*longer), run(*longer))
    assert "mixerlang_tests.product" in program.graph_module.code


def test_flops_are_counted(op: Any) -> None:
    with FlopCounterMode(display=False) as counter:
        op(*make(), 3)
    assert counter.get_total_flops() == 15


def test_a_module_that_is_loaded_again_takes_its_place() -> None:
    x, y = make()
    define("again")
    second = define("again", factor=10.0)
    torch.testing.assert_close(second(x, y, 1)[0], 10 * x * y)
    torch.testing.assert_close(torch.ops.mixerlang_tests.again(x, y, 1)[0], 10 * x * y)
