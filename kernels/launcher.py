"""Launching a Triton kernel again and again, without what Triton asks of every call.

Triton looks at each argument anew to choose among the kernels it has compiled, and asks the driver
about each pointer; that costs the host more than a short kernel takes. A Launcher remembers the
choice, and hands over plain addresses.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

MOST_CHOICES = 4096
"""Remembered per kernel; a program that sees more layouts than that starts over."""
ALIGNED = 16
"""Bytes: Triton has kernels of their own for addresses that are multiples of this."""


class Launcher:
    """A Triton kernel with the constants and options it is launched with.

        launch = Launcher(module.attention_forward, {"BLOCK_Q": 64, "num_warps": 4})
        launch((blocks, batch), q, k, o, *q.stride(), tokens)

    Arguments are tensors of one device, None, and numbers, in the kernel's order; its constants
    come last in its signature and are left out. It runs on the tensors' device, on the current
    stream of that.
    """

    def __init__(self, kernel: Any, constants: dict[str, Any]) -> None:
        self.kernel = kernel
        self.constants = constants
        self.last = tuple(constants[name] for name in kernel.arg_names if name in constants)
        self.chosen: dict[tuple[Any, ...], Any] = {}

    def __call__(self, grid: tuple[int, ...], *arguments: Any) -> None:
        device, key, values = self._look(arguments)
        if device >= 0 and device != torch.cuda.current_device():
            with torch.cuda.device(device):
                self._launch(grid, arguments, key, values)
        else:
            self._launch(grid, arguments, key, values)

    def _look(self, arguments: tuple[Any, ...]) -> tuple[int, tuple[Any, ...] | None, list[Any]]:
        """Device, a key that settles Triton's choice (None: do not remember it), and the arguments
        with tensors as addresses. A key of the numbers themselves tells more apart than Triton
        does, and costs less."""
        device, together = -1, 0
        key, values = list[Any](), list[Any]()
        for x in arguments:
            if type(x) is int or not isinstance(x, Tensor):
                values.append(x)
                key.append(x)
            else:
                address = x.data_ptr()
                together |= address
                values.append(address)
                key.append(x.dtype)
                device = x.get_device()
        return device, None if together % ALIGNED else (device, *key), values

    def _launch(
        self,
        grid: tuple[int, ...],
        arguments: tuple[Any, ...],
        key: tuple[Any, ...] | None,
        values: list[Any],
    ) -> None:
        compiled = self.chosen.get(key) if key else None
        if compiled is not None:
            compiled[(*grid, 1, 1)[:3]](*values, *self.last)
            return
        compiled = self.kernel[grid](*arguments, **self.constants)
        if key and compiled is not None:  # the interpreter gives none
            if len(self.chosen) >= MOST_CHOICES:
                self.chosen.clear()
            self.chosen[key] = compiled


@cache
def early(index: int | None) -> bool:
    """Whether a GPU may start a launch before the one before it is over (launch_pdl): Hopper and
    later. Such a kernel waits for what it reads, and before it writes."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability(index) >= (9, 0)
