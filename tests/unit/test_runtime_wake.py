"""What goes on beside loading a model."""

from __future__ import annotations

import gc
from threading import Event

import pytest
import torch

from mixerlang.runtime import wake

CUDA = torch.device("cuda", 0)


def test_jobs_run_beside_the_block_and_are_over_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, done = Event(), Event(), Event()

    def job(device: torch.device) -> None:
        assert device == CUDA
        begun.set()
        assert go_on.wait(10)
        done.set()

    monkeypatch.setattr(wake, "JOBS", [job])
    with wake.waking(CUDA):
        assert begun.wait(10)
        assert not done.is_set()
        go_on.set()
    assert done.is_set()


def test_what_fails_in_the_background_is_left_to_the_foreground(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed = Event()

    def job(device: torch.device) -> None:
        failed.set()
        raise RuntimeError("no GPU")

    monkeypatch.setattr(wake, "JOBS", [job])
    with pytest.raises(ValueError, match="the block's own"), wake.waking(CUDA):
        raise ValueError("the block's own")
    assert failed.is_set()


def test_a_cpu_has_nothing_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wake, "JOBS", [lambda device: pytest.fail("started")])
    with wake.waking(torch.device("cpu")):
        pass


@pytest.mark.parametrize("collects", [True, False])
def test_the_garbage_collector_is_as_it_was(collects: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if collects else gc.disable)()
        with pytest.raises(KeyError), wake.uncollected():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() is collects
    finally:
        (gc.enable if before else gc.disable)()


def test_triton_is_asked_for_its_hash() -> None:
    pytest.importorskip("triton")
    from triton.runtime.cache import triton_key

    wake.start_triton(CUDA)
    assert triton_key.cache_info().currsize == 1
