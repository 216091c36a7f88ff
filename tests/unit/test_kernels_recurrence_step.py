"""A decoding step of a recurrence: its kernel in Triton's interpreter and built ahead of time, its
dense form, and what torch asks of an op."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from assembler import SPARE
from recurrence_step_cases import RULES, Errors, draw, errors, expected, part
from torch.utils.flop_counter import FlopCounterMode

from mixerlang.kernels.ahead import build, resources
from mixerlang.kernels.recurrence import step_op
from mixerlang.kernels.recurrence.step_ahead import job
from mixerlang.kernels.recurrence.step_op import StepRule, catch_up, fill, new_state, step, tail

GDN = {"activation": "silu", "norm": "l2norm", "value_activation": "silu", "conv": 4,
       "step": "sigmoid", "delta": True}  # fmt: skip
SHIPPED = {
    "gated deltanet": StepRule(16, 16, 128, 128, **GDN, decay="scalar", output="silu"),
    "wide": StepRule(6, 6, 256, 256, **GDN, decay="scalar", output="silu"),
    "kda": StepRule(16, 16, 128, 128, **GDN, decay="softplus", output="sigmoid"),
    "gla": StepRule(4, 4, 100, 200, decay="sigmoid", temperature=16.0, output="silu"),
    "hgrn2": StepRule(8, 8, 128, 128, activation="silu", decay="sigmoid", complement=True,
                      output="rmsnorm"),
    "mamba2": StepRule(1, 24, 128, 64, conv=4, activation="silu", value_activation="silu",
                       decay="scalar", step="decay", skip=True, output="silu"),
    "based": StepRule(8, 8, 273, 64, normalize=True),
    "small": StepRule(2, 2, 16, 16, decay="fixed"),
}  # fmt: skip


def test_the_kernel_agrees_with_float64(interpreted: Callable[[str], Errors]) -> None:
    found = interpreted("interpret_recurrence_step.py")
    assert found.keys() == RULES.keys()
    wrong = {case: values for case, values in found.items() if not all(e < 1e-6 for e in values)}
    assert not wrong


@pytest.mark.parametrize("architecture", ["sm_90", "sm_80"])
@pytest.mark.parametrize(("tokens", "batch"), [(1, 1), (4, 1), (1, 256), (4, 256)])
@pytest.mark.parametrize("rule", SHIPPED.values(), ids=list(SHIPPED))
def test_fits_and_moves_whole_vectors(
    rule: StepRule, tokens: int, batch: int, architecture: str
) -> None:
    compiled = build(job(rule, "bfloat16", tokens=tokens, batch=batch), architecture)
    assert resources(compiled).spilled <= SPARE
    if rule.value_dim % 16 == 0:
        assert "ld.global.v4.b32" in compiled.asm["ptx"]
        assert "st.global.v4.b32" in compiled.asm["ptx"]


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
def test_the_dense_form_agrees_with_float64(rule: StepRule) -> None:
    assert all(error < 1e-14 for error in errors(rule, torch.float64))
    assert all(error < 1e-6 for error in errors(rule))


def test_half_precision_and_a_state_of_it() -> None:
    rule = RULES["gated deltanet"]
    assert all(error < 1e-2 for error in errors(rule, torch.bfloat16))
    assert all(error < 5e-2 for error in errors(rule, torch.bfloat16, state_dtype=torch.bfloat16))


@pytest.mark.parametrize("name", ["gated deltanet", "linear", "mamba2"])
@pytest.mark.parametrize("first", [2, 30])
def test_goes_on_after_a_prefill(name: str, first: int) -> None:
    rule = RULES[name]
    inputs, weights = draw(rule, 2, first + 3, torch.float64)
    wanted, _ = expected(rule, inputs, weights)
    before = part(inputs, 0, first)
    plain = replace(rule, output="none")
    reached = new_state(plain, 2, torch.float64, torch.device("cpu"))
    seen = torch.zeros(2, dtype=torch.int64)
    for t in range(first):
        step(plain, reached, part(inputs, t, t + 1), weights, seen=seen + t)
    state = new_state(rule, 2, torch.float64, torch.device("cpu"))
    fill(rule, state, before, reached["S"], reached.get("z"), seen=seen + first)
    for name in rule.kept:
        rows = torch.arange(max(0, first - rule.ring), first) % rule.ring
        assert torch.equal(state[name][:, rows], reached[name][:, rows])
    found = step(rule, state, part(inputs, first, first + 3), weights, seen=seen + first)
    torch.testing.assert_close(found, wanted[:, first:])


def test_the_tail_is_what_a_convolution_reads() -> None:
    rule = RULES["gated deltanet"]
    inputs, weights = draw(rule, 1, 5, torch.float64)
    state = new_state(rule, 1, torch.float64, torch.device("cpu"))
    seen = torch.zeros(1, dtype=torch.int64)
    for t in range(2):
        step(rule, state, part(inputs, t, t + 1), weights, seen=seen + t)
    found = tail(rule, state, seen + 2)
    assert found is not None
    rows = torch.cat([inputs[name] for name in "qkv"], dim=-1)
    assert torch.equal(found, torch.cat([torch.zeros_like(rows[:, :1]), rows[:, :2]], dim=1))


def arguments(rule: StepRule, tokens: int) -> tuple[Any, ...]:
    """Of the op."""
    inputs, weights = draw(rule, 2, tokens, torch.float32)
    state = new_state(rule, 2, torch.float32, torch.device("cpu"))
    return (
        *(inputs.get(name) for name in (*step_op.INPUTS, "gate")),
        *(state.get(name) for name in (*step_op.INPUTS, "S", "z", "committed")),
        *(torch.zeros(2, dtype=torch.int64), *weights, step_op._coded(rule)),
    )


@pytest.mark.parametrize("name", ["gated deltanet", "linear"])
@pytest.mark.parametrize("tokens", [1, 3])
def test_is_an_op_to_torch(name: str, tokens: int) -> None:
    torch.library.opcheck(step_op._step, arguments(RULES[name], tokens))


def test_flops_are_those_of_the_products_with_the_state() -> None:
    rule = RULES["gated deltanet"]
    with FlopCounterMode(display=False) as counter:
        step_op._step(*arguments(rule, 3))
    assert counter.get_total_flops() == 2 * 3 * 2 * 3 * rule.value_heads * 16 * 24


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"v": torch.zeros(2, 1, 95)}, "v is of shape"),
        ({"gate": None}, "gate is of shape None"),
        ({"q": torch.zeros(2, 9, 32), "v": torch.zeros(2, 9, 96)}, "takes 1 to 8"),
    ],
)
def test_refuses_what_it_would_read_beyond(change: dict[str, Any], message: str) -> None:
    rule = RULES["gated deltanet"]
    inputs, weights = draw(rule, 2, 1, torch.float32)
    state = new_state(rule, 2, torch.float32, torch.device("cpu"))
    given = {name: x for name, x in (inputs | change).items() if x is not None}
    seen = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=message):
        step(rule, state, given, weights, seen=seen)
    with pytest.raises(ValueError, match="conv is of shape None"):
        step(rule, state, inputs, weights._replace(conv=None), seen=seen)
    with pytest.raises(ValueError, match="S is of shape"):
        catch_up(rule, state, weights, seen=seen[:1])
    with pytest.raises(ValueError, match="lies contiguously"):
        step(rule, state | {"S": state["S"].mT.contiguous().mT}, inputs, weights, seen=seen)


@pytest.mark.parametrize(
    "change", [{"heads": 3}, {"key_dim": 600}, {"conv": 9}, {"decay": "linear"}, {"step": "decay"}]
)
def test_a_rule_that_no_kernel_serves(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"divide|serve|none of|gives no"):
        StepRule(**{"heads": 2, "value_heads": 2, "key_dim": 8, "value_dim": 8} | change)
