"""The command line: thin adapters over the library, which is imported when a command needs it."""

from __future__ import annotations


def main() -> None:
    """Entry point of `mixerlang`."""
    try:
        from .app import app
        from .guard import tell
        from .streams import drop_stdout, prepare

        prepare()
        try:
            app(prog_name="mixerlang")
        except OSError as error:  # commands tell theirs; this one is of --help or --version
            tell(error, json=False)
            drop_stdout()
            raise SystemExit(1) from None
    except KeyboardInterrupt:  # as above: this one is of the imports
        raise SystemExit(130) from None
