"""The command line: thin adapters over the library, which is imported when a command needs it."""

from __future__ import annotations


def main() -> None:
    """Entry point of `mixerlang`."""
    import io
    import sys

    from .app import app

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may not know every character
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="mixerlang")
