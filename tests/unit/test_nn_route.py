"""What runs a keep: a reach sees the keys that its expression does, and refusals say why."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixerlang.nn.keeps import (
    Blocks,
    Compressed,
    Dilated,
    Evict,
    Full,
    Intersection,
    Keep,
    Learned,
    Sinks,
    Strided,
    Union,
    Window,
)
from mixerlang.nn.route import Reach, Route, reach, route

LEAVES = st.one_of(
    st.just(Full()),
    st.integers(1, 6).map(Window),
    st.integers(1, 5).map(Sinks),
    st.integers(1, 6).map(Strided),
    st.builds(Dilated, st.integers(1, 4), st.integers(1, 4)),
)


def _of(parts: st.SearchStrategy[Keep]) -> st.SearchStrategy[Keep]:
    tuples = st.lists(parts, min_size=2, max_size=3).map(tuple)
    return st.one_of(tuples.map(Union), tuples.map(Intersection))


def sees(keep: Keep, t: int, j: int) -> bool:
    """Written down again from the language's definitions."""
    match keep:
        case Full():
            return True
        case Window(size):
            return t - j < size
        case Sinks(count):
            return j < count
        case Strided(stride):
            return (t - j) % stride == 0
        case Dilated(size, rate):
            return t - j < size * rate and (t - j) % rate == 0
        case Union(parts):
            return any(sees(part, t, j) for part in parts)
        case Intersection(parts):
            return all(sees(part, t, j) for part in parts)
    raise AssertionError(keep)


def reaches(found: Reach, t: int, j: int) -> bool:
    """As `attention` of kernels/attention/op.py has it."""
    near = found.window is None or (t - j < found.window and (t - j) % found.rate == 0)
    return near or j < found.sinks or bool(found.strided and (t - j) % found.strided == 0)


@settings(max_examples=400, deadline=None)
@given(st.recursive(LEAVES, _of, max_leaves=6))
def test_a_reach_sees_what_its_expression_does(keep: Keep) -> None:
    found = reach(keep)
    if found is not None:
        for t in range(32):
            for j in range(t + 1):
                assert reaches(found, t, j) == sees(keep, t, j), (t, j)


@pytest.mark.parametrize(
    ("keep", "wanted"),
    [
        (Full(), Reach()),
        (Union((Window(8), Full())), Reach()),
        (Window(8), Reach(8)),
        (Union((Window(8), Sinks(4), Window(6))), Reach(8, sinks=4)),
        (Intersection((Window(8), Window(6))), Reach(6)),
        (Intersection((Window(9), Strided(4))), Reach(9, rate=4)),
        (Dilated(8, 2), Reach(16, rate=2)),
        (Union((Dilated(8, 2), Window(16))), Reach(16)),
        (Strided(4), Reach(1, strided=4)),
        (Union((Window(8), Strided(4), Sinks(2))), Reach(8, sinks=2, strided=4)),
        (Union((Strided(4), Strided(2))), Reach(1, strided=2)),
        (Sinks(4), None),
        (Union((Dilated(8, 2), Window(3))), None),
        (Union((Strided(3), Strided(2))), None),
        (Intersection((Window(8), Sinks(4))), None),
    ],
)
def test_simple_spellings(keep: Keep, wanted: Reach | None) -> None:
    assert reach(keep) == wanted


def test_many_terms_do_not_take_long() -> None:
    ring = Union(tuple(Dilated(1000 - rate, rate) for rate in range(1, 60)))
    assert reach(Intersection((ring,) * 30)) is None


@pytest.mark.parametrize(
    ("keep", "op"),
    [
        (Full(), "sdpa"),
        (Window(4), "attention"),
        (Union((Window(4), Learned(8))), "intervals"),
        (Union((Window(4), Evict("norm", 8))), "intervals"),
    ],
)
def test_what_runs(keep: Keep, op: str) -> None:
    assert route(keep, 64, 64).op == op
    assert route(keep, 64, 64).reason is None
    assert route(keep, 64, 64, plain=False).op == op.replace("sdpa", "attention")


@pytest.mark.parametrize(
    ("keep", "dim", "reason"),
    [
        (Window(4), 257, "heads of 257"),
        (Compressed(4), 64, "summaries"),
        (Union((Window(4), Blocks(4, 3))), 64, "blocks"),
        (Evict("tova", 8), 64, "evict(tova)"),
        (Union((Window(4), Learned(8193))), 64, "budget of 8193"),
        (Sinks(4), 64, "no kernel serves this set"),
        (Union((Window(2**31 - 1), Learned(8))), 64, "a window of 2147483647"),
    ],
)
def test_a_reason_at_every_fallback(keep: Keep, dim: int, reason: str) -> None:
    found = route(keep, dim, 64)
    assert found == Route("eager", reason=found.reason)
    assert found.reason is not None and reason in found.reason


def test_needs_no_torch() -> None:
    code = "import sys, mixerlang.nn.route; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
