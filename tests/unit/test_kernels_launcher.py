"""The launcher: which calls Triton chooses for, and what is handed over after that."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mixerlang.kernels import launcher
from mixerlang.kernels.launcher import Launcher


class Kernel:
    """Stands for a Triton kernel (x_ptr, scale, length, BLOCK): what it is launched with."""

    arg_names = ("x_ptr", "scale", "length", "BLOCK")

    def __init__(self, compiles: bool = True) -> None:
        self.compiles = compiles
        self.slow: list[tuple[Any, ...]] = []
        self.fast: list[tuple[Any, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*arguments: Any, **constants: Any) -> Any:
            self.slow.append((grid, arguments, constants))
            return Compiled(self) if self.compiles else None

        return launch


class Compiled:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *values: self.kernel.fast.append((grid, values))


CONSTANTS = {"BLOCK": 64, "num_warps": 4}


def aligned(dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.zeros(64, dtype=dtype)
    assert x.data_ptr() % 16 == 0
    return x


def test_triton_chooses_once() -> None:
    kernel, x = Kernel(), aligned()
    launch = Launcher(kernel, CONSTANTS)
    launch((3,), x, 0.5, 10)
    assert kernel.slow == [((3,), (x, 0.5, 10), CONSTANTS)]
    launch((5, 2), x, 0.5, 10)
    assert kernel.fast == [((5, 2, 1), (x.data_ptr(), 0.5, 10, 64))]
    assert len(kernel.slow) == 1


def test_triton_chooses_anew_where_it_may_choose_differently() -> None:
    kernel = Kernel()
    launch = Launcher(kernel, CONSTANTS)
    calls: list[tuple[Any, ...]] = [
        (aligned(), 0.5, 10),
        (aligned(torch.float16), 0.5, 10),
        (aligned(), 0.5, 16),
        (aligned(), 0.25, 10),
        (None, 0.5, 10),
    ]
    for call in calls * 2:
        launch((1,), *call)
    assert len(kernel.slow) == len(kernel.fast) == len(calls)


def test_misaligned_tensors_are_left_to_triton() -> None:
    kernel = Kernel()
    launch = Launcher(kernel, CONSTANTS)
    for _ in range(3):
        launch((1,), aligned()[1:], 0.5, 10)
    assert len(kernel.slow) == 3 and not kernel.fast


def test_the_interpreter_compiles_nothing() -> None:
    kernel = Kernel(compiles=False)
    launch = Launcher(kernel, CONSTANTS)
    for _ in range(3):
        launch((1,), aligned(), 0.5, 10)
    assert len(kernel.slow) == 3 and not kernel.fast


def test_choices_are_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(launcher, "MOST_CHOICES", 4)
    launch = Launcher(Kernel(), CONSTANTS)
    for length in range(11):
        launch((1,), aligned(), 0.5, length)
        assert 1 <= len(launch.chosen) <= 4
