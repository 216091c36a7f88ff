"""What loading a model need not wait for: the GPU's start, and Triton's look at itself."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from threading import Thread

import torch


def start_gpu(device: torch.device) -> None:
    """The driver, a context, and the library of matrix products: a second or two."""
    x = torch.zeros(16, 16, dtype=torch.bfloat16, device=device)
    torch.mm(x, x)
    torch.cuda.synchronize(device)


def start_triton(device: torch.device) -> None:
    """Triton looks for built kernels by a hash of all of its own files, 400 MB of them."""
    import_module("triton.runtime.cache").triton_key()


JOBS: list[Callable[[torch.device], None]] = [start_gpu, start_triton]


@contextmanager
def waking(device: torch.device) -> Iterator[None]:
    """Start a GPU in the background; it has started at the end of the block. What fails there
    fails again, with its message, when it is needed."""
    jobs = JOBS if device.type == "cuda" else []
    threads = [Thread(target=_quietly, args=(job, device), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        with uncollected():
            yield
    finally:
        for thread in threads:
            thread.join()


def _quietly(job: Callable[[torch.device], None], device: torch.device) -> None:
    with suppress(Exception):
        job(device)


@contextmanager
def uncollected() -> Iterator[None]:
    """Importing makes many objects that stay; a garbage collector would go through all of them
    again and again, a fifth of the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
