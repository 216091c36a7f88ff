"""How a step's programs hold a head's state, and what its kernel is specialised on."""

from __future__ import annotations

from typing import Any, NamedTuple

from .step_rule import StepRule

CELLS = 128
"""Of a state that a thread holds at a time, in registers."""
MANY = 264
"""Programs: two for each of an H100's multiprocessors."""


class Plan(NamedTuple):
    """Channels of v that a program works on at a time, and its warps."""

    block: int
    warps: int


def choose(rule: StepRule, programs: int, element_size: int = 4) -> Plan:
    """For `programs` heads of all sequences, and a state of so many bytes an element. With more
    threads than channels of k Triton would keep each vector in every one of them; with half of the
    channels of v at a time, float32 states of many programs are faster, all else slower."""
    keys = padded(rule.key_dim)
    threads = min(256, max(32, keys))
    half = keys > 128 or rule.complement or (programs >= MANY and element_size == 4)
    cells = CELLS // 2 if half else CELLS
    return Plan(min(padded(rule.value_dim), cells * threads // keys), threads // 32)


def constants(rule: StepRule, tokens: int, plan: Plan, early: bool) -> dict[str, Any]:
    """For `tokens` new tokens of each sequence; none to let a state catch up."""
    return {
        "HEADS": rule.heads,
        "GROUP": rule.group,
        "KEY": rule.key_dim,
        "VALUE": rule.value_dim,
        "PADDED_KEY": padded(rule.key_dim),
        "BLOCK_V": plan.block,
        "BLOCKS_V": -(-rule.value_dim // plan.block),
        "TOKENS": tokens,
        "ROWS": padded(tokens),
        "RING": rule.ring,
        "CONV": rule.conv,
        "ACTIVATION": rule.activation,
        "NORM": rule.norm,
        "VALUE_ACTIVATION": rule.value_activation,
        "DECAY": rule.decay,
        "TEMPERATURE": rule.temperature,
        "STEP": rule.step,
        "STEP_SCALE": rule.step_scale,
        "DELTA": rule.delta,
        "COMPLEMENT": rule.complement,
        "OUTPUT": rule.output,
        "EPS": rule.eps,
        "SCALE": rule.scale,
        "EARLY": early,
        "num_warps": plan.warps,
    }


def padded(width: int) -> int:
    """The next power of two, 1 for nothing."""
    return 1 << max(width - 1, 0).bit_length()
