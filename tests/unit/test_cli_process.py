"""What only a whole process shows: how fast it starts, what it imports, how it ends."""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEC = str(ROOT / "specs/paper/lalte_400m.mix")
MIXERLANG = [sys.executable, "-m", "mixerlang"]


def test_check_is_fast() -> None:
    """Half a second for a whole process: of CPU time, as others may use this machine too."""
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*MIXERLANG, "check", SPEC], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if seconds[-1] < 0.5:
            return
    raise AssertionError(seconds)


def test_light_commands_import_no_torch(tmp_path: Path) -> None:
    code = f"""
import io, sys
from contextlib import redirect_stdout
from mixerlang.cli.app import app
for args in ["check {SPEC}", "check {SPEC} --json", "fmt --check {SPEC}", "list", "show nsa",
             "graph {SPEC}", "graph {SPEC} --as svg", "analyze {SPEC}", "explain", "--version",
             "compile {SPEC} -o {tmp_path / 'out'}"]:
    with redirect_stdout(io.StringIO()):
        try:
            app(args.split())
        except SystemExit as end:
            assert not end.code or args.startswith("fmt"), (args, end.code)
    heavy = {{"torch", "triton", "rich"}} & sys.modules.keys()
    assert not heavy, (args, heavy)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_reader_that_leaves_is_no_error() -> None:
    process = subprocess.Popen([*MIXERLANG, "list"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 141


def test_a_terminal_without_unicode_gets_ascii(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*MIXERLANG, "graph", SPEC], env=environment, capture_output=True)
    assert done.returncode == 0
    assert b"\n|- embedding   32,000 tokens" in done.stdout
    (tmp_path / "a.mix").write_text("# \u4e2d\nmodel \u4e2d {}\n", "utf-8")
    done = subprocess.run([*MIXERLANG, "check", tmp_path / "a.mix"], env=environment,
                          capture_output=True)
    assert done.returncode == 1
    assert b"\\u4e2d" in done.stdout


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_nothing(closed: str) -> None:
    for command, code in ((f"check {SPEC}", 0), (f"graph {SPEC}", 0), ("explain MX201", 0),
                          ("check none.mix", 1), ("graph none.mix", 1), ("--help", 0)):
        line = f"{shlex.join(MIXERLANG)} {command} {closed}"
        done = subprocess.run(["bash", "-c", line], capture_output=True)
        assert done.returncode == code, line
        assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["list", "--help"])
def test_a_full_disk_is_told(command: str) -> None:
    with open("/dev/full", "w") as full:  # a device of Linux on which every write fails so
        done = subprocess.run([*MIXERLANG, command], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == b"error: No space left on device"


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    """A file is replaced; a pipe or a device in its place must stay what it is."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [*MIXERLANG, "analyze", SPEC, "--html", str(pipe)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as writer:
        page = pipe.read_text(encoding="utf-8")  # blocks until the command opens it
    assert writer.returncode == 0
    assert pipe.is_fifo() and page.startswith("<!doctype html>")


def test_interrupts_are_quiet() -> None:
    code = """
import sys
from mixerlang import pipeline
from mixerlang.cli import main
def interrupted(*args):
    raise KeyboardInterrupt
pipeline.check = interrupted
sys.argv = ["mixerlang", "check", "a.mix"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
