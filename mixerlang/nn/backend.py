"""Which way a layer goes: through the kernels, or through plain PyTorch ("eager").

On a GPU that runs them the kernels are the default. MIXERLANG_BACKEND=eager or =kernels decides
otherwise; off a GPU, =kernels runs the ops in their dense form, which is how tests cover this way.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

VARIABLE = "MIXERLANG_BACKEND"
CHOICES = ("eager", "kernels")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
CAPABILITY = (8, 0)

_log = logging.getLogger(__name__)


Function = TypeVar("Function", bound=Callable[..., object])


def _constant(function: Function) -> Function:
    """torch.compiler.assume_constant_result, without the two seconds that importing it takes."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def kernels(x: Tensor) -> bool:
    """Whether layers call kernels for tensors like x."""
    return available(x.device, x.dtype)


def available(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether layers call kernels for tensors of this dtype on this device."""
    choice = _choice()
    if choice or device.type != "cuda":
        return choice == "kernels"
    reason = _refusal(device, dtype)
    if reason is not None:
        explain(reason)
    return reason is None


@contextmanager
def forced(choice: str) -> Iterator[None]:
    """Go the "eager" or the "kernels" way, whatever the device, until the end of the block.

    Through the environment: generated folders have a copy of this module each.
    """
    if choice not in CHOICES:
        raise ValueError(f"the backend is {' or '.join(CHOICES)}, not {choice}")
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = choice
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def explain(reason: str) -> None:
    """Say once why something runs as plain PyTorch, or a step uncaptured."""
    if not torch.compiler.is_compiling():
        _say(reason)


@cache
def _say(reason: str) -> None:
    _log.warning(reason)


@_constant
def _choice() -> str:
    choice = os.environ.get(VARIABLE, "")
    if choice not in ("", *CHOICES):
        raise ValueError(f"{VARIABLE} is {' or '.join(CHOICES)}, not {choice}")
    return choice


@_constant
def _refusal(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the kernels do not run there, if so."""
    if dtype not in DTYPES:
        return f"plain PyTorch runs: the kernels serve float32, bfloat16 and float16, not {dtype}"
    problem = _triton_problem()
    if problem is not None:
        return f"plain PyTorch runs: the kernels need triton, which {problem}"
    capability = torch.cuda.get_device_capability(device)
    if capability < CAPABILITY:
        return f"plain PyTorch runs: the kernels need compute capability 8.0, not {capability}"
    return None


@cache
def _triton_problem() -> str | None:
    """Why triton cannot be used, if so. Found out before the first launch, which a broken one would
    stop in the middle of a model."""
    try:
        import triton  # type: ignore[import-not-found,import-untyped,unused-ignore] # noqa: F401
    except ModuleNotFoundError as error:
        if error.name == "triton":
            return "is not installed (pip install triton)"
        return f"cannot be imported: {error}"
    except Exception as error:  # whatever the parts of a broken one raise
        return f"cannot be imported: {error}"
    return None
