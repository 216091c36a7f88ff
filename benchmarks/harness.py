"""What the benchmarks share: clocks, workers that compile side by side, rows and where they go.

Two clocks: `gpu` times replays of a CUDA graph, `eager` the call as a user makes it, with the
host's share. Contenders are called in turn, and the L2 cache is emptied before every call.
On a machine without a GPU everything runs too, on small numbers that mean nothing: a rehearsal.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import json
import multiprocessing
import queue
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

RESULTS = ROOT / "benchmarks" / "results"
Row = dict[str, Any]
Call = Callable[[], Any]


# ----------------------------------------------------------------------------------------- clocks


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def graphed(call: Call) -> Call:
    """The call as one CUDA graph, warmed up on a side stream as capture wants it."""
    if device() == "cpu":
        return call
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def all_graphed(calls: dict[str, Call]) -> dict[str, Call]:
    """Those of the calls that can be captured."""
    graphs = {name: attempt(f"{name} as a graph", partial(graphed, call))
              for name, call in calls.items()}
    return {name: graph for name, graph in graphs.items() if graph is not None}


def interleaved(calls: dict[str, Call], repeats: int) -> dict[str, float]:
    """Median ms of each, called in turn, the L2 emptied before every call."""
    if device() == "cpu":
        return {name: _wall_ms(call) for name, call in calls.items()}
    flush = torch.empty(1 << 26, device="cuda")
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        events = {}
        for name, call in calls.items():
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            flush.zero_()
            before.record()
            call()
            after.record()
            events[name] = before, after
        torch.cuda.synchronize()
        for name, (before, after) in events.items():
            times[name].append(before.elapsed_time(after))
    return {name: sorted(values)[repeats // 2] for name, values in times.items()}


def _wall_ms(call: Call) -> float:
    began = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - began)


def attempt(what: str, call: Call) -> Any:
    """What the call gives, or None and a line on what went wrong: one peer spoils no cell."""
    try:
        return call()
    except Exception as problem:
        say(f"{what}: {type(problem).__name__}: {str(problem)[:300]}")
        free()
        return None


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# ----------------------------------------------------------------------------------------- memory


def synchronize() -> None:
    if device() == "cuda":
        torch.cuda.synchronize()


def free() -> None:
    """Give back what nothing holds. A device that a bad kernel has stopped gives nothing."""
    gc.collect()
    if device() == "cuda":
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()


def reset_peak() -> None:
    if device() == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_gib() -> float:
    return torch.cuda.max_memory_allocated() / 2**30 if device() == "cuda" else 0.0


# ---------------------------------------------------------------------------------------- workers


def _never(cell: Any) -> bool:
    return False


def _nothing(cell: Any) -> None:
    pass


@dataclass(frozen=True)
class Suite:
    """Cells to measure; functions that other processes can import.

    prepare: fill the kernel caches for one of `units`, in a process of its own. warm: compile what
    only the process that measures a cell can hold. measure: the cell's rows. large: cells that must
    not be warmed up all at once, for memory. apart: cells that compile for so long that others are
    measured meanwhile.
    """

    cells: list[Any]
    measure: Callable[[Any], Iterator[Row]]
    warm: Callable[[Any], None] = _nothing
    prepare: Callable[[Any], None] = _nothing
    units: Sequence[Any] = ()
    large: Callable[[Any], bool] = _never
    apart: Callable[[Any], bool] = _never


def run(suite: Suite, workers: int = 1) -> list[Row]:
    """All rows, in the order of the cells. Workers warm up side by side, then take turns."""
    if device() == "cpu":
        for unit in suite.units:
            suite.prepare(unit)
        return [row for cell in suite.cells for row in _measured(suite, cell)]
    together = [cell for cell in suite.cells if not suite.apart(cell)]
    alone = [[cell] for cell in suite.cells if suite.apart(cell)]
    team = Team(suite)
    team.start(alone, meet=False)
    if suite.units:
        with multiprocessing.get_context("spawn").Pool(len(suite.units)) as pool:
            pool.map(partial(_prepare, suite), suite.units, chunksize=1)
    team.start([together[index::workers] for index in range(workers)], meet=True)
    found = team.results()
    return [row for cell in suite.cells for row in found.get(str(cell), [])]


def _prepare(suite: Suite, unit: Any) -> None:
    warnings.filterwarnings("ignore")
    attempt(f"preparing {unit}", partial(suite.prepare, unit))


class Team:
    """Processes that measure the cells of a suite, one at a time."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.context = multiprocessing.get_context("spawn")
        self.large, self.turn = self.context.Semaphore(2), self.context.Lock()
        self.queue: Any = self.context.Queue()
        self.processes: list[Any] = []
        self.barriers: list[Any] = []

    def start(self, shares: list[list[Any]], meet: bool) -> None:
        """A process for each share of the cells; those that meet measure when all are warm."""
        shares = [share for share in shares if share]
        barrier = self.context.Barrier(len(shares)) if meet and shares else None
        self.barriers.append(barrier)  # a process that starts up finds it by name while it lives
        for share in shares:
            locks = barrier, self.large, self.turn
            arguments = (self.suite, share, *locks, self.queue)
            process = self.context.Process(target=_work, args=arguments)
            process.start()
            self.processes.append(process)

    def results(self) -> dict[str, list[Row]]:
        """Rows by cell. What a process that died has left goes to a new one, without the cell that
        it died of."""
        found: dict[str, list[Row]] = {}
        before = -1
        while True:
            with contextlib.suppress(queue.Empty):
                while True:
                    name, rows = self.queue.get(timeout=1)
                    found[name] = rows
                    say(f"{name}: {[tuple(row.values())[1:7] for row in rows]}")
            if any(process.is_alive() for process in self.processes):
                continue
            left = [cell for cell in self.suite.cells if str(cell) not in found]
            if not left:
                return found
            if len(found) == before:  # it died of its first
                found[str(left.pop(0))] = []
            before = len(found)
            self.start([left], meet=False)


