"""The scan's kernels: right in Triton's interpreter, made for GPUs that are not here."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scan_cases import RULES, equations

from mixerlang.kernels import ahead
from mixerlang.kernels.scan.ahead import jobs
from mixerlang.kernels.scan.launch import kernel, problem
from mixerlang.kernels.scan.rule import Equations

Errors = dict[str, list[float]]


def test_kernels_in_the_interpreter(interpreted: Callable[[str], Errors]) -> None:
    """o, states and all gradients, against the equations in float64."""
    found = interpreted("interpret_scan.py")
    assert len(found) == 2 * len(RULES) + 1
    for case, errors in found.items():
        assert max(errors) < 1e-5, (case, errors)


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("name", ["gated delta", "momentum"])
def test_kernels_for_gpus_that_are_not_here(name: str, architecture: str) -> None:
    made = kernel(equations(name), 16, 64, 64)
    built = list(jobs(made))
    assert [job.constants.get("KEEP") for job in built] == [False, True, None]
    for job in built:
        assert ahead.resources(ahead.build(job, architecture)).spilled == 0


@pytest.mark.parametrize("name", RULES)
def test_no_rule_is_refused(name: str) -> None:
    assert problem(equations(name), 2, 128, 128) is None


def test_what_no_kernel_serves() -> None:
    matrix = (("S", ("key", "value")),)
    k = (("k", ("key",)), ("q", ("key",)))
    told = {
        "exp of a square": ("S = exp(outer(k, k)) @ S", "o = S.T @ q"),
        "square times square": ("S = (outer(k, k) * outer(q, q)) @ S", "o = S.T @ q"),
    }
    for lines in told.values():
        assert "no kernel has" in str(problem(Equations(matrix, k, lines), 2, 8, 8))
    wide = Equations((("S", ("key", "value")),), (("u", ("value",)),),
                     ("S = S + outer(S @ u, u)", "o = u"))  # fmt: skip
    assert "too large" in str(problem(wide, 2, 256, 256))
    still = Equations((("z", ("value",)),), (), ("z = z", "o = z"))
    assert "nothing of a token" in str(problem(still, 2, 8, 8))


def test_squares_of_squares_end() -> None:
    """Written in a few lines, they would have 2^40 steps."""
    first = "A0 = I.key - outer(k, q)"
    matrix, k = (("S", ("key", "value")),), (("k", ("key",)), ("q", ("key",)))
    for again in ("A{1} @ A{1}", "A{1} + A{1}", "(A{1} - A{1}).T", "-A{1}"):
        lines = [first, *(f"A{n} = {again.format(n, n - 1)}" for n in range(1, 40 if "@" in again
                                                                          else 90))]
        told = problem(Equations(matrix, k, (*lines, f"S = A{len(lines) - 1} @ S", "o = S.T @ q")),
                       2, 8, 8)
        assert told is not None and told.startswith("no kernel has"), again
