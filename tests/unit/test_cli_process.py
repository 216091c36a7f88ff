"""What only a whole process shows: how fast it starts, what it imports, how it ends."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

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


def test_a_terminal_without_unicode_gets_escapes() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*MIXERLANG, "graph", SPEC], env=environment, capture_output=True)
    assert done.returncode == 0
    assert b"\\u251c" in done.stdout


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