def _work(
    suite: Suite, cells: list[Any], barrier: Any, large: Any, turn: Any, results: Any
) -> None:
    """Compile some cells beside other workers, then measure them alone."""
    warnings.filterwarnings("ignore")
    for cell in cells:
        with large if suite.large(cell) else contextlib.nullcontext():
            attempt(f"warming up {cell}", partial(suite.warm, cell))
            free()
    if barrier is not None:
        with contextlib.suppress(Exception):  # a worker that died breaks it
            barrier.wait(timeout=300)
    for cell in cells:
        with turn:
            results.put((str(cell), _measured(suite, cell)))
            free()
            synchronize()  # raises where a bad kernel has stopped the device


def _measured(suite: Suite, cell: Any) -> list[Row]:
    """What can be measured of a cell: rows before an error count."""
    rows = []
    try:
        for row in suite.measure(cell):
            rows.append(row)
        synchronize()
    except Exception:
        say(f"{cell}: {traceback.format_exc(limit=-3)[-1500:]}")
    return rows


# ------------------------------------------------------------------------------------------- rows


def row(
    op: str,
    shape: str,
    mode: str,
    clock: str,
    ours: float | None,
    peer: str | None = None,
    theirs: float | None = None,
    **more: Any,
) -> Row:
    """One comparison. mode: `fwd` or `fwd+bwd`; times in ms."""
    return {
        "op": op,
        "shape": shape,
        "mode": mode,
        "clock": clock,
        "ours_ms": None if ours is None else round(ours, 5),
        "peer": peer,
        "peer_ms": None if theirs is None else round(theirs, 5),
        **more,
        "gpu": torch.cuda.get_device_name() if device() == "cuda" else "none",
        "versions": {"torch": torch.__version__, "triton": _triton_version()},
        "date": datetime.date.today().isoformat(),
    }


def _triton_version() -> str:
    try:
        import triton

        return str(triton.__version__)
    except ImportError:
        return "none"


def save(
    rows: Iterable[Row], folder: Path, keep: Callable[[Row], bool] = lambda row: False
) -> None:
    """Put the rows in place of those of the same ops, but for old ones that `keep` holds for;
    write attention.json and attention.md."""
    import tables

    rows = list(rows)
    if not rows:
        return
    ops = {item["op"] for item in rows}
    path = folder / "attention.json"
    old = json.loads(path.read_text()) if path.exists() else []
    merged = [item for item in old if item["op"] not in ops or keep(item)] + rows
    folder.mkdir(parents=True, exist_ok=True)
    text = ",\n".join(json.dumps(item) for item in merged)
    path.write_text(f"[\n{text}\n]\n")
    (folder / "attention.md").write_text(tables.page(merged))

