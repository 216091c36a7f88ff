"""The recurrence kernels' own arithmetic on a CPU: each pass in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Errors = dict[str, list[float]]


@pytest.fixture(scope="module")
def errors(interpreted: Callable[[str], Errors]) -> Errors:
    return interpreted("interpret_recurrence.py")


def test_every_pass_agrees_with_float64(errors: Errors) -> None:
    assert len(errors) >= 18
    for case, values in errors.items():
        # Decays are kept to 2^-17 (log2). Keys alike with b near 2 cost any chunked form in float32
        # some digits.
        most = 1e-4 if "alike" in case else 5e-6
        assert all(error < most for error in values), (case, values)
