"""How the scorer's launches share the work, and that offsets stay within 32 bits."""

from __future__ import annotations

import pytest

pytest.importorskip("triton")
from mixerlang.kernels.scorer.launch import MOST_OFFSET, run_of

ROWS, REACH, RESIDENT = 64, 3, 264


@pytest.mark.parametrize("lanes", [1, 16, 100, 300, 4096])
@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 1000, 32768, 1_000_003])
def test_programs_fill_whole_waves(tokens: int, lanes: int) -> None:
    """Never slower than one program per lane, or than as many as there are rows to share."""

    def steps(run: int) -> int:
        programs = lanes * -(-tokens // (ROWS * run))
        return -(-programs // RESIDENT) * (run + 2 * REACH)

    run = run_of(tokens, lanes, ROWS, REACH, RESIDENT)
    assert 1 <= run <= -(-tokens // ROWS)
    assert steps(run) <= min(steps(1), steps(-(-tokens // ROWS)))


def test_the_paper_layer_takes_one_wave() -> None:
    run = run_of(32768, 16, ROWS, REACH, RESIDENT)
    assert run == 32 and 16 * 32768 // (ROWS * run) <= RESIDENT


def test_programs_end_before_offsets_overflow() -> None:
    tokens, widest = 2**24, 2**12
    fewest = -(-tokens * widest // MOST_OFFSET)
    run = run_of(tokens, 1, ROWS, REACH, 2, fewest)
    assert ROWS * run * widest <= MOST_OFFSET
