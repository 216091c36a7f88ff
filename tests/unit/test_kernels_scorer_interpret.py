"""The scorer kernels' own arithmetic on a CPU: each pass in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Errors = dict[str, list[float]]


@pytest.fixture(scope="module")
def errors(interpreted: Callable[[str], Errors]) -> Errors:
    return interpreted("interpret_scorer.py")


def test_every_pass_agrees_with_float64(errors: Errors) -> None:
    wide = {case: values for case, values in errors.items() if not case.endswith("float16")}
    assert len(wide) == 9
    assert not {case: values for case, values in wide.items() if not all(e < 2e-6 for e in values)}


def test_rows_that_walk_agree_with_float64(errors: Errors) -> None:
    """Where rows walk along the tokens: 16 bits, layers that are not too wide."""
    half = {case: values for case, values in errors.items() if case.endswith("float16")}
    assert len(half) == 7
    assert not {case: values for case, values in half.items() if not all(e < 2e-3 for e in values)}
