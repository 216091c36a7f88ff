"""The kernel of a decoding step, to be built for a GPU that need not be here."""

from __future__ import annotations

import importlib
from functools import partial

from ..ahead import POINTERS, Job
from .step_cut import Plan, choose, constants
from .step_rule import StepRule

FLOATS = ("conv_ptr", "decay_ptr", "bias_ptr", "skip_ptr", "norm_ptr")


def job(
    rule: StepRule,
    dtype: str,
    state_dtype: str = "float32",
    *,
    tokens: int = 1,
    batch: int = 1,
    plan: Plan | None = None,
    early: bool = False,
) -> Job:
    """`recurrence_step` for so many new tokens of a batch, with parameters in float32."""
    size = 4 if state_dtype == "float32" else 2
    plan = plan or choose(rule, batch * rule.value_heads, size)
    fixed = constants(rule, tokens, plan, early)
    options = {"num_warps": fixed.pop("num_warps")}
    load = partial(importlib.import_module, f"{__package__}.step_kernel")
    given = [name for name in load().recurrence_step.arg_names if not name.isupper()]
    given += ["S_ptr"]
    types = {name: "i32" for name in given if not name.endswith("_ptr")}
    types |= dict.fromkeys((name for name in given if name.endswith("_ptr")), POINTERS[dtype])
    types |= dict.fromkeys(FLOATS, "*fp32")
    types |= {"S_ptr": POINTERS[state_dtype], "z_ptr": POINTERS[state_dtype]}
    types |= {"committed_ptr": "*i64", "seen_ptr": "*i64"}
    absent = dict.fromkeys(missing(rule))
    types = {name: kind for name, kind in types.items() if name not in absent}
    tile = f"{plan.block} channels of v"
    name = f"recurrence step of {tokens}"
    return Job(name, load, "recurrence_step", types, fixed | absent, options, tile)


def missing(rule: StepRule) -> list[str]:
    """Arguments that a rule has no use for."""
    names = [f"{name}_ptr" for name in ("a", "b") if name not in rule.widths]
    names += [f"{name}_ring_ptr" for name in ("q", "k", "v", "a", "b") if name not in rule.kept]
    there = {
        "gate_ptr": rule.output in ("silu", "sigmoid"),
        "z_ptr": rule.normalize,
        "conv_ptr": rule.conv > 0,
        "decay_ptr": rule.decay in ("fixed", "scalar", "softplus"),
        "bias_ptr": rule.decay in ("scalar", "softplus"),
        "skip_ptr": rule.skip,
        "norm_ptr": rule.output != "none",
    }
    return [*names, *(name for name, used in there.items() if not used)]
