"""What commands raise, and how a process ends: 0 fine, 1 errors, 2 usage, 130 on Ctrl-C."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from ..errors import MixerlangError, SpecError
from .output import print_failure, print_json, report
from .streams import drop_stdout

JSON = "mixerlang.json"
"""Where the option --json leaves its value in a context."""


class CommandError(MixerlangError):
    """A command cannot do what it was asked to."""

    def __init__(self, message: str, help: str | None = None) -> None:
        self.help = help
        super().__init__(message)


def need_triton(what: str, otherwise: str = "") -> None:
    """Raise where triton is missing or broken. what: the subject of "needs triton"."""
    try:
        import_module("triton")
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "triton"
        state = "is not installed" if missing else f"cannot be imported: {error}"
        raise CommandError(f"{what} needs triton, which {state}",
                           help=f"pip install triton==3.6.0 (on Linux){otherwise}") from error


class Commands(TyperGroup):
    """Turns exceptions into messages and exit codes, for every command alike."""

    def invoke(self, ctx: Any) -> Any:
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:  # the reader has left, `mixerlang list | head`
            drop_stdout()
            raise typer.Exit(141) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except (MixerlangError, OSError) as error:
            tell(error, bool(ctx.meta.get(JSON)))
            raise typer.Exit(1) from None
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            tell(CommandError("there is not enough memory", help="take a smaller batch, length or "
                              "model, or another device"), bool(ctx.meta.get(JSON)))
            raise typer.Exit(1) from None


def _out_of_memory(error: Exception) -> bool:
    """Python's own error, or torch's, which on the CPU is a RuntimeError like others."""
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


def tell(error: MixerlangError | OSError, json: bool) -> None:
    """Say what went wrong. With --json the answer is then a list of diagnostics."""
    if isinstance(error, SpecError):
        if json:
            print_json(error.diagnostics)
        else:
            report(error.diagnostics)
        return
    message, help = str(error), getattr(error, "help", None)
    if isinstance(error, OSError) and error.strerror:
        name = f"`{error.filename}`: " if error.filename else ""
        message = f"{name}{error.strerror}"
    print_failure(message, help, json)
