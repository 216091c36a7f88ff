"""Attention over interval lists on a CPU: each rendered pass in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Errors = dict[str, list[float]]


@pytest.fixture(scope="module")
def errors(interpreted: Callable[[str], Errors]) -> Errors:
    return interpreted("interpret_lte.py")


def test_every_pass_agrees_with_float64(errors: Errors) -> None:
    assert len(errors) >= 9
    wrong = {case: values for case, values in errors.items() if not all(e < 1e-5 for e in values)}
    assert not wrong
